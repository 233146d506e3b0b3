"""What happens to a batch of results: stored once, marked late once, judged together with what was there."""

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
    make_recorded_result,
    make_registered_probe,
    make_registered_probes,
    make_result,
    make_results,
)
from watchdog.domain.model import IncidentEvent, Outcome, RecordedResult, ReportedTask
from watchdog.domain.rules import no_verdict
from watchdog.domain.schedule import IntervalSchedule
from watchdog.store import codec
from watchdog.store.database import Database
from watchdog.store.listings import read_results
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
HOUR = (START_AT // 3_600_000 + 1) * 3_600_000
"""The first whole hour."""
LATENESS = 40_000
AWFUL = "nul \0, half a pair \ud800, \\u0000 spelt out, 🦉, ' \" ; -- <b> {} %s :x"
KEPT = AWFUL.replace("\0", "�").replace("\ud800", "�")


def told(lab: StoreHarness) -> list[tuple[str, str, int]]:
    rows = sorted(lab.select_rows(incidents), key=lambda row: row["opened_at"])
    return [(row["rule"], row["subject"], row["opened_slot"] - START_AT) for row in rows]


# ------------------------------------------------------------------------------------------------------- stored once


def test_a_result_stored_twice_is_one_result(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    bad = make_result(lab.database_ids[0], SLOT, "fail")
    changes = [lab.record_results(bad), lab.record_results(bad), lab.record_results(bad, bad)]
    assert [len(c) for c in changes] == [1, 0, 0]
    assert len(lab.select_rows(results)) == 1
    assert len(lab.select_rows(incidents)) == 1
    assert len(lab.select_rows(outbox)) == 2


def test_the_first_report_of_a_slot_stays(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    good = make_recorded_result(make_result(lab.database_ids[0], SLOT), "first", told="first")
    bad = make_recorded_result(make_result(lab.database_ids[0], SLOT, "fail"), "second", told="second")
    assert lab.recorder.record_results([good, bad], SLOT + 300) == []
    assert lab.recorder.record_results([bad], SLOT + 400) == []
    assert lab.select_row(results)["outcome"] == "pass"
    assert lab.select_row(evidence)["excerpt"] == "first"
    assert lab.select_row(probe_state)["value"] == '"first"'


def test_nothing_to_store_is_fine(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    assert lab.recorder.record_results([], SLOT) == []


def test_results_of_unknown_probes_are_dropped(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    stranger = make_recorded_result(make_result(10**9, SLOT, "fail"), "theirs", key=1)
    assert lab.recorder.record_results([stranger], SLOT) == []
    (change,) = lab.recorder.record_results(
        [stranger, RecordedResult(make_result(lab.database_ids[0], SLOT, "fail"))], SLOT + 300
    )
    assert change.probe == lab.database_ids[0]
    assert [row["probe"] for row in lab.select_rows(results)] == lab.database_ids
    assert lab.select_rows(evidence) == lab.select_rows(probe_state) == []


def test_everything_of_a_result_comes_back(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    tasks = {"nightly": ReportedTask(True, SLOT - 5_000, None, "ok", ""), "new": ReportedTask(True, None, 7, "", "")}
    full = make_result(
        lab.database_ids[0],
        SLOT,
        phases={"dns": 1.2, "connect": 3.4},
        measurements={"n": 4, "ok": True, "x": None, "f": 1.5},
        tasks=tasks,
        preferences={"elapsed_ms <= 800": ""},
        previous_slot=START_AT,
        message="fine",
    )
    bare = make_result(
        lab.database_ids[0], SLOT + INTERVAL_MS, "missed", reason="missed.result_lost", slot_count=7, duration=None
    )
    listed = make_result(lab.database_ids[0], SLOT + 2 * INTERVAL_MS, tasks={}, preferences={})
    lab.record_results(full, bare, listed, now=SLOT + 300)
    with lab.database.read_transaction() as connection:
        stored = connection.execute(sa.select(*RESULT_COLUMNS).order_by(results.c.slot)).all()
        assert list(read_results(connection, stored)) == [full, bare, listed]


# ---------------------------------------------------------------------------------------------- late is said once


@pytest.mark.parametrize(
    ("outcome", "late_by", "late"),
    [
        ("fail", 0, False),
        ("fail", LATENESS - 1, False),
        ("fail", LATENESS, True),
        ("pass", LATENESS, True),
        ("error", LATENESS + 1, True),
        ("missed", LATENESS, False),  # an account of what was not seen is never too late
        ("missed", 100 * LATENESS, False),
    ],
)
def test_late_is_past_the_lateness(database: Database, outcome: str, late_by: int, late: bool) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=1)]).without_downtime()
    changes = lab.record_results(make_result(lab.database_ids[0], SLOT, outcome), now=SLOT + late_by)
    assert lab.select_row(results)["late"] is late
    assert bool(changes) is (outcome == "fail" and not late)


def test_late_is_said_once_and_stays(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=1)]).without_downtime()
    lab.record_results(make_result(lab.database_ids[0], SLOT, "fail"), now=SLOT + LATENESS)
    lab.record_results(make_result(lab.database_ids[0], SLOT, "fail"), now=SLOT + 1)
    assert lab.select_row(results)["late"] is True
    assert lab.select_rows(incidents) == []


def test_lateness_is_counted_in_time_that_we_lived(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    lab.claim_slots(SLOT)
    (change,) = lab.record_results(make_result(lab.database_ids[0], SLOT, "fail"), now=SLOT + 600_000)
    assert change.slot == SLOT, "ten minutes of standing still are not the target's"


# `folded` and lateness: which rows may still be judged.  A cursor is read only where it can matter: a probe that is
# hot, or whose results are folded beyond the edge of lateness.  Each row: what was there, what comes, what it becomes.
RECENT: list[tuple[str, str, str, int, bool]] = [
    # what was folded before, at offsets 1.., the outcome that comes, at offset, late?
    ("a probe that only ever passed has folded nothing", "ppp", "fail", 2, False),
    ("before a failure that is folded, hot", "p.f", "fail", 2, True),
    ("before a failure that is folded, hot, though it passes", "p.f", "pass", 2, True),
    ("after a failure that is folded, hot", "pf.", "fail", 3, False),
    ("before the pass that ended a suspicion: no longer hot, yet folded", "pf.p", "fail", 3, True),
    ("the same, though it passes", "pf.p", "pass", 3, True),
    ("after the pass that ended a suspicion", "pfp.", "fail", 4, False),
]


@pytest.mark.parametrize(("why", "before", "outcome", "at", "late"), RECENT, ids=[row[0] for row in RECENT])
def test_what_is_folded_is_not_folded_again(
    database: Database, why: str, before: str, outcome: str, at: int, late: bool
) -> None:
    second = 1_000
    lab = StoreHarness(
        database,
        [
            make_registered_probe(schedule=IntervalSchedule(second)),
            make_registered_probe("other", schedule=IntervalSchedule(second)),
        ],
    )
    probe, other = lab.database_ids
    words = {"p": "pass", "f": "fail"}
    lab.record_each(*[make_result(probe, START_AT + i * second, words[w]) for i, w in enumerate(before, 1) if w != "."])
    now = START_AT + 10 * second  # well within lateness
    slot = START_AT + at * second + (0 if "." in before else 500)
    lab.record_results(make_result(other, START_AT + 8 * second), make_result(probe, slot, outcome), now=now)
    assert lab.select_row(results, results.c.probe == probe, results.c.slot == slot)["late"] is late, why
    live, (replayed, _) = lab.load_alert_states(probe), lab.recorder.replay_probe(probe, now)
    assert live == replayed


def test_the_cursor_is_read_for_each_probe_by_its_own_lateness(database: Database) -> None:
    """In one batch, the probe with the longest lateness decides whose cursors may matter."""
    lab = StoreHarness(
        database,
        [make_registered_probe("long", lateness_ms=600_000), make_registered_probe("short", lateness_ms=31_000)],
    ).without_downtime()
    long, short = lab.database_id("long"), lab.database_id("short")
    lab.record_each(
        make_result(long, SLOT + 1_000, "fail"), make_result(long, SLOT + 2_000)
    )  # folded, and no longer hot
    lab.record_results(make_result(long, SLOT, "fail"), make_result(short, SLOT + 300_000), now=SLOT + 300_500)
    assert lab.select_row(results, results.c.slot == SLOT)["late"] is True


def test_a_hot_cursor_is_read_however_old_it_is(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=1)]).without_downtime()
    lab.record_each(make_result(lab.database_ids[0], SLOT, "fail"))
    later = SLOT + 5 * INTERVAL_MS
    assert [
        c.event
        for c in lab.record_each(
            make_result(lab.database_ids[0], later), make_result(lab.database_ids[0], later + INTERVAL_MS)
        )
    ] == [IncidentEvent.RESOLVED]


