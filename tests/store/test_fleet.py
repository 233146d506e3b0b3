"""Probes come, change, go and come back; what the store makes of it."""

from __future__ import annotations

from dataclasses import replace
from threading import Barrier, Thread

import pytest

from tests.store.lab import EVERY, HERE, T0, Databases, Lab, empty, fleet_of, member, result, series
from watchdog.alerts import Routes
from watchdog.model import Event, Task
from watchdog.schedule import Cron, Interval
from watchdog.store.database import Database
from watchdog.store.fleet import Member, register
from watchdog.store.tables import cursors, findings, incidents, marks, outbox, probes, results, schedule

SLOT = T0 + EVERY
LATER = T0 + 30 * EVERY


def again(lab: Lab, *members: Member, now: int = LATER, routes: Routes | None = None) -> Lab:
    """The next start of the process, with another configuration."""
    return Lab(lab.database, members, now=now, routes=routes, new=False)


def test_ids_outlive_restarts(database: Database) -> None:
    first = Lab(database, [member("a"), member("b")])
    second = again(first, member("c"), member("b"), member("a"))
    assert [second.id("a"), second.id("b")] == [first.id("a"), first.id("b")]
    assert second.id("c") not in first.ids


def test_a_registered_probe_knows_its_id_everywhere(database: Database) -> None:
    lab = Lab(database, [member("a"), member("b")])
    assert all(m.info.id == id for id, m in lab.fleet.items())
    assert [lab.fleet[id].info.key for id in lab.ids] == ["a", "b"], "in the order of the configuration"


def test_a_restart_changes_nothing_but_what_is_told(database: Database) -> None:
    first = Lab(database, [member()])
    first.feed(*series(first.ids[0], "fff"))
    first.wake(T0 + 4 * EVERY)
    tables = (schedule, cursors, findings, incidents, outbox, marks)
    before = {table.name: first.rows(table) for table in tables}
    renamed = member()
    again(
        first,
        replace(renamed, policy=replace(renamed.policy, probe=replace(renamed.info, name="Other")), spec="new"),
        now=T0 + 4 * EVERY,
    )
    assert {table.name: first.rows(table) for table in tables} | {"cursors": None} == before | {"cursors": None}
    row = first.row(probes)
    assert (row["name"], row["spec"], row["created_at"], row["removed_at"]) == ("Other", "new", T0, None)


@pytest.mark.parametrize(
    ("plan", "next_due"),
    [
        (Interval(EVERY), SLOT),  # as before: what was due stays due
        (Interval(EVERY, 5_000), LATER + 5_000),
        (Interval(2 * EVERY), LATER + 2 * EVERY),
        (Cron("0 * * * *"), 1_700_002_800_000),
    ],
)
def test_a_changed_schedule_is_planned_anew(database: Database, plan: Interval | Cron, next_due: int) -> None:
    first = Lab(database, [member()])
    again(first, member(schedule=plan))
    assert first.row(schedule)["next_due"] == next_due


def test_a_changed_schedule_keeps_what_is_in_the_air(database: Database) -> None:
    first = Lab(database, [member()])
    first.claim(SLOT)
    again(first, member(schedule=Interval(EVERY, 5_000)))
    row = first.row(schedule)
    assert (row["last_slot"], row["flying"]) == (SLOT, f"[{SLOT}]")


def test_the_watermark_begins_with_the_first_start(database: Database) -> None:
    first = Lab(database, [member()])
    again(first, member())
    assert first.row(marks) == {"location": HERE, "through": T0}


# ------------------------------------------------------------------------------------------------------ probes that go


