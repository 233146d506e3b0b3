"""What a notification may tell: every field, for each kind of incident."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tests.support.store import (
    INTERVAL_MS,
    LOCATION,
    START_AT,
    StoreHarness,
    make_recorded_result,
    make_registered_probe,
    make_result,
    make_results,
)
from watchdog.domain.model import (
    AlertContext,
    Evidence,
    Incident,
    IncidentEvent,
    Notification,
    Outcome,
    ReportedTask,
    ResultWithEvidence,
    RunSummary,
    Severity,
)
from watchdog.store.database import Database
from watchdog.store.read import alert_context as telling
from watchdog.store.read.alert_context import MAX_RECENT_RUNS, load_alert_context
from watchdog.store.tables import evidence, results

FAIL, PASS = Outcome.FAIL, Outcome.PASS
GOT = "HTTP 503"


def at(slot: int) -> int:
    return START_AT + slot * INTERVAL_MS


def told(
    lab: StoreHarness,
    incident: str,
    event: IncidentEvent = IncidentEvent.OPENED,
    now: int | None = None,
    **more: object,
) -> AlertContext:
    with lab.database.read_transaction() as connection:
        notification = Notification(incident, "oncall/slack", int(event is IncidentEvent.RESOLVED), event)
        return load_alert_context(connection, notification, now or at(10), **more)  # type: ignore[arg-type]


def test_a_target_that_is_down(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=3, severity=Severity.CRITICAL)])
    probe = lab.database_ids[0]
    for made, excerpt in zip(make_results(probe, "ppfff"), ("", "", "first", "", "last"), strict=True):
        lab.recorder.record_results([make_recorded_result(made, excerpt)], made.slot + 300)
    incident = told(lab, lab.load_alert_states(probe)["availability", ""].incident or "").incident
    seen = told(lab, incident.id, now=at(5) + 400, public_url="https://status.example")
    assert seen == AlertContext(
        event=IncidentEvent.OPENED,
        incident=Incident(
            incident.id, probe, "availability", "", Severity.CRITICAL, at(3), at(5) + 300, "http.status", GOT
        ),
        probe=lab.registry[probe].info,
        now=at(5) + 400,
        bad_count=3,
        threshold=3,
        last_good=RunSummary(at(2), PASS, 182),
        recent_runs=tuple(RunSummary(at(i), o, 182) for i, o in enumerate([PASS, PASS, FAIL, FAIL, FAIL], 1)),
        first_bad=ResultWithEvidence(
            at(3), LOCATION, FAIL, "http.status", GOT, 182, Evidence({"status": 503}, "first")
        ),
        latest=ResultWithEvidence(at(5), LOCATION, FAIL, "http.status", GOT, 182, Evidence({"status": 503}, "last")),
        location=LOCATION,
        incident_url=f"https://status.example/incidents/{incident.id}",
    )  # fmt: skip


def test_a_target_that_recovered(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=2)])
    (opened, resolved) = lab.record_each(*make_results(lab.database_ids[0], "pffpffpp"))
    seen = told(lab, opened.incident, IncidentEvent.RESOLVED, merged=True)
    assert resolved.slot == at(8)
    assert (seen.event, seen.merged, seen.incident_url) == (IncidentEvent.RESOLVED, True, "")
    assert (seen.incident.state, seen.incident.resolved_at, seen.incident.resolution) == (
        "resolved", at(8) + 300, ""
    )  # fmt: skip
    assert seen.bad_count == 4, "those that failed, up to the end"
    assert seen.last_good == RunSummary(at(1), PASS, 182)
    assert seen.latest
    assert (seen.latest.slot, seen.latest.outcome, seen.latest.evidence) == (at(8), PASS, Evidence())


def test_what_failed_after_the_end_or_came_too_late_does_not_count(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=2)])
    opened = lab.record_each(*make_results(lab.database_ids[0], "ffppfff"))[0]
    lab.record_results(make_result(lab.database_ids[0], at(2) + 1_000, "fail"), now=at(8))
    assert told(lab, opened.incident, IncidentEvent.RESOLVED).bad_count == 2


def test_a_target_that_never_was_up(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    (opened,) = lab.record_each(*make_results(lab.database_ids[0], "f"))
    seen = told(lab, opened.incident)
    assert (seen.last_good, len(seen.recent_runs), seen.bad_count, seen.threshold) == (None, 1, 1, 1)


@pytest.mark.parametrize("outcome", ["pass", "fail"])
def test_a_task_that_fails(database: Database, outcome: str) -> None:
    """Its server answers, and may call that an error: only the results in which the task was bad are counted."""
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=2, task_limits={"*": 60_000})])
    reason = "" if outcome == "pass" else "mcp.tool_error"
    changes = []
    for i, state in enumerate(["well", "failed", "stale", "well", "failed", "well", "well"], 1):
        good = state == "well"
        well = ReportedTask(True, at(i) - 1_000)
        nightly = {
            "well": well,
            "stale": ReportedTask(True, at(i) - 90_000),
            "failed": ReportedTask(False, at(i) - 1_000, error="boom"),
        }[state]
        made = make_result(
            lab.database_ids[0], at(i), "pass" if good else outcome, reason="" if good else reason,
            tasks={"nightly": nightly, "hourly": well},
        )  # fmt: skip
        changes += lab.record_results(made)
    assert [c.event for c in changes] == [IncidentEvent.OPENED, IncidentEvent.RESOLVED]
    seen = told(lab, changes[0].incident)
    assert (seen.incident.rule, seen.incident.subject, seen.incident.since) == ("task", "nightly", at(2))
    assert seen.incident.message.startswith("task nightly is stale: last run ")
    assert seen.incident.reason == "task.stale"
    assert seen.probe.task_limits == {"*": 60_000}
    assert (seen.bad_count, seen.threshold) == (3, 2)
    assert seen.last_good == RunSummary(at(1), PASS, 182)
    assert seen.first_bad
    assert seen.first_bad.slot == at(2)


def test_a_probe_that_fell_silent(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()]).without_downtime()
    lab.record_each(*make_results(lab.database_ids[0], "pp"))
    (opened,) = lab.evaluate_deadlines(at(2) + 300_000)
    seen = told(lab, opened.incident)
    assert (seen.incident.rule, seen.incident.message) == ("stale", "no result for 5\N{NO-BREAK SPACE}min")
    assert (seen.incident.since, seen.incident.opened_at) == (at(2), at(2) + 300_000)
    assert (seen.bad_count, seen.threshold) == (0, 1)
    assert seen.last_good == RunSummary(at(2), PASS, 182), "the last that came"
    assert seen.latest
    assert seen.latest.slot == at(2)
    lab.record_results(make_result(lab.database_ids[0], at(9), "fail"))
    assert told(lab, opened.incident, IncidentEvent.RESOLVED).bad_count == 0


def test_a_probe_that_never_spoke(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()]).without_downtime()
    lab.evaluate_deadlines(START_AT)
    (opened,) = lab.evaluate_deadlines(START_AT + 300_000)
    seen = told(lab, opened.incident)
    assert (seen.last_good, seen.recent_runs, seen.first_bad, seen.latest, seen.location) == (None, (), None, None, "")


def test_what_we_could_not_judge(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=2)])
    (opened,) = lab.record_each(*make_results(lab.database_ids[0], "peeme"))
    seen = told(lab, opened.incident)
    assert (seen.incident.rule, seen.incident.reason, seen.bad_count) == ("no_verdict", "watchdog.internal_error", 3)


def test_recent_runs_are_the_newest_without_slots_that_nobody_ran(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    changes = lab.record_each(*make_results(lab.database_ids[0], "p" * 15 + "m" + "p" * 14 + "f", interval_ms=1_000))
    seen = told(lab, changes[0].incident)
    assert len(seen.recent_runs) == MAX_RECENT_RUNS
    assert [run.slot - START_AT for run in seen.recent_runs] == [i * 1_000 for i in range(11, 32) if i != 16]
    assert seen.recent_runs[-1].outcome is FAIL


@pytest.mark.parametrize("rule", ["availability", "preference", "no_verdict"])
def test_a_long_incident_is_counted_without_judging_all_of_it(
    database: Database, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    monkeypatch.setattr(telling, "MAX_REEVALUATED_RESULTS", 5)
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    bad = {"availability": "fail", "preference": "pass", "no_verdict": "error"}[rule]
    preferences = {"x": "not so"} if rule == "preference" else None
    made = [make_result(lab.database_ids[0], START_AT + i * 1_000, bad, preferences=preferences) for i in range(1, 13)]
    if rule != "preference":
        made[2] = make_result(lab.database_ids[0], START_AT + 3_000)
    made[3] = make_result(lab.database_ids[0], START_AT + 4_000, "missed")
    (opened,) = lab.record_results(*made)
    assert opened.rule == rule
    assert told(lab, opened.incident).bad_count == (11 if rule == "preference" else 10)


def test_a_story_outlives_its_probe_and_its_results(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    (opened,) = lab.record_each(*make_results(lab.database_ids[0], "f"))
    StoreHarness(database, [], now=at(5), create_schema=False)
    with lab.database.write_transaction() as connection:
        connection.execute(sa.delete(results))
        connection.execute(sa.delete(evidence))
    seen = told(lab, opened.incident, IncidentEvent.RESOLVED)
    assert (seen.incident.resolution, seen.probe.id) == ("probe.removed", "api")
    assert (seen.first_bad, seen.latest, seen.last_good, seen.recent_runs, seen.bad_count) == (None, None, None, (), 0)


def test_an_unknown_incident_has_no_story(database: Database) -> None:
    with pytest.raises(sa.exc.NoResultFound):
        told(StoreHarness(database), "nothing")
