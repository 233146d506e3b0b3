"""Messages about several incidents: who is affected, by what, and since when, without repetition."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.support.alert_contexts import (
    INCIDENT_SINCE,
    MINUTE_MS,
    NOW,
    OPENED_ALERT,
    PROBE,
    make_incident,
    result_with_evidence,
)
from tests.support.fakes import are_blocks_valid
from watchdog.domain.acts import Actor, Closure, OperatorInterfaceKind
from watchdog.domain.alert_message import AlertMessageContext, IncidentWithProbe
from watchdog.domain.formatting import NBSP
from watchdog.domain.model import IncidentEvent, Outcome, Severity
from watchdog.domain.observations import McpScheduledTaskFacts
from watchdog.notifiers.blocks import build_slack_blocks
from watchdog.notifiers.email_letter import render_email_html_part, render_email_text_part
from watchdog.notifiers.message import compose_alert_message
from watchdog.notifiers.message_fields import to_safe_single_line

HOST = "api.acme.example:443"
REFUSED, HTTP_503 = "connection refused", "HTTP 503, expected 2xx"
ENDED_AT = INCIDENT_SINCE + 12 * MINUTE_MS


def make_member(
    name: str,
    message: str = REFUSED,
    severity: Severity = Severity.WARNING,
    *,
    ended: bool = False,
    resolution: str = "",
) -> IncidentWithProbe:
    number = int(re.sub(r"\D", "", name) or 0)
    incident = make_incident(
        "availability", message, id=name, probe=number, severity=severity, reason="connection.refused",
        resolved_at=ENDED_AT if ended else None, resolution=resolution,
    )  # fmt: skip
    return IncidentWithProbe(incident, replace(PROBE, database_id=number, name=name))


def make_context(members: Sequence[IncidentWithProbe], shared_cause: str = HOST) -> AlertMessageContext:
    is_over = all(member.incident.resolved_at for member in members)
    return replace(
        OPENED_ALERT,
        event=IncidentEvent.RESOLVED if is_over else IncidentEvent.OPENED,
        now=ENDED_AT if is_over else NOW,
        incident=members[0].incident,
        members=tuple(members),
        shared_cause=shared_cause,
    )


def list_lines(context: AlertMessageContext) -> list[str]:
    return [line.text for line in compose_alert_message(context).members]


def test_incidents_with_one_cause_are_named_together() -> None:
    members = [make_member(f"API {n}", ended=n < 3) for n in range(6)]
    members[4] = make_member("API 4", severity=Severity.CRITICAL)
    context = make_context(members)
    assert compose_alert_message(context).headline == f"Down: 3 of 6 probes ({HOST}): connection refused"
    assert list_lines(context) == [
        "✕ connection refused, 3 probes: API 4 (critical), API 3, API 5",
        "✓ 3 probes recovered (was: connection refused): API 0, API 1, API 2",
    ]


def test_the_worst_open_incident_comes_first() -> None:
    members = [
        make_member("Site 1", HTTP_503, ended=True),
        make_member("Site 2", "timed out after 10 s"),
        make_member("Site 3", HTTP_503, Severity.CRITICAL),
        make_member("Site 4", "certificate expired", ended=True, resolution="probe.removed"),
    ]
    context = make_context(members, "")
    assert compose_alert_message(context).headline == f"Down: 2 of 4 probes: Site 3: {HTTP_503}, and 1 more"
    assert list_lines(context) == [
        f"✕ Site 3: {HTTP_503} · critical",
        "✕ Site 2: timed out after 10 s",
        f"✓ Site 1 recovered (was: {HTTP_503})",
        "✓ Site 4: probe was removed",
    ]


def test_a_member_that_a_person_closed_is_named_so() -> None:
    closed = [make_member(f"Site {n}", HTTP_503, ended=True, resolution="incident.closed") for n in (1, 2)]
    assert list_lines(make_context([make_member("Site 3"), *closed])) == [
        "✕ Site 3: connection refused",
        f"✓ {HTTP_503}, 2 probes (closed by hand): Site 1, Site 2",
    ]
    closure = Closure(NOW, Actor("Ana", OperatorInterfaceKind.PAGE), "host removed")
    closed_by_ana = closed[0]._replace(incident=replace(closed[0].incident, closure=closure))
    assert (
        list_lines(make_context([make_member("Site 3"), closed_by_ana]))[1] == "✓ Site 1: closed by Ana: host removed"
    )
    assert compose_alert_message(make_context(closed)).title == f"2 probes ({HOST}) were closed"


@pytest.mark.parametrize(
    ("later_by_s", "open_for_min", "expected"),
    [
        (0, 2, "critical"),
        (10, 2, "since 01:48:10 UTC · critical"),
        (10, 30, "critical"),
        (60, 30, "since 01:21 UTC · critical"),
        (-24 * 3600, 2, "critical"),
    ],
)
def test_an_incident_that_began_later_has_its_own_start(later_by_s: int, open_for_min: int, expected: str) -> None:
    first = make_member("Site 1", HTTP_503)
    since = NOW - NOW % MINUTE_MS - open_for_min * MINUTE_MS
    starts = (since, since + later_by_s * 1000)
    members = [
        member._replace(incident=replace(member.incident, since=at))
        for member, at in zip((first, make_member("Site 2", severity=Severity.CRITICAL)), starts, strict=True)
    ]
    assert f"✕ Site 2: {REFUSED} · {expected}" in list_lines(make_context(members, ""))


def test_of_many_incidents_with_one_cause_only_a_start_in_another_minute_is_stated() -> None:
    members = [make_member(f"API {n}") for n in range(3)]
    for number, later_by_s in ((1, 10), (2, 60)):
        since = INCIDENT_SINCE + later_by_s * 1000
        members[number] = members[number]._replace(incident=replace(members[number].incident, since=since))
    assert list_lines(make_context(members)) == [
        "✕ connection refused, 3 probes: API 0, API 1, API 2 (since 01:49 UTC)"
    ]


def test_the_end_of_a_group_states_when_it_was() -> None:
    message = compose_alert_message(make_context([make_member(f"API {n}", ended=True) for n in range(40)]))
    assert next((field.label, field.text) for field in message.main_fields) == ("Time", "01:48 to 02:00 UTC")


@pytest.mark.parametrize("name", ["API {}", "Checkout & payment <of> region number {} in production"])
def test_fifteen_hundred_incidents_stay_within_the_limits_of_slack(name: str) -> None:
    """Every name is whole, and the rest is counted."""
    names = [name.format(n) for n in range(1_500)]
    message = compose_alert_message(make_context([make_member(n) for n in names]))
    blocks = build_slack_blocks(message)
    assert are_blocks_valid(blocks)
    text = "\n".join(block["text"]["text"] for block in blocks if block["block_id"].startswith("members_"))
    text = text.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")
    names_text, _, rest_text = text.partition("\nand ")
    listed = names_text.partition(": ")[2].replace(",\n", ", ").rstrip(",").split(", ")
    assert listed == names[: len(listed)]
    assert len(listed) + int(rest_text.partition(" ")[0].replace(",", "") or 0) == len(names)
    letter = render_email_text_part(message)
    assert [n for n in names if n not in letter] == []
    assert render_email_html_part(message, "subject").count("in production" if "&" in name else "API") >= len(names)


def test_a_line_is_cut_between_words() -> None:
    text = "the certificate of the server is not trusted: self-signed certificate in the chain"
    assert to_safe_single_line(text, 40) == "the certificate of the server is not…"
    assert to_safe_single_line("A" * 100, 40) == "A" * 39 + "…", "a long word is cut"
    assert to_safe_single_line(text, 100) == text


def make_task_group(*, ended: bool = False) -> AlertMessageContext:
    """Two stale tasks of one server."""
    probe = replace(PROBE, name="Ops MCP", kind="mcp")
    members = [
        IncidentWithProbe(
            make_incident(
                "task", f"task {name} is stale: last run 00:5{n} UTC, limit 15 min", id=name, subject=name,
                reason="task.stale", severity=Severity.WARNING, resolved_at=ENDED_AT if ended else None,
            ),
            probe,
        )
        for n, name in enumerate(("prune", "rotate_keys"))
    ]  # fmt: skip
    entries = {name: {"name": name, "ok": True} for name in ("prune", "rotate_keys", "other")}
    result = result_with_evidence(INCIDENT_SINCE, Outcome.PASS, "", facts={"tasks": entries})
    return replace(make_context(members, "ops.acme.example:443"), probe=probe, first_bad=result, latest=result)


def test_the_end_of_two_incidents_shows_the_newest_runs() -> None:
    group = make_task_group(ended=True)
    run_at = (INCIDENT_SINCE + 5_000, None)
    members = tuple(
        member._replace(latest_subject_facts=McpScheduledTaskFacts(ok=True, last_run_at=at))
        for member, at in zip(group.members, run_at, strict=True)
    )
    message = compose_alert_message(replace(group, members=members))
    assert [line.text for line in message.members] == [
        "✓ Ops MCP: task prune recovered (was stale: last run 00:50 UTC, limit 15 min), last run 01:48:05 UTC",
        "✓ Ops MCP: task rotate_keys recovered (was stale: last run 00:51 UTC, limit 15 min)",
    ]


def test_two_tasks_with_one_problem_are_one_cause() -> None:
    message = compose_alert_message(make_task_group())
    assert message.headline == "Degraded: Ops MCP: 2 tasks are stale: prune, rotate_keys"
    fields = {field.label: " ".join(filter(None, (field.code, field.text))) for field in message.main_fields}
    assert fields["Checked"] == "https://api.acme.example/health · task prune, task rotate_keys"
    assert fields["Since"].replace("\u00a0", " ") == "01:48:00 UTC, 3 checks; last good 01:47:00 UTC"
    assert message.evidence == "task prune: ok: true\ntask rotate_keys: ok: true"
    assert (message.incident_url, message.probe_url) == ("", OPENED_ALERT.probe_url), "one link cannot be to both"
    assert [field.text for field in message.attribute_fields] == ["warning", OPENED_ALERT.probe.group]


def test_a_task_that_recovered_is_not_stale() -> None:
    assert list_lines(make_task_group(ended=True)) == [
        f"✓ Ops MCP: task {name} recovered (was stale: last run 00:5{n} UTC, limit 15 min)"
        for n, name in enumerate(("prune", "rotate_keys"))
    ]


@pytest.mark.parametrize(
    ("subjects", "resolution", "title"),
    [
        ({"prune": "task", "rotate_keys": "task"}, "", "Ops MCP: tasks prune, rotate_keys recovered"),
        ({"prune": "task", "reindex": "missing"}, "", "Ops MCP: tasks prune, reindex recovered"),
        ({"b": "job", "a": "job"}, "", "Ops MCP: jobs a, b recovered"),
        ({f"t{n}": "task" for n in range(7)}, "", "Ops MCP: tasks t0, t1, t2, t3, t4 and 2 more recovered"),
        ({"prune": "task", "x": "task"}, "subject.no_longer_listed", "Ops MCP: tasks prune, x were closed"),
        ({"prune": "task", "": "availability"}, "", "2 incidents (Ops MCP) recovered"),
        ({"elapsed_ms < 9": "preference", "tls": "preference"}, "", "2 incidents (Ops MCP) recovered"),
    ],
)
def test_the_end_of_incidents_of_one_probe_names_them(subjects: dict[str, str], resolution: str, title: str) -> None:
    group = make_task_group(ended=True)
    members = [
        IncidentWithProbe(
            replace(group.incident, id=str(n), rule=rule, subject=subject, resolution=resolution), group.probe
        )
        for n, (subject, rule) in enumerate(subjects.items())
    ]
    headline = compose_alert_message(replace(group, members=tuple(members))).headline
    assert headline.startswith(title + " · ")


def test_the_evidence_is_that_of_the_incident_in_the_headline() -> None:
    members = [make_member("API 1", ended=True), make_member("API 2")]
    message = compose_alert_message(make_context(members))
    assert "API 2" in message.members[0].text
    assert message.evidence == "", "the context has the results of API 1"


@pytest.mark.parametrize(
    ("labels", "ended", "headline"),
    [
        ({"group": "Search"}, 0, "Down: 3 probes (group Search): Site 1: HTTP 503, expected 2xx, and 2 more"),
        ({"group": "Search"}, 1, "Down: 2 of 3 probes (group Search): Site 2: timed out after 10 s, and 1 more"),
        ({"group": "Search"}, 2, "Down: 1 of 3 probes (group Search): Site 3: connection refused"),
        ({"group": "Search"}, 3, "3 probes (group Search) recovered · down for 12 min"),
        (
            {"group": "", "kind": "http"},
            0,
            "Down: 3 probes (group none, kind http): Site 1: HTTP 503, expected 2xx, and 2 more",
        ),
        ({}, 0, "Down: 3 probes: Site 1: HTTP 503, expected 2xx, and 2 more"),
        ({}, 3, "3 probes recovered · down for 12 min"),
    ],
)
def test_incidents_that_a_route_groups(labels: dict[str, str], ended: int, headline: str) -> None:
    """They are a group, and not messages that were merged."""
    causes = (HTTP_503, "timed out after 10 s", REFUSED)
    members = [make_member(f"Site {n}", cause, ended=n <= ended) for n, cause in enumerate(causes, 1)]
    message = compose_alert_message(replace(make_context(members, shared_cause=""), group_labels=labels))
    assert message.headline.replace(NBSP, " ") == headline
    assert message.notice == ""
    assert [label for label, _ in message.links] == ["Incident"]
    assert len(message.members) == 3


def test_incidents_of_one_probe_that_a_route_groups() -> None:
    members = [make_member("API", cause) for cause in (HTTP_503, REFUSED)]
    members = [replace_probe(member) for member in members]
    message = compose_alert_message(replace(make_context(members, ""), group_labels={"probe": "api"}))
    assert message.headline == "Down: 2 incidents (API): HTTP 503, expected 2xx, and 1 more"
    assert [label for label, _ in message.links] == ["Probe"]


def replace_probe(member: IncidentWithProbe) -> IncidentWithProbe:
    """The probe that the context is about."""
    return member._replace(probe=replace(PROBE, name="API"))


def test_group_names_that_come_from_outside_stay_on_one_line() -> None:
    members = [make_member(f"Site {n}", HTTP_503) for n in range(2)]
    context = replace(make_context(members, ""), group_labels={"group": "a\nb" + "x" * 500})
    message = compose_alert_message(context)
    assert "\n" not in message.title
    assert len(message.title) < 500
    assert are_blocks_valid(build_slack_blocks(message))