def test_what_a_removed_probe_left_open_is_resolved_and_told_to_whoever_was_told(database: Database) -> None:
    routes = Routes({"oncall": ("oncall/slack", "oncall/email")}, quiet=frozenset({"oncall/email"}))
    first = Lab(database, [member("goes", after=1), member("stays", after=1)], routes=routes)
    goes, stays = first.ids
    (opened, _) = first.record(result(goes, SLOT, "fail"), result(stays, SLOT, "fail"))
    others = Routes({"new": ("new/slack",)}, quiet=routes.quiet)
    second = again(first, member("stays", after=1), routes=others)
    row = second.row(incidents, incidents.c.id == opened.incident)
    assert (row["resolved_at"], row["resolved_slot"], row["resolution"]) == (LATER, LATER, "probe.removed")
    assert [r["probe"] for r in second.rows(incidents, incidents.c.resolved_at.is_(None))] == [stays]
    told = [(r["destination"], r["event"]) for r in second.rows(outbox, outbox.c.incident == opened.incident)]
    assert told == [("oncall/email", "opened"), ("oncall/slack", "opened"), ("oncall/slack", "resolved")]


def test_a_removed_probe_keeps_its_history_and_nothing_else(database: Database) -> None:
    first = Lab(database, [member("goes"), member("stays")])
    goes, stays = first.ids
    first.feed(*series(goes, "pff"), *series(stays, "pff"))
    second = again(first, member("stays"))
    assert second.ids == [stays]
    assert second.row(probes, probes.c.id == goes)["removed_at"] == LATER
    assert {row["probe"] for row in second.rows(results)} == {goes, stays}
    for table in (schedule, cursors, findings):
        assert {row["probe"] for row in second.rows(table)} == {stays}


def test_a_probe_that_went_is_resolved_once(database: Database) -> None:
    first = Lab(database, [member("goes", after=1)])
    first.record(result(first.ids[0], SLOT, "fail"))
    for now in (LATER, LATER + EVERY, LATER + 2 * EVERY):
        again(first, now=now)
    assert first.row(incidents)["resolved_at"] == LATER
    assert first.row(probes)["removed_at"] == LATER
    assert len(first.rows(outbox)) == 4


def test_more_probes_go_than_fit_into_one_step(database: Database) -> None:
    first = Lab(database, fleet_of(1_100, after=1))
    first.record(*[result(p, SLOT, "fail") for p in first.ids[:600]])
    again(first)
    assert first.rows(cursors) == first.rows(incidents, incidents.c.resolved_at.is_(None)) == []
    assert len(first.rows(incidents, incidents.c.resolution == "probe.removed")) == 600


