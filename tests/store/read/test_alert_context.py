"""The context of a notification: every field, for each kind of incident."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.builders import failed_job, healthy_job
from tests.support.store import (
    INTERVAL_MS,
    LOCATION,
    START_AT,
    StoreHarness,
    end_all_members,
    make_recorded_result,
    make_registered_probe,
    make_result,
    make_results,
)
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.heartbeat import HEARTBEAT_STATE_KEY, HeartbeatState, LostHeartbeatRun
from watchdog.domain.model import (
    DeliveryState,
    Evidence,
    Incident,
    IncidentCauseChange,
    IncidentEvent,
    Outcome,
    ResultWithEvidence,
    RunSummary,
    Severity,
)
from watchdog.domain.notification import Notification
from watchdog.domain.observations import McpScheduledTaskFacts, ScheduledJobFacts
from watchdog.domain.rules import job
from watchdog.store.database import Database
from watchdog.store.json_text import encode_storable_json
from watchdog.store.read import alert_context as alert_context
from watchdog.store.read.alert_context import MAX_RECENT_RUNS_IN_ALERT, load_alert_message_context
from watchdog.store.read.job_runs import list_job_runs
from watchdog.store.tables import check_ins, evidence, probe_state, results

FAIL, PASS = Outcome.FAIL, Outcome.PASS
MESSAGE = "HTTP 503"


def at(slot: int) -> int:
    """The instant of a slot by its number."""
    return START_AT + slot * INTERVAL_MS


def context_of(
    harness: StoreHarness,
    incident: str,
    event: IncidentEvent = IncidentEvent.OPENED,
    now: int | None = None,
    **options: Any,
) -> AlertMessageContext:
    with harness.database.open_read_transaction() as connection:
        notification = Notification(incident, "oncall/slack", int(event is IncidentEvent.RESOLVED), event)
        return load_alert_message_context(connection, notification, now or at(10), **options)


def test_a_target_that_is_down(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=3, severity=Severity.CRITICAL)])
    probe = harness.database_ids[0]
    for result, excerpt in zip(make_results(probe, "ppfff"), ("", "", "first", "", "last"), strict=True):
        harness.recorder.record_results([make_recorded_result(result, excerpt)], result.slot + 300)
    incident = context_of(harness, harness.load_alert_states(probe)["availability", ""].incident or "").incident
    context = context_of(harness, incident.id, now=at(5) + 400, public_url="https://status.example")
    assert context == AlertMessageContext(
        event=IncidentEvent.OPENED,
        incident=Incident(
            incident.id, probe, "availability", "", Severity.CRITICAL, at(3), at(5) + 300, "http.503", MESSAGE
        ),
        probe=harness.registry[probe].info,
        now=at(5) + 400,
        bad_count=3,
        threshold=3,
        last_good=RunSummary(at(2), PASS, 182),
        recent_runs=tuple(RunSummary(at(i), o, 182) for i, o in enumerate([PASS, PASS, FAIL, FAIL, FAIL], 1)),
        first_bad=ResultWithEvidence(
            at(3), LOCATION, FAIL, "http.503", MESSAGE, 182, Evidence({"status": 503}, "first")
        ),
        latest=ResultWithEvidence(
            at(5), LOCATION, FAIL, "http.503", MESSAGE, 182, Evidence({"status": 503}, "last")
        ),
        location=LOCATION,
        incident_url=f"https://status.example/incidents/{incident.id}",
        probe_url="https://status.example/probes/api",
        other_destinations=(("oncall/email", DeliveryState.WAITING),),
    )  # fmt: skip


def test_a_target_that_recovered(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=2)])
    (opened, resolved) = harness.record_each(*make_results(harness.database_ids[0], "pffpffpp"))
    context = context_of(harness, opened.incident, IncidentEvent.RESOLVED, merged=True)
    assert resolved.slot == at(8)
    assert (context.event, context.merged, context.incident_url) == (IncidentEvent.RESOLVED, True, "")
    assert (context.incident.state, context.incident.resolved_at, context.incident.resolution) == (
        "resolved", at(8) + 300, ""
    )  # fmt: skip
    assert context.bad_count == 4, "the failures up to the end"
    assert context.last_good == RunSummary(at(1), PASS, 182)
    assert context.latest
    assert (context.latest.slot, context.latest.outcome, context.latest.evidence) == (at(8), PASS, Evidence())


def test_failures_after_the_end_and_late_ones_do_not_count(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=2)])
    opened = harness.record_each(*make_results(harness.database_ids[0], "ffppfff"))[0]
    harness.record_results(make_result(harness.database_ids[0], at(2) + 1_000, "fail"), now=at(8))
    assert context_of(harness, opened.incident, IncidentEvent.RESOLVED).bad_count == 2


def test_a_target_that_never_passed(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    (opened,) = harness.record_each(*make_results(harness.database_ids[0], "f"))
    context = context_of(harness, opened.incident)
    assert (context.last_good, len(context.recent_runs), context.bad_count, context.threshold) == (None, 1, 1, 1)


@pytest.mark.parametrize("outcome", ["pass", "fail"])
def test_a_task_that_fails(database: Database, outcome: str) -> None:
    """The server responds, perhaps not as expected; only results in which the task was bad count."""
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=2, max_task_ages={"*": 60_000})])
    reason = "" if outcome == "pass" else "expectation.failed"
    transitions = []
    for i, state in enumerate(["healthy", "failed", "stale", "healthy", "failed", "healthy", "healthy"], 1):
        good = state == "healthy"
        healthy = McpScheduledTaskFacts(True, at(i) - 1_000)
        nightly = {
            "healthy": healthy,
            "stale": McpScheduledTaskFacts(True, at(i) - 90_000),
            "failed": McpScheduledTaskFacts(False, at(i) - 1_000, error="boom"),
        }[state]
        result = make_result(
            harness.database_ids[0], at(i), "pass" if good else outcome, reason="" if good else reason,
            tasks={"nightly": nightly, "hourly": healthy},
        )  # fmt: skip
        transitions += harness.record_results(result)
    assert [c.event for c in transitions] == [IncidentEvent.OPENED, IncidentEvent.RESOLVED]
    context = context_of(harness, transitions[0].incident)
    assert (context.incident.rule, context.incident.subject, context.incident.since) == ("task", "nightly", at(2))
    assert context.incident.message.startswith("task nightly is stale: last run ")
    assert context.incident.reason == "task.stale"
    assert context.probe.max_task_ages == {"*": 60_000}
    assert (context.bad_count, context.threshold) == (3, 2)
    assert context.last_good == RunSummary(at(1), PASS, 182)
    assert context.first_bad
    assert context.first_bad.slot == at(2)


def test_of_several_incidents_those_of_the_probe_have_the_facts_of_its_newest_result(database: Database) -> None:
    probes = [make_registered_probe(name, failure_threshold=1, max_task_ages={"*": 60_000}) for name in ("a", "b")]
    harness = StoreHarness(database, probes)
    stale, fresh = McpScheduledTaskFacts(True, at(1) - 90_000), McpScheduledTaskFacts(True, at(2) - 1_000)
    transitions = []
    for number, facts in ((1, stale), (2, fresh)):
        for id in harness.database_ids:
            tasks = {"nightly": facts} if id != harness.database_ids[0] else {"nightly": facts, "hourly": facts}
            transitions += harness.record_results(make_result(id, at(number), "pass", tasks=tasks))
    named = [transition.incident for transition in transitions if transition.event is IncidentEvent.OPENED]
    assert len(named) == 3
    context = context_of(harness, named[0], IncidentEvent.RESOLVED, named_incidents=named)
    own = {
        member.incident.subject: member
        for member in context.members
        if member.incident.probe == context.probe.database_id
    }
    assert {subject: member.latest_subject_facts for subject, member in own.items()} == {
        "nightly": fresh,
        "hourly": fresh,
    }
    (other,) = (member for member in context.members if member.incident.probe != context.probe.database_id)
    assert other.latest_subject_facts is None


def test_a_stale_probe(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()]).without_downtime()
    harness.record_each(*make_results(harness.database_ids[0], "pp"))
    (opened,) = harness.evaluate_deadlines(at(2) + 300_000)
    context = context_of(harness, opened.incident)
    assert (context.incident.rule, context.incident.message) == ("stale", "no result for 5\N{NO-BREAK SPACE}min")
    assert (context.incident.since, context.incident.opened_at) == (at(2), at(2) + 300_000)
    assert (context.bad_count, context.threshold) == (0, 1)
    assert context.last_good == RunSummary(at(2), PASS, 182), "the newest result"
    assert context.latest
    assert context.latest.slot == at(2)
    harness.record_results(make_result(harness.database_ids[0], at(9), "fail"))
    assert context_of(harness, opened.incident, IncidentEvent.RESOLVED).bad_count == 0


def test_a_probe_without_results(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()]).without_downtime()
    harness.evaluate_deadlines(START_AT)
    (opened,) = harness.evaluate_deadlines(START_AT + 300_000)
    context = context_of(harness, opened.incident)
    assert (context.last_good, context.recent_runs, context.first_bad, context.latest, context.location) == (
        None,
        (),
        None,
        None,
        "",
    )


def test_a_probe_without_a_verdict(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=2)])
    (opened,) = harness.record_each(*make_results(harness.database_ids[0], "peeme"))
    context = context_of(harness, opened.incident)
    assert (context.incident.rule, context.incident.reason, context.bad_count) == (
        "no_verdict",
        "watchdog.internal_error",
        3,
    )


def test_recent_runs_are_the_newest_without_missed_slots(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    transitions = harness.record_each(
        *make_results(harness.database_ids[0], "p" * 15 + "m" + "p" * 14 + "f", interval_ms=1_000)
    )
    context = context_of(harness, transitions[0].incident)
    assert len(context.recent_runs) == MAX_RECENT_RUNS_IN_ALERT
    assert [run.slot - START_AT for run in context.recent_runs] == [i * 1_000 for i in range(11, 32) if i != 16]
    assert context.recent_runs[-1].outcome is FAIL


@pytest.mark.parametrize("rule", ["availability", "preference", "no_verdict"])
def test_a_long_incident_is_counted_without_evaluating_all_of_it(
    database: Database, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    monkeypatch.setattr(alert_context, "MAX_RESULTS_REEVALUATED_TO_COUNT_BAD", 5)
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    bad = {"availability": "fail", "preference": "pass", "no_verdict": "error"}[rule]
    preferences = {"x": "x is false"} if rule == "preference" else None
    made = [
        make_result(harness.database_ids[0], START_AT + i * 1_000, bad, preferences=preferences) for i in range(1, 13)
    ]
    if rule != "preference":
        made[2] = make_result(harness.database_ids[0], START_AT + 3_000)
    made[3] = make_result(harness.database_ids[0], START_AT + 4_000, "missed")
    (opened,) = harness.record_results(*made)
    assert opened.rule == rule
    assert context_of(harness, opened.incident).bad_count == (11 if rule == "preference" else 10)


def test_only_the_job_of_the_incident_is_evaluated_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source may list hundreds of jobs, and an incident has hundreds of results."""
    harness = StoreHarness(database, [make_registered_probe()])
    jobs = [failed_job("nightly"), *(healthy_job(f"job-{i}") for i in range(5))]
    results = [make_result(harness.database_ids[0], at(slot), "fail", jobs=jobs) for slot in (1, 2, 3)]
    transitions = harness.record_results(*results)
    evaluated = []
    evaluate = job.judge_job_facts

    def note_and_evaluate(facts: ScheduledJobFacts, *rest: Any) -> job.ScheduledJobVerdict:
        evaluated.append(facts.name)
        return evaluate(facts, *rest)

    monkeypatch.setattr(job, "judge_job_facts", note_and_evaluate)
    assert [transition.subject for transition in transitions] == ["nightly"]
    assert context_of(harness, transitions[0].incident).bad_count == 3
    assert evaluated == ["nightly"] * 3


