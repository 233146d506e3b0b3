"""Recording of results: each is stored once, its lateness is final, and it is evaluated with earlier results."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.builders import stuck_job
from tests.support.store import (
    INTERVAL_MS,
    START_AT,
    DatabasePair,
    StoreHarness,
    end_all_members,
    make_recorded_result,
    make_registered_probe,
    make_registered_probes,
    make_result,
    make_results,
)
from watchdog.domain.formatting import HOUR_MS, SECOND_MS
from watchdog.domain.model import Evidence, IncidentEvent, Outcome, ResultToRecord
from watchdog.domain.observations import McpScheduledTaskFacts
from watchdog.domain.probe_state import build_forget_job_state_key, build_scheduled_job_state_key
from watchdog.domain.rules import no_verdict
from watchdog.domain.schedule import IntervalSchedule
from watchdog.store.database import Database
from watchdog.store.json_text import decode_nullable_json, encode_storable_json
from watchdog.store.listings import build_results_with_listings_from_rows
from watchdog.store.tables import (
    RESULT_COLUMNS,
    alert_states,
    evaluation_cursors,
    evidence,
    incidents,
    outbox,
    probe_state,
    results,
)

SLOT = START_AT + INTERVAL_MS
FIRST_HOUR = (START_AT // HOUR_MS + 1) * HOUR_MS
"""The first whole hour after START_AT."""
MAX_LATENESS_MS = 40_000
UNSTORABLE_TEXT = "nul \0, lone surrogate \ud800, \\u0000 as text, 🦉, ' \" ; -- <b> {} %s :x"
STORED_TEXT = UNSTORABLE_TEXT.replace("\0", "�").replace("\ud800", "�")


def incident_summaries(harness: StoreHarness) -> list[tuple[str, str, int]]:
    """The rule, subject and opening slot (after START_AT) of each incident."""
    rows = sorted(harness.select_rows(incidents), key=lambda row: row["opened_at"])
    return [(row["rule"], row["subject"], row["opened_slot"] - START_AT) for row in rows]


# ------------------------------------------------------------------------------------------------------- stored once


def test_a_result_that_is_stored_twice_counts_once(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    bad = make_result(harness.database_ids[0], SLOT, "fail")
    transitions = [harness.record_results(bad), harness.record_results(bad), harness.record_results(bad, bad)]
    assert [len(c) for c in transitions] == [1, 0, 0]
    assert len(harness.select_rows(results)) == 1
    assert len(harness.select_rows(incidents)) == 1
    assert len(harness.select_rows(outbox)) == 2


def test_the_first_result_of_a_slot_wins(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    good = make_recorded_result(make_result(harness.database_ids[0], SLOT), "first", key="first")
    bad = make_recorded_result(make_result(harness.database_ids[0], SLOT, "fail"), "second", key="second")
    assert harness.recorder.record_results([good, bad], SLOT + 300) == []
    assert harness.recorder.record_results([bad], SLOT + 400) == []
    assert harness.select_row(results)["outcome"] == "pass"
    assert harness.select_row(evidence)["excerpt"] == "first"
    assert harness.select_row(probe_state)["value"] == '"first"'


def test_an_empty_batch_is_allowed(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    assert harness.recorder.record_results([], SLOT) == []


def test_results_of_unknown_probes_are_dropped(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    unknown = make_recorded_result(make_result(10**9, SLOT, "fail"), "unknown", key=1)
    assert harness.recorder.record_results([unknown], SLOT) == []
    (transition,) = harness.recorder.record_results(
        [unknown, ResultToRecord(make_result(harness.database_ids[0], SLOT, "fail"))], SLOT + 300
    )
    assert transition.probe == harness.database_ids[0]
    assert [row["probe"] for row in harness.select_rows(results)] == harness.database_ids
    assert harness.select_rows(evidence) == harness.select_rows(probe_state) == []


def test_every_field_of_a_result_is_read_back(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    tasks = {
        "nightly": McpScheduledTaskFacts(True, SLOT - 5_000, None, "ok", ""),
        "new": McpScheduledTaskFacts(True, None, 7, "", ""),
    }
    full = make_result(
        harness.database_ids[0],
        SLOT,
        phases={"dns": 1.2, "connect": 3.4},
        measurements={"n": 4, "ok": True, "x": None, "f": 1.5},
        tasks=tasks,
        preferences={"elapsed_ms <= 800": ""},
        previous_slot=START_AT,
        message="fine",
    )
    bare = make_result(
        harness.database_ids[0], SLOT + INTERVAL_MS, "missed", reason="missed.result_lost", slot_count=7, duration=None
    )
    listed = make_result(harness.database_ids[0], SLOT + 2 * INTERVAL_MS, tasks={}, preferences={})
    harness.record_results(full, bare, listed, now=SLOT + 300)
    with harness.database.open_read_transaction() as connection:
        stored = connection.execute(sa.select(*RESULT_COLUMNS).order_by(results.c.slot)).all()
        assert list(build_results_with_listings_from_rows(connection, stored)) == [full, bare, listed]


# ------------------------------------------------------------------------------------------------- late, or not


@pytest.mark.parametrize(
    ("outcome", "late_by", "late"),
    [
        ("fail", 0, False),
        ("fail", MAX_LATENESS_MS - 1, False),
        ("fail", MAX_LATENESS_MS, True),
        ("pass", MAX_LATENESS_MS, True),
        ("error", MAX_LATENESS_MS + 1, True),
        ("missed", MAX_LATENESS_MS, False),  # a missed slot is never late
        ("missed", 100 * MAX_LATENESS_MS, False),
    ],
)
def test_a_result_is_late_after_its_max_lateness(database: Database, outcome: str, late_by: int, late: bool) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=1)]).without_downtime()
    transitions = harness.record_results(make_result(harness.database_ids[0], SLOT, outcome), now=SLOT + late_by)
    assert harness.select_row(results)["late"] is late
    assert bool(transitions) is (outcome == "fail" and not late)


def test_a_late_result_stays_late(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=1)]).without_downtime()
    harness.record_results(make_result(harness.database_ids[0], SLOT, "fail"), now=SLOT + MAX_LATENESS_MS)
    harness.record_results(make_result(harness.database_ids[0], SLOT, "fail"), now=SLOT + 1)
    assert harness.select_row(results)["late"] is True
    assert harness.select_rows(incidents) == []


def test_lateness_is_measured_in_uptime(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    harness.claim_slots(SLOT)
    (transition,) = harness.record_results(make_result(harness.database_ids[0], SLOT, "fail"), now=SLOT + 600_000)
    assert transition.slot == SLOT, "a gap of ten minutes does not make it late"


# A result before `evaluated_until` is late. Its cursor is loaded only where that can matter: if the probe is active, or
# evaluated beyond its newest settled slot.
EVALUATED_CASES: list[tuple[str, str, str, int, bool]] = [
    # case, outcomes already recorded at offsets 1.., the new outcome, its offset, whether it is late
    ("a probe that always passed is not evaluated", "ppp", "fail", 2, False),
    ("before an evaluated failure, active", "p.f", "fail", 2, True),
    ("a pass before an evaluated failure, active", "p.f", "pass", 2, True),
    ("after an evaluated failure, active", "pf.", "fail", 3, False),
    ("before the pass that cleared the alert state: evaluated, no longer active", "pf.p", "fail", 3, True),
    ("a pass before that pass", "pf.p", "pass", 3, True),
    ("after the pass that cleared the alert state", "pfp.", "fail", 4, False),
]


@pytest.mark.parametrize(
    ("why", "before", "outcome", "at", "late"), EVALUATED_CASES, ids=[row[0] for row in EVALUATED_CASES]
)
def test_a_result_before_the_cursor_is_late(
    database: Database, why: str, before: str, outcome: str, at: int, late: bool
) -> None:
    second = SECOND_MS
    harness = StoreHarness(
        database,
        [
            make_registered_probe(schedule=IntervalSchedule(second)),
            make_registered_probe("other", schedule=IntervalSchedule(second)),
        ],
    )
    probe, other = harness.database_ids
    outcome_by_letter = {"p": "pass", "f": "fail"}
    harness.record_each(
        *[
            make_result(probe, START_AT + i * second, outcome_by_letter[letter])
            for i, letter in enumerate(before, 1)
            if letter != "."
        ]
    )
    now = START_AT + 10 * second  # well within max_lateness
    slot = START_AT + at * second + (0 if "." in before else 500)
    harness.record_results(make_result(other, START_AT + 8 * second), make_result(probe, slot, outcome), now=now)
    assert harness.select_row(results, results.c.probe == probe, results.c.slot == slot)["late"] is late, why
    live, (replayed, _) = harness.load_alert_states(probe), harness.replay_probe(probe, now)
    assert live == replayed


def test_the_cursor_of_each_probe_is_loaded_by_its_own_max_lateness(database: Database) -> None:
    """In a batch, the probe with the longest max_lateness decides which cursors are loaded."""
    harness = StoreHarness(
        database,
        [make_registered_probe("long", lateness_ms=600_000), make_registered_probe("short", lateness_ms=31_000)],
    ).without_downtime()
    long, short = harness.database_id("long"), harness.database_id("short")
    harness.record_each(
        make_result(long, SLOT + 1_000, "fail"), make_result(long, SLOT + 2_000)
    )  # evaluated, and no longer active
    harness.record_results(make_result(long, SLOT, "fail"), make_result(short, SLOT + 300_000), now=SLOT + 300_500)
    assert harness.select_row(results, results.c.slot == SLOT)["late"] is True


def test_an_active_cursor_is_loaded_however_old_it_is(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=1)]).without_downtime()
    harness.record_each(make_result(harness.database_ids[0], SLOT, "fail"))
    later = SLOT + 5 * INTERVAL_MS
    assert [
        c.event
        for c in harness.record_each(
            make_result(harness.database_ids[0], later), make_result(harness.database_ids[0], later + INTERVAL_MS)
        )
    ] == [IncidentEvent.RESOLVED]


def test_a_result_that_changes_nothing_writes_only_its_row(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    before = harness.select_rows(evaluation_cursors)
    harness.record_each(*make_results(harness.database_ids[0], "ppppp"))
    assert harness.select_rows(evaluation_cursors) == before
    assert harness.select_rows(alert_states) == []


# ---------------------------------------------------------------------------------------------------------- decisions


def test_one_batch_may_open_resolve_and_open_again(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=1, success_threshold=1)])
    probe = harness.database_ids[0]
    transitions = harness.record_results(*reversed(make_results(probe, "fpf", interval_ms=1_000)))
    assert [(c.event, c.slot - START_AT) for c in transitions] == [
        (IncidentEvent.OPENED, 1_000), (IncidentEvent.RESOLVED, 2_000), (IncidentEvent.OPENED, 3_000)
    ]  # fmt: skip
    rows = harness.select_rows(incidents)
    assert sorted((row["opened_slot"] - START_AT, (row["resolved_slot"] or START_AT) - START_AT) for row in rows) == [
        (1_000, 2_000),
        (3_000, 0),
    ]
    assert len(harness.select_rows(outbox)) == 6
    assert harness.replay_probe(probe, START_AT + 10_000)[1] == transitions


def test_a_batch_of_several_probes_is_evaluated_for_each(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(f"p{i}", failure_threshold=2) for i in range(3)])
    a, b, c = harness.database_ids
    batch = make_results(a, "ff") + make_results(b, "fp") + make_results(c, "pp")
    transitions = harness.record_results(*batch, now=SLOT + INTERVAL_MS + 300)
    assert [(transition.probe, transition.rule) for transition in transitions] == [(a, "availability")]
    assert {row["probe"]: row["bad_count"] for row in harness.select_rows(alert_states)} == {a: 2}


def test_the_rules_of_a_probe_open_incidents_independently(database: Database) -> None:
    harness = StoreHarness(
        database,
        [
            make_registered_probe(
                failure_threshold=1, success_threshold=1, max_task_ages={"nightly": 60_000, "*": 5_000}
            )
        ],
    )
    probe = harness.database_ids[0]
    fresh = McpScheduledTaskFacts(True, SLOT)
    tasks = {
        "a": McpScheduledTaskFacts(False, error="boom"),
        "b": McpScheduledTaskFacts(True, SLOT - 9_000),
        "c": fresh,
    }
    harness.record_results(make_result(probe, SLOT, tasks=tasks, preferences={"elapsed_ms <= 1": "observed 5"}))
    assert sorted(incident_summaries(harness)) == [
        ("missing", "nightly", INTERVAL_MS), ("preference", "elapsed_ms <= 1", INTERVAL_MS), ("task", "a", INTERVAL_MS),
        ("task", "b", INTERVAL_MS),
    ]  # fmt: skip
    healthy = dict.fromkeys(("nightly", "a", "c"), McpScheduledTaskFacts(True, SLOT + INTERVAL_MS))
    transitions = harness.record_results(make_result(probe, SLOT + INTERVAL_MS, tasks=healthy, preferences={}))
    assert sorted((c.subject, c.reason) for c in transitions) == [
        ("a", ""), ("b", "subject.no_longer_listed"), ("elapsed_ms <= 1", "subject.no_longer_listed"), ("nightly", "")
    ]  # fmt: skip
    assert harness.select_rows(alert_states) == []


def test_errors_are_no_failure_of_the_target(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=2)])
    harness.record_each(*make_results(harness.database_ids[0], "ffmmpeef"[1:]))
    assert incident_summaries(harness) == [(no_verdict.ALERT_RULE_NAME, "", 6 * INTERVAL_MS)]


def test_an_incident_stores_the_decision_and_its_reasons(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=2)])
    (transition,) = harness.record_each(*make_results(harness.database_ids[0], "ff"))
    row = harness.select_row(incidents)
    assert row["id"] == transition.incident
    assert (row["since"], row["opened_slot"], row["opened_at"]) == (SLOT, SLOT + INTERVAL_MS, SLOT + INTERVAL_MS + 300)
    assert (row["reason"], row["message"], row["threshold"], row["severity"]) == (
        "http.503", "HTTP 503", 2, "warning"
    )  # fmt: skip
    assert row["routing_log"] == '["no routes are configured: every receiver is notified: oncall"]'
    assert (row["resolved_at"], row["resolved_slot"], row["resolution"]) == (None, None, "")


def test_a_job_needs_no_second_bad_slot(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=3)])
    (probe,) = harness.database_ids
    harness.record_results(
        make_result(probe, START_AT + INTERVAL_MS, Outcome.FAIL, jobs=[stuck_job("ledger", START_AT + INTERVAL_MS)])
    )
    row = harness.select_row(incidents)
    assert (row["subject"], row["reason"], row["threshold"]) == ("ledger", "job.stuck", 1)


def test_a_rolled_back_batch_leaves_nothing(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    bad = make_recorded_result(make_result(harness.database_ids[0], SLOT, "fail"), "why", era="x")
    with harness.database.writer.connect() as connection, connection.begin() as transaction:
        assert harness.recorder.record_results_in_transaction(connection, [bad], SLOT + 300)
        transaction.rollback()
    for table in (results, evidence, probe_state, alert_states, incidents, outbox):
        assert harness.select_rows(table) == []
    assert len(harness.recorder.record_results([bad], SLOT + 300)) == 1


def test_a_probe_that_another_process_removed_is_not_evaluated(databases: DatabasePair) -> None:
    """Its results may still arrive; an incident that opens now would never be resolved."""
    old = StoreHarness(databases.first, [make_registered_probe(failure_threshold=1), make_registered_probe("stays")])
    probe = old.database_id("api")
    end_all_members(databases.second, START_AT + 30_000)
    StoreHarness(databases.second, [make_registered_probe("stays")], create_schema=False, now=START_AT + 30_000)
    assert old.record_results(make_result(probe, SLOT, "fail")) == []
    assert len(old.select_rows(results)) == 1, "the result is stored"
    assert old.select_rows(incidents) == old.select_rows(alert_states) == []


def test_five_hundred_results_in_one_batch(database: Database) -> None:
    harness = StoreHarness(database, make_registered_probes(500, failure_threshold=1))
    transitions = harness.record_results(*[make_result(p, SLOT, "fail") for p in harness.database_ids])
    assert len(transitions) == 500
    assert len(harness.select_rows(outbox)) == 1_000
    transitions = harness.record_results(
        *[make_result(p, SLOT + i * INTERVAL_MS) for p in harness.database_ids for i in (1, 2)],
        now=SLOT + 2 * INTERVAL_MS,
    )
    assert {c.event for c in transitions} == {IncidentEvent.RESOLVED}
    assert harness.select_rows(incidents, incidents.c.resolved_at.is_(None)) == []


# -------------------------------------------------------------------------------------- texts of targets


def test_any_text_of_a_target_can_be_stored(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=1, success_threshold=1)])
    probe, huge = harness.database_ids[0], 10**40
    tasks = {UNSTORABLE_TEXT: McpScheduledTaskFacts(False, huge, huge, UNSTORABLE_TEXT, UNSTORABLE_TEXT)}
    measurements = {UNSTORABLE_TEXT: UNSTORABLE_TEXT, "n": huge, "f": 1e308}
    result = make_result(
        probe, SLOT, "fail", message=UNSTORABLE_TEXT, tasks=tasks, measurements=measurements,
        preferences={UNSTORABLE_TEXT: UNSTORABLE_TEXT},
    )  # fmt: skip
    state: dict[str, Any] = {UNSTORABLE_TEXT: {UNSTORABLE_TEXT: [UNSTORABLE_TEXT, huge, None, True]}}
    evidence_facts = {"status": 503, UNSTORABLE_TEXT: UNSTORABLE_TEXT}
    recorded = ResultToRecord(result, Evidence(evidence_facts, UNSTORABLE_TEXT), state)
    assert len(harness.recorder.record_results([recorded], SLOT + 300)) == 3
    assert {(row["rule"], row["subject"]) for row in harness.select_rows(incidents)} == {
        ("availability", ""), ("task", STORED_TEXT), ("preference", STORED_TEXT)
    }  # fmt: skip
    row = harness.select_row(results)
    assert row["message"] == STORED_TEXT
    assert decode_nullable_json(row["facts"])["task"][1] == {STORED_TEXT: [False, huge, huge, STORED_TEXT, STORED_TEXT]}
    assert decode_nullable_json(row["measurements"]) == {STORED_TEXT: STORED_TEXT, "n": huge, "f": 1e308}
    assert decode_nullable_json(harness.select_row(evidence)["facts"])[STORED_TEXT] == STORED_TEXT
    assert harness.select_row(evidence)["excerpt"] == STORED_TEXT
    assert decode_nullable_json(harness.select_row(probe_state)["value"]) == {
        STORED_TEXT: [STORED_TEXT, huge, None, True]
    }
    healthy = {STORED_TEXT: McpScheduledTaskFacts(True, 1)}
    recovered = make_result(probe, SLOT + INTERVAL_MS, tasks=healthy, preferences={STORED_TEXT: ""})
    assert len(harness.record_results(recovered)) == 3
    assert harness.select_rows(alert_states) == []
    deletion = ResultToRecord(make_result(probe, SLOT + 2 * INTERVAL_MS), state_updates={UNSTORABLE_TEXT: None})
    harness.recorder.record_results([deletion], SLOT + 2 * INTERVAL_MS)
    assert harness.select_rows(probe_state) == []


@pytest.mark.parametrize(
    ("given", "stored"),
    [("a\0b", "a�b"), ("\ud800", "�"), ("\\u0000", "\\u0000"), ("é🦉\n\t", "é🦉\n\t"), ("\ud83e\udd89", "��")],
)
def test_json_contains_only_storable_characters(given: str, stored: str) -> None:
    assert decode_nullable_json(encode_storable_json({given: [(given, 1)]})) == {stored: [[stored, 1]]}
    encode_storable_json(given).encode()


# --------------------------------------------------------------------------------------------- evidence and probe state


def stored_excerpts(harness: StoreHarness) -> str:
    return "".join(row["excerpt"] for row in harness.select_rows(evidence))


def record_with_evidence(
    harness: StoreHarness, outcomes: str, excerpts: str, start: int = START_AT, interval_ms: int = INTERVAL_MS
) -> None:
    for result, excerpt in zip(
        make_results(harness.database_ids[0], outcomes, start, interval_ms), excerpts, strict=True
    ):
        harness.recorder.record_results([make_recorded_result(result, excerpt)], result.slot + 300)


@pytest.mark.parametrize(
    ("why", "outcomes", "stored"),
    [
        ("the first result, as a sample", "pppp", "a"),
        ("failures, and the pass before them", "ppppfff", "adefg"),
        ("errors", "pppe", "acd"),
        ("passes while an alert state exists", "ppfppp", "abcd"),
        ("passes during recovery", "pfffppp", "abcdef"),
        ("a missed slot has none", "pppmpp", "a"),
    ],
)
def test_evidence_is_stored_around_changes(database: Database, why: str, outcomes: str, stored: str) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    record_with_evidence(harness, outcomes, "abcdefgh"[: len(outcomes)], FIRST_HOUR, 1_000)
    assert stored_excerpts(harness) == stored, why


def test_the_first_pass_of_each_hour_is_stored(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    record_with_evidence(harness, "p" * 9, "abcdefghi", FIRST_HOUR - 1_200_000, 1_200_000)
    assert stored_excerpts(harness) == "adg"


def test_the_evidence_of_the_last_pass_survives_a_failed_transaction(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    record_with_evidence(harness, "pp", "ab", FIRST_HOUR, 1_000)
    bad = make_recorded_result(
        make_result(harness.database_ids[0], FIRST_HOUR + 3_000, "fail", previous_slot=FIRST_HOUR + 2_000), "c"
    )
    with harness.database.writer.connect() as connection, connection.begin() as transaction:
        harness.recorder.record_results_in_transaction(connection, [bad], FIRST_HOUR + 3_300)
        transaction.rollback()
    harness.recorder.record_results([bad], FIRST_HOUR + 3_400)
    assert stored_excerpts(harness) == "abc"


def test_a_result_without_evidence_has_no_row(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    harness.record_each(*make_results(harness.database_ids[0], "pff"))
    assert harness.select_rows(evidence) == []


def test_probe_state_is_inserted_replaced_and_deleted(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe("a"), make_registered_probe("b")])
    a, b = harness.database_ids

    def stored_state() -> dict[tuple[int, str], str]:
        return {(row["probe"], row["key"]): row["value"] for row in harness.select_rows(probe_state)}

    def record_state(probe: int, slot: int, **values: Any) -> None:
        harness.recorder.record_results([make_recorded_result(make_result(probe, slot), **values)], slot)

    record_state(a, SLOT, era=1, seen={"x": 2})
    record_state(b, SLOT, era=3)
    assert stored_state() == {(a, "era"): "1", (a, "seen"): '{"x":2}', (b, "era"): "3"}
    record_state(a, SLOT + INTERVAL_MS, era=4, seen=None)
    assert stored_state() == {(a, "era"): "4", (b, "era"): "3"}
    record_state(a, SLOT + INTERVAL_MS, era=5)
    assert stored_state()[a, "era"] == "4", "a duplicate updates nothing"


def test_a_late_result_does_not_change_what_is_remembered_of_jobs(database: Database) -> None:
    """It is never evaluated: what it shows for the first time, such as a lost run, is shown again by the next one."""
    harness = StoreHarness(database, [make_registered_probe()]).without_downtime()
    (probe,) = harness.database_ids
    job_key, forget_key = (
        build_scheduled_job_state_key("backup"),
        build_forget_job_state_key(build_scheduled_job_state_key("import")),
    )

    def record(slot: int, now: int, **values: Any) -> dict[str, str]:
        harness.recorder.record_results([make_recorded_result(make_result(probe, slot), **values)], now)
        return {row["key"]: row["value"] for row in harness.select_rows(probe_state)}

    updates: dict[str, Any] = {job_key: {"lost_since": 2}, forget_key: 7, "sentinel": 2}
    now = SLOT + MAX_LATENESS_MS
    assert record(SLOT, now, **updates) == {"sentinel": "2"}
    assert record(now + 1, now + 1, **updates).keys() == {job_key, forget_key, "sentinel"}


def test_outcomes_are_stored_by_name(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    harness.record_results(*make_results(harness.database_ids[0], "pfem", interval_ms=1_000))
    assert [row["outcome"] for row in harness.select_rows(results)] == [str(o) for o in Outcome]