def test_a_result_that_changes_nothing_touches_no_state(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    before = lab.select_rows(evaluation_cursors)
    lab.record_each(*make_results(lab.database_ids[0], "ppppp"))
    assert lab.select_rows(evaluation_cursors) == before
    assert lab.select_rows(alert_states) == []


# ---------------------------------------------------------------------------------------- batches, and what they decide


def test_one_batch_may_open_resolve_and_open_again(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=1, success_threshold=1)])
    probe = lab.database_ids[0]
    changes = lab.record_results(*reversed(make_results(probe, "fpf", interval_ms=1_000)))
    assert [(c.event, c.slot - START_AT) for c in changes] == [
        (IncidentEvent.OPENED, 1_000), (IncidentEvent.RESOLVED, 2_000), (IncidentEvent.OPENED, 3_000)
    ]  # fmt: skip
    rows = lab.select_rows(incidents)
    assert sorted((row["opened_slot"] - START_AT, (row["resolved_slot"] or START_AT) - START_AT) for row in rows) == [
        (1_000, 2_000),
        (3_000, 0),
    ]
    assert len(lab.select_rows(outbox)) == 6
    assert lab.recorder.replay_probe(probe, START_AT + 10_000)[1] == changes


def test_a_batch_of_several_probes_tells_of_each(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(f"p{i}", failure_threshold=2) for i in range(3)])
    a, b, c = lab.database_ids
    batch = make_results(a, "ff") + make_results(b, "fp") + make_results(c, "pp")
    changes = lab.record_results(*batch, now=SLOT + INTERVAL_MS + 300)
    assert [(change.probe, change.rule) for change in changes] == [(a, "availability")]
    assert {row["probe"]: row["bad_count"] for row in lab.select_rows(alert_states)} == {a: 2}