def test_the_context_outlives_the_probe_and_its_results(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    (opened,) = harness.record_each(*make_results(harness.database_ids[0], "f"))
    end_all_members(database, at(5))
    StoreHarness(database, [], now=at(5), create_schema=False)
    with harness.database.open_write_transaction() as connection:
        connection.execute(sa.delete(results))
        connection.execute(sa.delete(evidence))
    context = context_of(harness, opened.incident, IncidentEvent.RESOLVED)
    assert (context.incident.resolution, context.probe.id) == ("probe.removed", "api")
    assert (context.first_bad, context.latest, context.last_good, context.recent_runs, context.bad_count) == (
        None,
        None,
        None,
        (),
        0,
    )


def test_an_unknown_incident_has_no_context(database: Database) -> None:
    with pytest.raises(sa.exc.NoResultFound):
        context_of(StoreHarness(database), "nothing")


# ------------------------------------------------------------------------------------------------- causes and job runs


def test_a_context_has_the_current_cause_the_first_and_every_change(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=2)])
    probe = harness.database_ids[0]
    for index, reason in enumerate(
        ["dns.failed", "dns.failed", "http.503", "http.503", "tls.expired", "tls.expired"], 1
    ):
        harness.record_results(make_result(probe, at(index), "fail", reason=reason, message=f"sentence of {reason}"))
    context = context_of(harness, harness.load_alert_states(probe)["availability", ""].incident or "")
    assert (context.incident.reason, context.incident.message) == ("tls.expired", "sentence of tls.expired")
    assert (context.incident.first_reason, context.incident.opening_cause_message) == (
        "dns.failed",
        "sentence of dns.failed",
    )
    assert context.cause_changes == (
        IncidentCauseChange(at(4) + 300, at(3), "http.503", "sentence of http.503"),
        IncidentCauseChange(at(6) + 300, at(5), "tls.expired", "sentence of tls.expired"),
    )


