"""Watchdog's own faults, one case per row."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.support.builders import PROBE_DATABASE_ID, alert_policy, make_result
from watchdog.domain.model import IncidentTransition, SubjectListing
from watchdog.domain.rules import AlertStates, service
from watchdog.domain.rules.engine import fold_result_into_alert_states_in_place
from watchdog.domain.rules.service import WatchdogFaultFacts

NOW = 1_700_000_100_000
MINUTE_MS = 60_000


class Row(NamedTuple):
    sentence: str
    facts: WatchdogFaultFacts
    is_bad: bool


ROWS = [
    Row("nothing has failed", WatchdogFaultFacts(None), False),
    Row("a short outage of a receiver is no problem yet", WatchdogFaultFacts(NOW - MINUTE_MS + 1, error="x"), False),
    Row("a minute without a confirmation is one", WatchdogFaultFacts(NOW - MINUTE_MS, error="x"), True),
    Row("a notification that was given up is one at once", WatchdogFaultFacts(NOW, given_up=True, error="x"), True),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.sentence)
def test_a_destination(row: Row) -> None:
    subject = service.build_destination_finding_subject("oncall/slack")
    result = make_result("p", 1)._replace(listings={"service": SubjectListing(NOW, {subject: row.facts})})
    (finding,) = service.evaluate_result(alert_policy(), result)
    assert (finding.rule, finding.subject, finding.bad) == ("service", "receiver oncall/slack", row.is_bad)
    assert finding.reason == ("watchdog.delivery_failing" if row.is_bad else "")
    assert bool(finding.message) is row.is_bad


def test_the_finding_names_the_receiver_an_instant_and_the_error() -> None:
    facts = WatchdogFaultFacts(NOW - 5 * MINUTE_MS, error="Slack error token_revoked: create another bot token")
    result = make_result("p", 1)._replace(listings={"service": SubjectListing(NOW, {"receiver oncall/slack": facts})})
    (finding,) = service.evaluate_result(alert_policy(), result)
    assert finding.message == (
        "receiver oncall/slack has not confirmed any notification since 22:10 UTC: "
        "Slack error token_revoked: create another bot token"
    )


def test_each_receiver_is_a_subject_that_opens_and_resolves_by_itself() -> None:
    states: AlertStates = {}
    out: list[IncidentTransition] = []
    for slot, (slack, email) in enumerate([("f", "."), ("f", "f"), (".", "f"), (".", ".")], 1):
        subjects = {
            service.build_destination_finding_subject(name): WatchdogFaultFacts(NOW, given_up=True)
            if state == "f"
            else WatchdogFaultFacts(None)
            for name, state in (("oncall/slack", slack), ("ops/email", email))
        }
        result = make_result("p", slot)._replace(listings={"service": SubjectListing(NOW, subjects)})
        fold_result_into_alert_states_in_place(alert_policy(3, 3), states, result, out)
    assert [(t.event.value, t.subject, t.probe) for t in out] == [
        ("opened", "receiver oncall/slack", PROBE_DATABASE_ID),
        ("opened", "receiver ops/email", PROBE_DATABASE_ID),
        ("resolved", "receiver oncall/slack", PROBE_DATABASE_ID),
        ("resolved", "receiver ops/email", PROBE_DATABASE_ID),
    ]


def test_the_destination_of_a_subject() -> None:
    assert service.parse_destination_of_finding_subject("receiver oncall/slack") == "oncall/slack"
    assert service.parse_destination_of_finding_subject("clock") == ""


@pytest.mark.parametrize(
    ("sentence", "failing_for_ms", "expected"),
    [
        ("no destination is configured", {}, False),
        ("one works", {"a": 600_000, "b": None}, False),
        ("all fail, one for a short time", {"a": 600_000, "b": 299_999}, False),
        ("all fail for five minutes", {"a": 600_000, "b": 300_000}, True),
    ],
)
def test_whether_anyone_can_be_notified(sentence: str, failing_for_ms: dict[str, int | None], expected: bool) -> None:
    facts = {name: WatchdogFaultFacts(NOW - ms) for name, ms in failing_for_ms.items() if ms is not None}
    assert service.have_all_destinations_failed_too_long(facts, list(failing_for_ms), NOW) is expected, sentence


@pytest.mark.parametrize(
    ("sentence", "facts", "is_bad"),
    [
        ("the same", WatchdogFaultFacts(None), False),
        ("a rolling deploy", WatchdogFaultFacts(NOW - 5 * MINUTE_MS, error="x"), False),
        ("for too long", WatchdogFaultFacts(NOW - 5 * MINUTE_MS - 1, error="x"), True),
    ],
)
def test_the_configurations_of_processes(sentence: str, facts: WatchdogFaultFacts, is_bad: bool) -> None:
    result = make_result("p", 1)._replace(
        listings={"service": SubjectListing(NOW, {service.PROCESS_CONFIG_DIFFERENCE_FINDING_SUBJECT: facts})}
    )
    (finding,) = service.evaluate_result(alert_policy(), result)
    assert (finding.subject, finding.bad) == ("configurations", is_bad), sentence
    assert finding.reason == ("watchdog.configurations_differ" if is_bad else "")
    assert finding.message == (
        "processes on one database have had different configurations since 22:09 UTC: x" if is_bad else ""
    )


@pytest.mark.parametrize("member", ["web1-4711-3fa2c1", "copy of web1-4711-3fa2c1"])
@pytest.mark.parametrize(
    "facts", [WatchdogFaultFacts(None), WatchdogFaultFacts(NOW - 60_000, error="2,000 runs were in progress")]
)
def test_a_fault_of_a_process(facts: WatchdogFaultFacts, member: str) -> None:
    subject = service.build_process_fault_finding_subject("overload", member)
    result = make_result("p", 1)._replace(listings={"service": SubjectListing(NOW, {subject: facts})})
    (finding,) = service.evaluate_result(alert_policy(), result)
    assert (finding.subject, finding.bad) == (subject, facts.failing_since is not None)
    assert finding.reason == ("watchdog.overloaded" if finding.bad else "")
    assert finding.message.replace("\N{NO-BREAK SPACE}", " ") == (
        f"too many concurrent runs on {member} since 22:14 UTC: 2,000 runs were in progress" if finding.bad else ""
    )


def test_a_destination_is_known_from_a_finding_about_a_receiver_alone() -> None:
    subject = service.build_destination_finding_subject("oncall/slack")
    assert service.get_failing_destination_of_incident("service", subject) == "oncall/slack"
    assert service.get_failing_destination_of_incident("job", subject) == ""
    assert service.get_failing_destination_of_incident("service", "database") == ""