def test_rules_of_one_probe_open_each_for_itself(database: Database) -> None:
    lab = StoreHarness(
        database,
        [make_registered_probe(failure_threshold=1, success_threshold=1, task_limits={"nightly": 60_000, "*": 5_000})],
    )
    probe = lab.database_ids[0]
    fresh = ReportedTask(True, SLOT)
    tasks = {"a": ReportedTask(False, error="boom"), "b": ReportedTask(True, SLOT - 9_000), "c": fresh}
    lab.record_results(make_result(probe, SLOT, tasks=tasks, preferences={"elapsed_ms <= 1": "observed 5"}))
    assert sorted(told(lab)) == [
        ("missing", "nightly", INTERVAL_MS), ("preference", "elapsed_ms <= 1", INTERVAL_MS), ("task", "a", INTERVAL_MS),
        ("task", "b", INTERVAL_MS),
    ]  # fmt: skip
    well = dict.fromkeys(("nightly", "a", "c"), ReportedTask(True, SLOT + INTERVAL_MS))
    changes = lab.record_results(make_result(probe, SLOT + INTERVAL_MS, tasks=well, preferences={}))
    assert sorted((c.subject, c.reason) for c in changes) == [
        ("a", ""), ("b", "subject.no_longer_listed"), ("elapsed_ms <= 1", "subject.no_longer_listed"), ("nightly", "")
    ]  # fmt: skip
    assert lab.select_rows(alert_states) == []


def test_our_own_errors_are_no_failure_of_the_target(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=2)])
    lab.record_each(*make_results(lab.database_ids[0], "ffmmpeef"[1:]))
    assert told(lab) == [(no_verdict.RULE_NAME, "", 6 * INTERVAL_MS)]


def test_an_incident_keeps_what_was_decided_and_why(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=2)])
    (change,) = lab.record_each(*make_results(lab.database_ids[0], "ff"))
    row = lab.select_row(incidents)
    assert row["id"] == change.incident
    assert (row["since"], row["opened_slot"], row["opened_at"]) == (SLOT, SLOT + INTERVAL_MS, SLOT + INTERVAL_MS + 300)
    assert (row["reason"], row["message"], row["threshold"], row["severity"]) == (
        "http.status", "HTTP 503", 2, "warning"
    )  # fmt: skip
    assert row["routing_log"] == '["no routes are configured: every receiver is notified: oncall"]'
    assert (row["resolved_at"], row["resolved_slot"], row["resolution"]) == (None, None, "")