@pytest.mark.parametrize("name", ["backup", 'na"me % _ \\', "日本"])
def test_of_a_job_the_runs_of_the_job_are_shown_and_not_the_polls(database: Database, name: str) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=1)]).without_downtime()
    probe = harness.database_ids[0]
    runs = [(at(1), True), (at(40), True), (at(90), False), (at(91), False)]
    for minute in range(1, 100):
        ended = [run for run in runs if run[0] <= at(minute)]
        newest_end, succeeded = ended[-1]
        last_ok = max(end for end, ok in ended if ok)
        facts = ScheduledJobFacts(
            name, last_end=newest_end, last_ok=last_ok, duration=minute, failures=0 if succeeded else 1
        )
        other = healthy_job("other", at(minute))
        previous = at(minute - 1) if minute > 1 else None
        result = make_result(probe, at(minute), jobs=[facts, other], previous_slot=previous)
        harness.record_results(result, now=at(minute))
    context = context_of(harness, harness.load_alert_states(probe)["job", name].incident or "", now=at(100))
    assert [(run.slot, run.outcome) for run in context.recent_runs] == [(end, PASS if ok else FAIL) for end, ok in runs]
    assert context.last_good is not None
    assert context.last_good.slot == at(40)


def test_of_a_heartbeat_the_check_ins_are_the_runs(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    probe = harness.database_ids[0]
    entries = [("start", 1, None), ("ok", 2, 60_000), ("log", 3, None), ("start", 4, None), ("fail", 5, 61_000)]
    with database.open_write_transaction() as connection:
        for kind, minute, duration in entries:
            row = {"probe": probe, "occurred_at": at(minute), "id": kind + str(minute), "kind": kind}
            connection.execute(sa.insert(check_ins).values(**row, run_id="", duration=duration, output=""))
        runs = list_job_runs(connection, probe, "heartbeat", "Backup", 20)
        assert runs == [RunSummary(at(2), PASS, 60_000), RunSummary(at(5), FAIL, 61_000)]
        assert list_job_runs(connection, probe, "heartbeat", "Backup", 1) == runs[-1:]


def test_a_lost_run_of_a_heartbeat_is_among_its_runs(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    probe = harness.database_ids[0]
    lost = HeartbeatState(lost_runs=(LostHeartbeatRun("", at(3), at(4)),))
    with database.open_write_transaction() as connection:
        row = {"probe": probe, "occurred_at": at(2), "id": "ok2", "kind": "ok"}
        connection.execute(sa.insert(check_ins).values(**row, run_id="", duration=60_000, output=""))
        state = {"probe": probe, "key": HEARTBEAT_STATE_KEY, "value": encode_storable_json(lost.to_json())}
        connection.execute(sa.insert(probe_state).values(**state))
        runs = list_job_runs(connection, probe, "heartbeat", "Backup", 20)
    assert runs == [RunSummary(at(2), PASS, 60_000), RunSummary(at(4), FAIL, None)]


def test_a_lost_run_that_a_source_lists_is_among_the_runs_of_its_job(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=1)]).without_downtime()
    probe = harness.database_ids[0]
    facts = ScheduledJobFacts("backup", last_end=at(2), last_ok=at(2), duration=1, lost_since=at(3), failures=1)
    harness.record_results(make_result(probe, at(5), jobs=[facts]), now=at(5))
    with database.open_write_transaction() as connection:
        runs = list_job_runs(connection, probe, "jobs", "backup", 20)
    assert [(run.slot, run.outcome) for run in runs][-1] == (at(3), FAIL)