def test_what_a_crash_left_of_a_removal_is_finished_by_the_next_start(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Lab(database, [member("goes", after=1)])
    first.record(result(first.ids[0], SLOT, "fail"))
    with monkeypatch.context() as patch:
        patch.setattr("watchdog.store.fleet._retire", lambda *_: None)  # killed before it got there
        again(first)
    assert first.row(incidents)["resolved_at"] is None
    second = again(first, member("goes", after=1), now=LATER + EVERY)
    row = first.row(incidents)
    assert (row["resolved_at"], row["resolution"]) == (LATER + EVERY, "probe.removed")
    assert second.live(second.ids[0]) == {}


# -------------------------------------------------------------------------------------------------- and that come back


def test_a_probe_that_comes_back_begins_anew(database: Database) -> None:
    first = Lab(database, [member("api", after=2)])
    probe = first.ids[0]
    first.feed(*series(probe, "pf"))
    again(first)
    lab = again(first, member("api", after=2), now=LATER + EVERY).without_gaps()
    assert lab.ids == [probe]
    row = lab.row(probes)
    assert (row["created_at"], row["removed_at"]) == (LATER + EVERY, None)
    assert lab.row(schedule)["next_due"] == LATER + 2 * EVERY
    assert lab.wake(LATER + EVERY) == [], "its former silence is nobody's fault"
    slots = LATER + 2 * EVERY, LATER + 3 * EVERY
    assert lab.record(result(probe, slots[0], "fail")) == [], "nor is its former failure the first of two"
    (change,) = lab.record(result(probe, slots[1], "fail"))
    assert (change.event, change.since) == (Event.OPENED, slots[0])
    assert lab.journal.replay(probe, slots[1] + 300) == (lab.live(probe), [change])


def test_results_of_its_former_life_are_late_for_a_probe_that_came_back(database: Database) -> None:
    first = Lab(database, [member("api", after=1)])
    again(first, now=SLOT + 1_000)
    lab = again(first, member("api", after=1), now=SLOT + 2_000)
    assert lab.record(result(first.ids[0], SLOT, "fail"), now=SLOT + 3_000) == []
    assert lab.row(results)["late"] is True


def test_a_probe_that_came_back_may_fall_silent(database: Database) -> None:
    first = Lab(database, [member("api")])
    probe = first.ids[0]
    first.feed(*series(probe, "pp"))
    again(first)
    lab = again(first, member("api"), now=LATER + EVERY).without_gaps()
    lab.wake(LATER + EVERY)
    (change,) = lab.wake(LATER + EVERY + 300_000)
    assert (change.rule, change.since) == ("stale", LATER + EVERY)
    assert lab.journal.replay(probe, LATER + EVERY + 300_000) == (lab.live(probe), [change])


def test_a_probe_of_another_kind_begins_anew(database: Database) -> None:
    """A task that failed in an MCP server: no HTTP answer could ever say that it is well again."""
    http = member("api", after=1)
    mcp = replace(http, policy=replace(http.policy, probe=replace(http.info, kind="mcp")))
    first = Lab(database, [mcp, member("other", after=1)], routes=Routes({"oncall": ("oncall/slack",)}))
    probe, other = first.id("api"), first.id("other")
    failed = {"sync": Task(ok=False)}
    first.record(result(probe, SLOT, tasks=failed), result(other, SLOT, "fail"))
    assert [row["rule"] for row in first.rows(findings, findings.c.probe == probe)] == ["task"]
    again(first, mcp, member("other", after=1), routes=first.routes)
    assert len(first.rows(incidents, incidents.c.resolved_at.is_(None))) == 2, "nothing changed"

    lab = again(first, http, member("other", after=1), now=LATER + 1_000, routes=first.routes).without_gaps()
    assert lab.id("api") == probe
    ended = lab.row(incidents, incidents.c.probe == probe)
    assert (ended["resolved_at"], ended["resolution"]) == (LATER + 1_000, "probe.removed")
    assert [r["event"] for r in lab.rows(outbox, outbox.c.incident == ended["id"])] == ["opened", "resolved"]
    assert lab.row(incidents, incidents.c.probe == other)["resolved_at"] is None
    row = lab.row(probes, probes.c.id == probe)
    assert (row["kind"], row["created_at"], row["removed_at"]) == ("http", LATER + 1_000, None)
    (change,) = lab.record(result(probe, LATER + EVERY, "fail"))
    assert (change.rule, change.since) == ("availability", LATER + EVERY)
    assert lab.journal.replay(probe, LATER + EVERY + 300) == (lab.live(probe), [change])


# ------------------------------------------------------------------------------------------------------------- at once


def test_two_processes_that_start_at_once_agree(databases: Databases) -> None:
    members = fleet_of(40)
    Lab(databases.first, [*members[:10], member("goes", after=1)])
    for _ in range(3):
        fleets: list[dict[int, Member]] = []
        meet = Barrier(2)

        def start(database: Database, meet: Barrier, fleets: list[dict[int, Member]]) -> None:
            meet.wait(30)
            fleets.append(register(database, members, LATER, HERE))

        threads = [Thread(target=start, args=(d, meet, fleets)) for d in (databases.first, databases.second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(fleets) == 2
        assert {id: m.info.key for id, m in fleets[0].items()} == {id: m.info.key for id, m in fleets[1].items()}
        assert len(fleets[0]) == 40
    lab = Lab(databases.first, members, new=False)
    assert len(lab.rows(probes)) == 41
    assert len(lab.rows(cursors)) == len(lab.rows(schedule)) == 40
    empty(databases.first)


def test_nothing_configured_is_fine(database: Database) -> None:
    lab = Lab(database, [])
    assert lab.fleet == {}
    assert lab.claim(SLOT) == []
    assert lab.journal.wake(SLOT) == (0, [])