def test_a_job_needs_no_second_bad_slot(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=3)])
    (probe,) = lab.database_ids
    lab.record_results(
        make_result(probe, START_AT + INTERVAL_MS, Outcome.FAIL, jobs=[stuck_job("ledger", START_AT + INTERVAL_MS)])
    )
    row = lab.select_row(incidents)
    assert (row["subject"], row["reason"], row["threshold"]) == ("ledger", "job.stuck", 1)


def test_a_batch_that_does_not_commit_leaves_nothing(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=1)])
    bad = make_recorded_result(make_result(lab.database_ids[0], SLOT, "fail"), "why", era="x")
    with lab.database.writer.connect() as connection, connection.begin() as transaction:
        assert lab.recorder.record_results_in_transaction(connection, [bad], SLOT + 300)
        transaction.rollback()
    for table in (results, evidence, probe_state, alert_states, incidents, outbox):
        assert lab.select_rows(table) == []
    assert len(lab.recorder.record_results([bad], SLOT + 300)) == 1


def test_a_probe_that_another_process_removed_is_judged_no_more(databases: DatabasePair) -> None:
    """Its runs may still come in; an incident that opened now would never be resolved."""
    old = StoreHarness(databases.first, [make_registered_probe(failure_threshold=1), make_registered_probe("stays")])
    probe = old.database_id("api")
    StoreHarness(databases.second, [make_registered_probe("stays")], create_schema=False, now=START_AT + 30_000)
    assert old.record_results(make_result(probe, SLOT, "fail")) == []
    assert len(old.select_rows(results)) == 1, "kept, as all that was seen"
    assert old.select_rows(incidents) == old.select_rows(alert_states) == []


def test_five_hundred_results_in_one_batch(database: Database) -> None:
    lab = StoreHarness(database, make_registered_probes(500, failure_threshold=1))
    changes = lab.record_results(*[make_result(p, SLOT, "fail") for p in lab.database_ids])
    assert len(changes) == 500
    assert len(lab.select_rows(outbox)) == 1_000
    changes = lab.record_results(
        *[make_result(p, SLOT + i * INTERVAL_MS) for p in lab.database_ids for i in (1, 2)], now=SLOT + 2 * INTERVAL_MS
    )
    assert {c.event for c in changes} == {IncidentEvent.RESOLVED}
    assert lab.select_rows(incidents, incidents.c.resolved_at.is_(None)) == []


# -------------------------------------------------------------------------------------- what targets may make us store


def test_no_text_of_a_target_keeps_a_batch_from_being_stored(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=1, success_threshold=1)])
    probe, huge = lab.database_ids[0], 10**40
    tasks = {AWFUL: ReportedTask(False, huge, huge, AWFUL, AWFUL)}
    seen = make_result(
        probe, SLOT, "fail", message=AWFUL, tasks=tasks, measurements={AWFUL: AWFUL, "n": huge, "f": 1e308},
        preferences={AWFUL: AWFUL},
    )  # fmt: skip
    remembered: dict[str, Any] = {AWFUL: {AWFUL: [AWFUL, huge, None, True]}}
    given = make_recorded_result(seen, AWFUL)._replace(state_updates=remembered)
    given.evidence.facts[AWFUL] = AWFUL  # type: ignore[index]
    assert len(lab.recorder.record_results([given], SLOT + 300)) == 3
    assert {(row["rule"], row["subject"]) for row in lab.select_rows(incidents)} == {
        ("availability", ""), ("task", KEPT), ("preference", KEPT)
    }  # fmt: skip
    row = lab.select_row(results)
    assert row["message"] == KEPT
    assert codec.loads(row["facts"])["task"][1] == {KEPT: [False, huge, huge, KEPT, KEPT]}
    assert codec.loads(row["measurements"]) == {KEPT: KEPT, "n": huge, "f": 1e308}
    assert codec.loads(lab.select_row(evidence)["facts"])[KEPT] == KEPT
    assert lab.select_row(evidence)["excerpt"] == KEPT
    assert codec.loads(lab.select_row(probe_state)["value"]) == {KEPT: [KEPT, huge, None, True]}
    well = {KEPT: ReportedTask(True, 1)}
    assert len(lab.record_results(make_result(probe, SLOT + INTERVAL_MS, tasks=well, preferences={KEPT: ""}))) == 3
    assert lab.select_rows(alert_states) == []
    forget = RecordedResult(make_result(probe, SLOT + 2 * INTERVAL_MS), state_updates={AWFUL: None})
    lab.recorder.record_results([forget], SLOT + 2 * INTERVAL_MS)
    assert lab.select_rows(probe_state) == []


