"""Which notifications a silence holds back, and what is sent when it ends: a sentence for each row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.domain.model import IncidentEvent, ProbeInfo, Severity
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.silencing import (
    NotificationAfterSilence,
    Silence,
    SilenceMatcher,
    SilencingDecision,
    SilencingDecisionReason,
    decide_notification_after_silence,
    decide_silencing,
    escape_subject_pattern,
    matches_subject_pattern,
    select_silences_by_probe,
)

OPENED, CHANGED, RESOLVED, ACKNOWLEDGED = (
    IncidentEvent.OPENED,
    IncidentEvent.CHANGED,
    IncidentEvent.RESOLVED,
    IncidentEvent.ACKNOWLEDGED,
)


@pytest.mark.parametrize(
    ("sentence", "event", "is_silenced", "is_notified", "is_held_back", "reason"),
    [
        ("an opening that no silence selects is sent", OPENED, False, False, False, "not_silenced"),
        ("an opening is held back", OPENED, True, False, True, "silenced"),
        ("a second opening is held back, too", OPENED, True, True, True, "silenced"),
        ("a change of an incident that was not sent is held back", CHANGED, True, False, True, "silenced"),
        ("a change of an incident that was sent is held back", CHANGED, True, True, True, "silenced"),
        ("an end that no silence selects is sent", RESOLVED, False, True, False, "not_silenced"),
        ("people who know of the incident get its end", RESOLVED, True, True, False, "destination_knows_incident"),
        ("the end of an unknown incident is held back", RESOLVED, True, False, True, "opening_not_sent"),
        (
            "a message that exists shows who is handling it",
            ACKNOWLEDGED,
            True,
            True,
            False,
            "destination_knows_incident",
        ),
        ("without a message, no one learns who is handling it", ACKNOWLEDGED, True, False, True, "opening_not_sent"),
    ],
)
def test_what_a_silence_holds_back(
    sentence: str, event: IncidentEvent, is_silenced: bool, is_notified: bool, is_held_back: bool, reason: str
) -> None:
    decision = decide_silencing(event, is_silenced=is_silenced, is_notified=is_notified)
    assert decision == SilencingDecision(is_held_back, SilencingDecisionReason(reason)), sentence


@pytest.mark.parametrize(
    ("sentence", "facts", "event", "reason"),
    [
        ("an open incident that no one knows of is sent", {}, OPENED, "silence_ended"),
        ("an incident that is over is not sent", {"is_open": False}, None, "incident_is_over"),
        ("another silence still holds it back", {"is_still_silenced": True}, None, "still_silenced"),
        ("another probe that is down still holds it back", {"is_muted": True}, None, "still_muted"),
        (
            "also a change of it",
            {"is_muted": True, "is_notified": True, "has_held_back_change": True},
            None,
            "still_muted",
        ),
        ("a destination without a route is left out", {"has_route": False}, None, "no_route"),
        ("a destination that knows of it gets it once", {"is_notified": True}, None, "already_notified"),
        (
            "a destination that knows of it gets the change that was held back",
            {"is_notified": True, "has_held_back_change": True},
            CHANGED,
            "cause_changed_while_silenced",
        ),
        (
            "also if no route leads to it any more",
            {"is_notified": True, "has_held_back_change": True, "has_route": False},
            CHANGED,
            "cause_changed_while_silenced",
        ),
        ("the opening shows the newest cause", {"has_held_back_change": True}, OPENED, "silence_ended"),
        (
            "nothing of an incident that is over, even if another silence selects it",
            {"is_open": False, "is_still_silenced": True, "is_notified": True},
            None,
            "incident_is_over",
        ),
    ],
)
def test_what_is_sent_when_a_silence_ends(
    sentence: str, facts: dict[str, bool], event: IncidentEvent | None, reason: str
) -> None:
    defaults = {"is_open": True, "is_still_silenced": False, "is_notified": False, "has_held_back_change": False}
    decision = decide_notification_after_silence(**{**defaults, "is_muted": False, "has_route": True, **facts})
    assert decision == NotificationAfterSilence(event, SilencingDecisionReason(reason)), sentence


PROBE = ProbeInfo(1, "api", "API", "http", group="Core", tags=("prod", "eu"), severity=Severity.CRITICAL)


@pytest.mark.parametrize(
    ("sentence", "matcher", "subject", "mismatch"),
    [
        ("an empty matcher selects everything", SilenceMatcher(), "", ""),
        ("by id", SilenceMatcher(ProbeMatcher(probe="api")), "", ""),
        ("by name", SilenceMatcher(ProbeMatcher(probe="API")), "", ""),
        ("another id", SilenceMatcher(ProbeMatcher(probe="web")), "", "probe is api, not web"),
        ("another group", SilenceMatcher(ProbeMatcher(group="Search")), "", "group is Core, not Search"),
        ("all of its tags", SilenceMatcher(ProbeMatcher(tags=frozenset({"prod", "eu"}))), "", ""),
        ("a tag that it lacks", SilenceMatcher(ProbeMatcher(tags=frozenset({"us"}))), "", "no tag us"),
        (
            "another severity",
            SilenceMatcher(ProbeMatcher(severity=Severity.INFO)),
            "",
            "severity is critical, not info",
        ),
        ("the subject", SilenceMatcher(subject_pattern="backup-*"), "backup-eu", ""),
        ("another subject", SilenceMatcher(subject_pattern="a"), "b", "subject is b, not a"),
        ("the probe itself has no subject", SilenceMatcher(subject_pattern="a"), "", "subject is empty, not a"),
        ("a star alone selects each subject", SilenceMatcher(subject_pattern="*"), "", ""),
    ],
)
def test_which_incidents_a_matcher_selects(sentence: str, matcher: SilenceMatcher, subject: str, mismatch: str) -> None:
    assert matcher.describe_mismatch(PROBE, subject) == mismatch, sentence


@pytest.mark.parametrize(
    ("matcher", "is_selected"),
    [
        (ProbeMatcher(), False),
        (ProbeMatcher(severity=Severity.CRITICAL), False),
        (ProbeMatcher(tags=frozenset({"prod"})), False),
        (ProbeMatcher(kind="service"), True),
        (ProbeMatcher(probe="api"), True),
    ],
)
def test_a_fault_of_watchdog_itself_is_selected_only_on_purpose(matcher: ProbeMatcher, is_selected: bool) -> None:
    own = replace(PROBE, kind="service")
    assert (SilenceMatcher(matcher).describe_mismatch(own, "") == "") is is_selected


@pytest.mark.parametrize(
    ("pattern", "subject", "matches"),
    [
        ("a", "a", True),
        ("a", "ab", False),
        ("a*", "ab", True),
        ("*b", "ab", True),
        ("a*b", "ab", True),
        ("a*ba*b", "abab", True),
        ("ab*ba", "aba", False),
        ("*a*b*", "xxaxxbxx", True),
        ("*b*a*", "ab", False),
        ("a*b*c", "acb", False),
        ("a**c", "abc", True),
        (r"\*", "*", True),
        (r"\*", "a", False),
        (r"5 \* \* \* \*", "5 * * * *", True),
        (r"\**", "*anything", True),
        (r"a\\*", "a\\b", True),
        (r"a\\*", "ab", False),
        ("a\\", "a\\", True),
        (r"\a", "a", True),
        ("a.c", "abc", False),
        ("[a]", "a", False),
        ("A", "a", False),
        ("*" * 500, "a" * 100_000, True),
        ("*a" * 250, "a" * 100_000 + "b", False),
    ],
)
def test_subject_patterns(pattern: str, subject: str, matches: bool) -> None:
    assert matches_subject_pattern(pattern, subject) is matches


@pytest.mark.parametrize("subject", ["*", "a*b", "\\", "\\*", "a\\", "nightly [eu]", "*/5 * * * *"])
def test_the_escaped_subject_selects_that_subject_alone(subject: str) -> None:
    assert matches_subject_pattern(escape_subject_pattern(subject), subject)
    assert not matches_subject_pattern(escape_subject_pattern(subject), f"{subject}x")
    assert not matches_subject_pattern(escape_subject_pattern(subject), subject.replace("*", "x") + "y")


@pytest.mark.parametrize(
    ("matcher", "text"),
    [
        (SilenceMatcher(), "everything"),
        (SilenceMatcher(ProbeMatcher(group="Core", tags=frozenset({"b", "a"}))), "group Core, tags a, b"),
        (SilenceMatcher(ProbeMatcher(severity=Severity.INFO), "x*"), "severity info, subject x*"),
        (SilenceMatcher(ProbeMatcher(probe="api", kind="http", tags=frozenset({"a"}))), "id api, tag a, kind http"),
    ],
)
def test_a_matcher_in_words(matcher: SilenceMatcher, text: str) -> None:
    assert matcher.describe() == text
    assert matcher.is_empty is (text == "everything")


def test_the_label_of_a_silence_is_short_and_on_one_line() -> None:
    values: dict[str, Any] = {"id": "s-1", "matcher": SilenceMatcher(), "started_at": 0, "ends_at": 1}
    silence = Silence(**values, actor=Actor("Ana\n" + "x" * 100, OperatorInterfaceKind.CLI))
    assert silence.label.startswith("silenced by s-1 (Ana xxx")
    assert len(silence.label) < 65


@pytest.mark.parametrize(
    ("incident", "ended_by", "selection", "end", "past_end"),
    [
        ("", "", "group Core", "until 22:13 UTC", "expired"),
        ("", "Ben", "group Core", "until 22:13 UTC", "ended by Ben"),
        ("1c9b", "", "group Core, incident 1c9b", "until the incident is resolved", "the incident was resolved"),
        ("1c9b", "Ben", "group Core, incident 1c9b", "until the incident is resolved", "ended by Ben"),
    ],
)
def test_a_silence_is_described(incident: str, ended_by: str, selection: str, end: str, past_end: str) -> None:
    now = 1_700_000_000_000
    silence = Silence(
        id="s-1",
        matcher=SilenceMatcher(ProbeMatcher(group="Core")),
        started_at=now,
        ends_at=now,
        actor=Actor("Ana", OperatorInterfaceKind.PAGE),
        ended_by=ended_by,
        incident=incident,
    )
    assert silence.describe_selection() == selection
    assert silence.describe_end(now) == end
    assert silence.describe_past_end() == past_end


def test_an_incident_is_selected_by_its_probe_and_its_subject_alone() -> None:
    matcher = SilenceMatcher.of_incident("jobs", "a*b")
    assert (matcher.probe, matcher.subject_pattern) == (ProbeMatcher(probe="jobs"), "a\\*b")
    assert SilenceMatcher.of_incident("jobs", "").subject_pattern == ""


def test_the_silences_of_each_probe() -> None:
    def silence(id: str, **matcher: Any) -> Silence:
        values: dict[str, Any] = {"matcher": SilenceMatcher(ProbeMatcher(**matcher)), "started_at": 0, "ends_at": 1}
        return Silence(id=id, **values, actor=Actor("Ana", OperatorInterfaceKind.PAGE))

    silences = [
        silence("s-1", group="Core"), silence("s-2", probe="Web shop"), silence("s-3"), silence("s-4", probe="api"),
        silence("s-5", tags=frozenset({"prod"})),
    ]  # fmt: skip
    probes = [ProbeInfo(1, "api", "API", "http", "Core"), ProbeInfo(2, "shop", "Web shop", "http", tags=("prod",))]
    selected = select_silences_by_probe(silences, probes)
    assert {id: [silence.id for silence in own] for id, own in selected.items()} == {
        1: ["s-1", "s-3", "s-4"], 2: ["s-2", "s-3", "s-5"],
    }  # fmt: skip
    assert select_silences_by_probe(silences[:1], probes[1:]) == {}


@pytest.mark.parametrize(
    ("matcher", "matches"),
    [
        (SilenceMatcher(), True),
        (SilenceMatcher(subject_pattern="**"), True),
        (SilenceMatcher(subject_pattern="a*"), False),
        (SilenceMatcher(ProbeMatcher(kind="http")), False),
    ],
)
def test_which_matcher_selects_every_incident(matcher: SilenceMatcher, matches: bool) -> None:
    assert matcher.matches_every_incident is matches
