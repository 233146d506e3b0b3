"""What happens to a batch of results: stored once, marked late once, judged together with what was there."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from tests.store.lab import EVERY, T0, Databases, Lab, fleet_of, member, report, result, series
from watchdog.model import Event, Outcome, Report, Task, Trouble
from watchdog.rules import unjudged
from watchdog.schedule import Interval
from watchdog.store import codec
from watchdog.store.database import RESULT_COLUMNS, Database
from watchdog.store.tables import cursors, evidence, findings, incidents, memory, outbox, results

SLOT = T0 + EVERY
HOUR = (T0 // 3_600_000 + 1) * 3_600_000
"""The first whole hour."""
LATENESS = 40_000
AWFUL = "nul \0, half a pair \ud800, \\u0000 spelt out, 🦉, ' \" ; -- <b> {} %s :x"
KEPT = AWFUL.replace("\0", "�").replace("\ud800", "�")


def told(lab: Lab) -> list[tuple[str, str, int]]:
    rows = sorted(lab.rows(incidents), key=lambda row: row["opened_at"])
    return [(row["rule"], row["subject"], row["slot"] - T0) for row in rows]


# ------------------------------------------------------------------------------------------------------- stored once


def test_a_result_stored_twice_is_one_result(database: Database) -> None:
    lab = Lab(database, [member(after=1)])
    bad = result(lab.ids[0], SLOT, "fail")
    changes = [lab.record(bad), lab.record(bad), lab.record(bad, bad)]
    assert [len(c) for c in changes] == [1, 0, 0]
    assert len(lab.rows(results)) == 1
    assert len(lab.rows(incidents)) == 1
    assert len(lab.rows(outbox)) == 2


def test_the_first_report_of_a_slot_stays(database: Database) -> None:
    lab = Lab(database, [member(after=1)])
    good = report(result(lab.ids[0], SLOT), "first", told="first")
    bad = report(result(lab.ids[0], SLOT, "fail"), "second", told="second")
    assert lab.journal.record([good, bad], SLOT + 300) == []
    assert lab.journal.record([bad], SLOT + 400) == []
    assert lab.row(results)["outcome"] == "pass"
    assert lab.row(evidence)["excerpt"] == "first"
    assert lab.row(memory)["value"] == '"first"'


def test_nothing_to_store_is_fine(database: Database) -> None:
    lab = Lab(database, [member()])
    assert lab.journal.record([], SLOT) == []


def test_results_of_unknown_probes_are_dropped(database: Database) -> None:
    lab = Lab(database, [member(after=1)])
    stranger = report(result(10**9, SLOT, "fail"), "theirs", key=1)
    assert lab.journal.record([stranger], SLOT) == []
    (change,) = lab.journal.record([stranger, Report(result(lab.ids[0], SLOT, "fail"))], SLOT + 300)
    assert change.probe == lab.ids[0]
    assert [row["probe"] for row in lab.rows(results)] == lab.ids
    assert lab.rows(evidence) == lab.rows(memory) == []


def test_everything_of_a_result_comes_back(database: Database) -> None:
    lab = Lab(database, [member()])
    tasks = {"nightly": Task(True, 5_000, None, "ok", ""), "new": Task(True, None, 7, "", "")}
    full = result(
        lab.ids[0], SLOT, phases={"dns": 1.2, "connect": 3.4}, measurements={"n": 4, "ok": True, "x": None, "f": 1.5},
        tasks=tasks, preferences={"elapsed_ms <= 800": ""}, prev=T0, message="fine",
    )  # fmt: skip
    bare = result(lab.ids[0], SLOT + EVERY, "missed", reason="missed.result_lost", n=7, duration=None)
    listed = result(lab.ids[0], SLOT + 2 * EVERY, tasks={}, preferences={})
    lab.record(full, bare, listed, now=SLOT + 300)
    with lab.database.read() as connection:
        columns = [results.c[name] for name in RESULT_COLUMNS]
        stored = connection.execute(sa.select(*columns).order_by(results.c.slot)).all()
    assert [codec.result_of(row) for row in stored] == [full, bare, listed]


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
    lab = Lab(database, [member(after=1)]).without_gaps()
    changes = lab.record(result(lab.ids[0], SLOT, outcome), now=SLOT + late_by)
    assert lab.row(results)["late"] is late
    assert bool(changes) is (outcome == "fail" and not late)


def test_late_is_said_once_and_stays(database: Database) -> None:
    lab = Lab(database, [member(after=1)]).without_gaps()
    lab.record(result(lab.ids[0], SLOT, "fail"), now=SLOT + LATENESS)
    lab.record(result(lab.ids[0], SLOT, "fail"), now=SLOT + 1)
    assert lab.row(results)["late"] is True
    assert lab.rows(incidents) == []


def test_lateness_is_counted_in_time_that_we_lived(database: Database) -> None:
    lab = Lab(database, [member(after=1)])
    lab.claim(SLOT)
    (change,) = lab.record(result(lab.ids[0], SLOT, "fail"), now=SLOT + 600_000)
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
    lab = Lab(database, [member(schedule=Interval(second)), member("other", schedule=Interval(second))])
    probe, other = lab.ids
    words = {"p": "pass", "f": "fail"}
    lab.feed(*[result(probe, T0 + i * second, words[w]) for i, w in enumerate(before, 1) if w != "."])
    now = T0 + 10 * second  # well within lateness
    slot = T0 + at * second + (0 if "." in before else 500)
    lab.record(result(other, T0 + 8 * second), result(probe, slot, outcome), now=now)
    assert lab.row(results, results.c.probe == probe, results.c.slot == slot)["late"] is late, why
    live, (replayed, _) = lab.live(probe), lab.journal.replay(probe, now)
    assert live == replayed


def test_the_cursor_is_read_for_each_probe_by_its_own_lateness(database: Database) -> None:
    """In one batch, the probe with the longest lateness decides whose cursors may matter."""
    lab = Lab(database, [member("long", lateness=600_000), member("short", lateness=31_000)]).without_gaps()
    long, short = lab.id("long"), lab.id("short")
    lab.feed(result(long, SLOT + 1_000, "fail"), result(long, SLOT + 2_000))  # folded, and no longer hot
    lab.record(result(long, SLOT, "fail"), result(short, SLOT + 300_000), now=SLOT + 300_500)
    assert lab.row(results, results.c.slot == SLOT)["late"] is True


def test_a_hot_cursor_is_read_however_old_it_is(database: Database) -> None:
    lab = Lab(database, [member(after=1)]).without_gaps()
    lab.feed(result(lab.ids[0], SLOT, "fail"))
    later = SLOT + 5 * EVERY
    assert [c.event for c in lab.feed(result(lab.ids[0], later), result(lab.ids[0], later + EVERY))] == [Event.RESOLVED]


def test_a_result_that_changes_nothing_touches_no_state(database: Database) -> None:
    lab = Lab(database, [member()])
    before = lab.rows(cursors)
    lab.feed(*series(lab.ids[0], "ppppp"))
    assert lab.rows(cursors) == before
    assert lab.rows(findings) == []


# ---------------------------------------------------------------------------------------- batches, and what they decide


def test_one_batch_may_open_resolve_and_open_again(database: Database) -> None:
    lab = Lab(database, [member(after=1, recover=1)])
    probe = lab.ids[0]
    changes = lab.record(*reversed(series(probe, "fpf", every=1_000)))
    assert [(c.event, c.slot - T0) for c in changes] == [
        (Event.OPENED, 1_000), (Event.RESOLVED, 2_000), (Event.OPENED, 3_000)
    ]  # fmt: skip
    rows = lab.rows(incidents)
    assert sorted((row["slot"] - T0, (row["resolved_slot"] or T0) - T0) for row in rows) == [(1_000, 2_000), (3_000, 0)]
    assert len(lab.rows(outbox)) == 6
    assert lab.journal.replay(probe, T0 + 10_000)[1] == changes


def test_a_batch_of_several_probes_tells_of_each(database: Database) -> None:
    lab = Lab(database, [member(f"p{i}", after=2) for i in range(3)])
    a, b, c = lab.ids
    batch = series(a, "ff") + series(b, "fp") + series(c, "pp")
    changes = lab.record(*batch, now=SLOT + EVERY + 300)
    assert [(change.probe, change.rule) for change in changes] == [(a, "availability")]
    assert {row["probe"]: row["bad"] for row in lab.rows(findings)} == {a: 2}


def test_rules_of_one_probe_open_each_for_itself(database: Database) -> None:
    lab = Lab(database, [member(after=1, recover=1, task_limits={"nightly": 60_000, "*": 5_000})])
    probe = lab.ids[0]
    tasks = {"a": Task(False, 1, None, "", "boom"), "b": Task(True, 9_000), "c": Task(True, 1)}
    lab.record(result(probe, SLOT, tasks=tasks, preferences={"elapsed_ms <= 1": "observed 5"}))
    assert sorted(told(lab)) == [
        ("missing", "nightly", EVERY), ("preference", "elapsed_ms <= 1", EVERY), ("task", "a", EVERY),
        ("task", "b", EVERY),
    ]  # fmt: skip
    well = {"nightly": Task(True, 1), "a": Task(True, 1), "c": Task(True, 1)}
    changes = lab.record(result(probe, SLOT + EVERY, tasks=well, preferences={}))
    assert sorted((c.subject, c.reason) for c in changes) == [
        ("a", ""), ("b", "subject.no_longer_listed"), ("elapsed_ms <= 1", "subject.no_longer_listed"), ("nightly", "")
    ]  # fmt: skip
    assert lab.rows(findings) == []


def test_our_own_errors_are_no_failure_of_the_target(database: Database) -> None:
    lab = Lab(database, [member(after=2)])
    lab.feed(*series(lab.ids[0], "ffmmpeef"[1:]))
    assert told(lab) == [(unjudged.NAME, "", 6 * EVERY)]


def test_an_incident_keeps_what_was_decided_and_why(database: Database) -> None:
    lab = Lab(database, [member(after=2)])
    (change,) = lab.feed(*series(lab.ids[0], "ff"))
    row = lab.row(incidents)
    assert row["id"] == change.incident
    assert (row["since"], row["slot"], row["opened_at"]) == (SLOT, SLOT + EVERY, SLOT + EVERY + 300)
    assert (row["reason"], row["message"], row["needed"], row["severity"]) == (
        "http.status", "got 503", 2, "warning"
    )  # fmt: skip
    assert row["route"] == '["no routes: every receiver is told: oncall"]'
    assert (row["resolved_at"], row["resolved_slot"], row["resolution"]) == (None, None, "")


def test_a_job_needs_no_second_bad_slot(database: Database) -> None:
    lab = Lab(database, [member(after=3)])
    (probe,) = lab.ids
    lab.record(result(probe, T0 + EVERY, Outcome.FAIL, jobs={"ledger": Trouble("job.stuck", "ledger is stuck")}))
    row = lab.row(incidents)
    assert (row["subject"], row["reason"], row["needed"]) == ("ledger", "job.stuck", 1)


def test_a_batch_that_does_not_commit_leaves_nothing(database: Database) -> None:
    lab = Lab(database, [member(after=1)])
    bad = report(result(lab.ids[0], SLOT, "fail"), "why", era="x")
    with lab.database.writer.connect() as connection, connection.begin() as transaction:
        assert lab.journal.record_in(connection, [bad], SLOT + 300)
        transaction.rollback()
    for table in (results, evidence, memory, findings, incidents, outbox):
        assert lab.rows(table) == []
    assert len(lab.journal.record([bad], SLOT + 300)) == 1


def test_a_probe_that_another_process_removed_is_judged_no_more(databases: Databases) -> None:
    """Its runs may still come in; an incident that opened now would never be resolved."""
    old = Lab(databases.first, [member(after=1), member("stays")])
    probe = old.id("api")
    Lab(databases.second, [member("stays")], new=False, now=T0 + 30_000)
    assert old.record(result(probe, SLOT, "fail")) == []
    assert len(old.rows(results)) == 1, "kept, as all that was seen"
    assert old.rows(incidents) == old.rows(findings) == []


def test_five_hundred_results_in_one_batch(database: Database) -> None:
    lab = Lab(database, fleet_of(500, after=1))
    changes = lab.record(*[result(p, SLOT, "fail") for p in lab.ids])
    assert len(changes) == 500
    assert len(lab.rows(outbox)) == 1_000
    changes = lab.record(*[result(p, SLOT + i * EVERY) for p in lab.ids for i in (1, 2)], now=SLOT + 2 * EVERY)
    assert {c.event for c in changes} == {Event.RESOLVED}
    assert lab.rows(incidents, incidents.c.resolved_at.is_(None)) == []


# -------------------------------------------------------------------------------------- what targets may make us store


def test_no_text_of_a_target_keeps_a_batch_from_being_stored(database: Database) -> None:
    lab = Lab(database, [member(after=1, recover=1)])
    probe, huge = lab.ids[0], 10**40
    tasks = {AWFUL: Task(False, huge, huge, AWFUL, AWFUL)}
    seen = result(
        probe, SLOT, "fail", message=AWFUL, tasks=tasks, measurements={AWFUL: AWFUL, "n": huge, "f": 1e308},
        preferences={AWFUL: AWFUL},
    )  # fmt: skip
    remembered: dict[str, Any] = {AWFUL: {AWFUL: [AWFUL, huge, None, True]}}
    given = report(seen, AWFUL)._replace(remember=remembered)
    given.evidence.facts[AWFUL] = AWFUL  # type: ignore[index]
    assert len(lab.journal.record([given], SLOT + 300)) == 3
    assert {(row["rule"], row["subject"]) for row in lab.rows(incidents)} == {
        ("availability", ""), ("task", KEPT), ("preference", KEPT)
    }  # fmt: skip
    row = lab.row(results)
    assert row["message"] == KEPT
    assert codec.loads(row["tasks"]) == {KEPT: [False, huge, huge, KEPT, KEPT]}
    assert codec.loads(row["measurements"]) == {KEPT: KEPT, "n": huge, "f": 1e308}
    assert codec.loads(lab.row(evidence)["facts"])[KEPT] == KEPT
    assert lab.row(evidence)["excerpt"] == KEPT
    assert codec.loads(lab.row(memory)["value"]) == {KEPT: [KEPT, huge, None, True]}
    well = {AWFUL: Task(True, 1)}
    assert len(lab.record(result(probe, SLOT + EVERY, tasks=well, preferences={AWFUL: ""}))) == 3
    assert lab.rows(findings) == []
    forget = Report(result(probe, SLOT + 2 * EVERY), remember={AWFUL: None})
    lab.journal.record([forget], SLOT + 2 * EVERY)
    assert lab.rows(memory) == []


@pytest.mark.parametrize(
    ("given", "kept"),
    [("a\0b", "a�b"), ("\ud800", "�"), ("\\u0000", "\\u0000"), ("é🦉\n\t", "é🦉\n\t"), ("\ud83e\udd89", "��")],
)
def test_json_holds_what_every_database_can_hold(given: str, kept: str) -> None:
    assert codec.loads(codec.dumps({given: [(given, 1)]})) == {kept: [[kept, 1]]}
    codec.dumps(given).encode()


# ----------------------------------------------------------------------------------- evidence, and what is remembered


def excerpts(lab: Lab) -> str:
    return "".join(row["excerpt"] for row in lab.rows(evidence))


def see(lab: Lab, outcomes: str, names: str, start: int = T0, every: int = EVERY) -> None:
    for made, name in zip(series(lab.ids[0], outcomes, start, every), names, strict=True):
        lab.journal.record([report(made, name)], made.slot + 300)


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
    lab = Lab(database, [member()])
    see(lab, outcomes, "abcdefgh"[: len(outcomes)], HOUR, 1_000)
    assert excerpts(lab) == kept, why


def test_of_passes_the_first_of_each_hour_is_kept(database: Database) -> None:
    lab = Lab(database, [member()])
    see(lab, "p" * 9, "abcdefghi", HOUR - 1_200_000, 1_200_000)
    assert excerpts(lab) == "adg"


def test_the_last_good_evidence_is_kept_though_the_database_failed_once(database: Database) -> None:
    lab = Lab(database, [member()])
    see(lab, "pp", "ab", HOUR, 1_000)
    bad = report(result(lab.ids[0], HOUR + 3_000, "fail", prev=HOUR + 2_000), "c")
    with lab.database.writer.connect() as connection, connection.begin() as transaction:
        lab.journal.record_in(connection, [bad], HOUR + 3_300)
        transaction.rollback()
    lab.journal.record([bad], HOUR + 3_400)
    assert excerpts(lab) == "abc"


def test_a_result_without_evidence_leaves_none(database: Database) -> None:
    lab = Lab(database, [member()])
    lab.feed(*series(lab.ids[0], "pff"))
    assert lab.rows(evidence) == []


def test_what_a_probe_remembers_is_put_replaced_and_forgotten(database: Database) -> None:
    lab = Lab(database, [member("a"), member("b")])
    a, b = lab.ids

    def memories() -> dict[tuple[int, str], str]:
        return {(row["probe"], row["key"]): row["value"] for row in lab.rows(memory)}

    def remember(probe: int, slot: int, **values: Any) -> None:
        lab.journal.record([report(result(probe, slot), **values)], slot)

    remember(a, SLOT, era=1, seen={"x": 2})
    remember(b, SLOT, era=3)
    assert memories() == {(a, "era"): "1", (a, "seen"): '{"x":2}', (b, "era"): "3"}
    remember(a, SLOT + EVERY, era=4, seen=None)
    assert memories() == {(a, "era"): "4", (b, "era"): "3"}
    remember(a, SLOT + EVERY, era=5)
    assert memories()[a, "era"] == "4", "a duplicate remembers nothing"


def test_outcomes_are_stored_as_their_words(database: Database) -> None:
    lab = Lab(database, [member()])
    lab.record(*series(lab.ids[0], "pfem", every=1_000))
    assert [row["outcome"] for row in lab.rows(results)] == [str(o) for o in Outcome]