@pytest.mark.parametrize(
    ("given", "kept"),
    [("a\0b", "a�b"), ("\ud800", "�"), ("\\u0000", "\\u0000"), ("é🦉\n\t", "é🦉\n\t"), ("\ud83e\udd89", "��")],
)
def test_json_holds_what_every_database_can_hold(given: str, kept: str) -> None:
    assert codec.loads(codec.dumps({given: [(given, 1)]})) == {kept: [[kept, 1]]}
    codec.dumps(given).encode()


# ----------------------------------------------------------------------------------- evidence, and what is remembered


def excerpts(lab: StoreHarness) -> str:
    return "".join(row["excerpt"] for row in lab.select_rows(evidence))


def see(lab: StoreHarness, outcomes: str, names: str, start: int = START_AT, every: int = INTERVAL_MS) -> None:
    for made, name in zip(make_results(lab.database_ids[0], outcomes, start, every), names, strict=True):
        lab.recorder.record_results([make_recorded_result(made, name)], made.slot + 300)


@pytest.mark.parametrize(
    ("why", "outcomes", "kept"),
    [
        ("the first of all, as a sample", "pppp", "a"),
        ("failures, and the good one before", "ppppfff", "adefg"),
        ("errors, too", "pppe", "acd"),
        ("a pass while something is not clear", "ppfppp", "abcd"),
        ("good again: what was seen while it recovered", "pfffppp", "abcdef"),
        ("nothing was seen in a slot that nobody ran", "pppmpp", "a"),
    ],
)
def test_evidence_is_kept_around_changes(database: Database, why: str, outcomes: str, kept: str) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    see(lab, outcomes, "abcdefgh"[: len(outcomes)], HOUR, 1_000)
    assert excerpts(lab) == kept, why


def test_of_passes_the_first_of_each_hour_is_kept(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    see(lab, "p" * 9, "abcdefghi", HOUR - 1_200_000, 1_200_000)
    assert excerpts(lab) == "adg"


def test_the_last_good_evidence_is_kept_though_the_database_failed_once(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    see(lab, "pp", "ab", HOUR, 1_000)
    bad = make_recorded_result(make_result(lab.database_ids[0], HOUR + 3_000, "fail", previous_slot=HOUR + 2_000), "c")
    with lab.database.writer.connect() as connection, connection.begin() as transaction:
        lab.recorder.record_results_in_transaction(connection, [bad], HOUR + 3_300)
        transaction.rollback()
    lab.recorder.record_results([bad], HOUR + 3_400)
    assert excerpts(lab) == "abc"


def test_a_result_without_evidence_leaves_none(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    lab.record_each(*make_results(lab.database_ids[0], "pff"))
    assert lab.select_rows(evidence) == []


def test_what_a_probe_remembers_is_put_replaced_and_forgotten(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe("a"), make_registered_probe("b")])
    a, b = lab.database_ids

    def memories() -> dict[tuple[int, str], str]:
        return {(row["probe"], row["key"]): row["value"] for row in lab.select_rows(probe_state)}

    def remember(probe: int, slot: int, **values: Any) -> None:
        lab.recorder.record_results([make_recorded_result(make_result(probe, slot), **values)], slot)

    remember(a, SLOT, era=1, seen={"x": 2})
    remember(b, SLOT, era=3)
    assert memories() == {(a, "era"): "1", (a, "seen"): '{"x":2}', (b, "era"): "3"}
    remember(a, SLOT + INTERVAL_MS, era=4, seen=None)
    assert memories() == {(a, "era"): "4", (b, "era"): "3"}
    remember(a, SLOT + INTERVAL_MS, era=5)
    assert memories()[a, "era"] == "4", "a duplicate remembers nothing"


def test_outcomes_are_stored_as_their_words(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    lab.record_results(*make_results(lab.database_ids[0], "pfem", interval_ms=1_000))
    assert [row["outcome"] for row in lab.select_rows(results)] == [str(o) for o in Outcome]
