"""Roll-ups of whole hours, and retention: nothing goes that is still needed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.store.lab import EVERY, T0, Lab, fleet_of, member, report, result
from watchdog.model import Report, Result
from watchdog.schedule import Interval
from watchdog.store import keep
from watchdog.store.database import Database
from watchdog.store.keep import HOUR, expire, roll_up
from watchdog.store.tables import evidence, gaps, incidents, lapses, outbox, results, rollups

H = (T0 // HOUR + 1) * HOUR
"""The first whole hour."""
DAY = 24 * HOUR
MINUTE = 60_000


def fill(lab: Lab, probe: int, start: int, outcomes: str, every: int = 10 * MINUTE) -> None:
    words = {"p": "pass", "f": "fail", "e": "error", "m": "missed"}
    made = [
        result(probe, start + i * every, words[o], duration=100 + i if o == "p" else None)
        for i, o in enumerate(outcomes) if o != "."
    ]  # fmt: skip
    lab.journal.record([report(r, "seen") for r in made], made[-1].slot)


def rolled(lab: Lab) -> dict[tuple[int, int], tuple[int | None, ...]]:
    """(probe, hour from H) -> passed, failed, unjudged, missed, sum and maximum of durations."""
    columns = ("passed", "failed", "unjudged", "missed", "duration_sum", "duration_max")
    return {(r["probe"], (r["hour"] - H) // HOUR): tuple(r[c] for c in columns) for r in lab.rows(rollups)}


def until_done(part: Callable[[], int]) -> int:
    done = 0
    for _ in range(50):
        n = part()
        done += n
        if not n:
            return done
    raise AssertionError("it comes to no end")


def drain(database: Database, settled: int) -> int:
    return until_done(lambda: roll_up(database, settled))


def clear_out(database: Database, now: int, results_for: int, rollups_for: int) -> int:
    return until_done(lambda: expire(database, now, results_for, rollups_for))


# ------------------------------------------------------------------------------------------------------------ roll-ups


def test_an_hour_is_summed_up_whole(database: Database) -> None:
    lab = Lab(database, [member("a"), member("b")]).without_gaps()
    a, b = lab.ids
    fill(lab, a, H, "ppfemp" + "pp....")
    fill(lab, b, H, "ffffff")
    lab.record(Result(b, H + 1, "local", result(b, H, "missed").outcome, "missed.skipped", n=41), now=H + HOUR)
    assert drain(database, H + HOUR) == 2
    assert rolled(lab)[a, 0] == (3, 1, 1, 1, 100 + 101 + 105, 105)
    assert rolled(lab)[b, 0] == (0, 6, 0, 41, 0, None)
    assert drain(database, H + 2 * HOUR - 1) == 0, "the next hour is not over"
    assert drain(database, H + 2 * HOUR) == 1
    assert rolled(lab)[a, 1] == (2, 0, 0, 0, 106 + 107, 107)


def test_summing_up_twice_changes_nothing(database: Database) -> None:
    lab = Lab(database, [member()]).without_gaps()
    fill(lab, lab.ids[0], H, "pppppp")
    drain(database, H + HOUR)
    before = rolled(lab)
    assert drain(database, H + HOUR) == 0
    assert rolled(lab) == before


def test_an_hour_waits_for_what_can_still_be_judged(database: Database) -> None:
    """After a standstill, what was in the air is recorded much later than its lateness on the wall."""
    lab = Lab(database, [member(schedule=Interval(MINUTE))], now=H)
    slot = H + HOUR - MINUTE
    lab.mark(slot - 10_000)
    lab.claim(slot - 1_000)  # those before it are too old
    assert [s.at for s in lab.claim(slot - 1_000)] == [slot]
    back = slot + 2 * HOUR
    assert drain(database, lab.claims.sweep(back)) == 0
    lab.record(result(lab.ids[0], slot, "fail"), now=back + 300)
    for now in (back + 1_000, back + 30_000, back + 60_000):
        lab.mark(now)
        drain(database, lab.claims.sweep(now))
    assert rolled(lab) == {(lab.ids[0], 0): (0, 1, 0, 58, 0, None)}


def test_hours_without_results_have_no_row(database: Database) -> None:
    lab = Lab(database, [member()]).without_gaps()
    fill(lab, lab.ids[0], H, "p.....")
    fill(lab, lab.ids[0], H + 5 * HOUR, "p.....")
    drain(database, H + 6 * HOUR)
    assert sorted(hour for _, hour in rolled(lab)) == [0, 5]


def test_hours_before_a_probe_came_back_are_summed_up_too(database: Database) -> None:
    lab = Lab(database, [member()]).without_gaps()
    fill(lab, lab.ids[0], H, "pp")
    Lab(database, [], now=H + 20 * MINUTE, new=False)
    back = Lab(database, [member()], now=H + 3 * HOUR, new=False).without_gaps()
    fill(back, lab.ids[0], H + 4 * HOUR, "p")
    drain(database, H + 5 * HOUR)
    assert sorted(hour for _, hour in rolled(lab)) == [0, 4]


def test_removed_probes_are_summed_up(database: Database) -> None:
    lab = Lab(database, [member()]).without_gaps()
    fill(lab, lab.ids[0], H, "pp")
    Lab(database, [], now=H + 20 * MINUTE, new=False)
    assert drain(database, H + HOUR) == 1


def test_many_probes_are_summed_up_in_parts(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "PROBES", 4)
    lab = Lab(database, fleet_of(10)).without_gaps()
    lab.record(*[result(p, H) for p in lab.ids])
    assert [roll_up(database, H + HOUR) for _ in range(4)] == [4, 4, 2, 0]
    assert len(rolled(lab)) == 10


# ----------------------------------------------------------------------------------------------------------- retention


def test_results_and_their_evidence_go_by_whole_hours_once_they_are_old(database: Database) -> None:
    lab = Lab(database, [member(after=99)]).without_gaps()
    fill(lab, lab.ids[0], H, "f" * 18)
    drain(database, H + 3 * HOUR)
    clear_out(database, H + 2 * HOUR - 1 + DAY, DAY, 90 * DAY)
    assert min(row["slot"] for row in lab.rows(results)) == H + HOUR
    assert min(row["slot"] for row in lab.rows(evidence)) == H + HOUR
    assert len(lab.rows(results)) == len(lab.rows(evidence)) == 12
    assert len(lab.rows(rollups)) == 3


def test_no_result_goes_that_is_not_summed_up(database: Database) -> None:
    lab = Lab(database, [member("a", after=99), member("b")]).without_gaps()
    for probe in lab.ids:
        fill(lab, probe, H, "p" * 12)
    assert clear_out(database, H + 90 * DAY, DAY, 900 * DAY) == 24, "their evidence only"
    assert len(lab.rows(results)) == 24
    drain(database, H + HOUR)
    clear_out(database, H + 90 * DAY, DAY, 900 * DAY)
    assert {row["slot"] >= H + HOUR for row in lab.rows(results)} == {True}
    assert len(lab.rows(results)) == 12


def test_what_is_old_goes_in_chunks(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "CHUNK", 10)
    lab = Lab(database, [member("a"), member("b")]).without_gaps()
    for probe in lab.ids:
        lab.journal.record([Report(result(probe, H + i * MINUTE)) for i in range(25)], H + HOUR)
    drain(database, H + HOUR)
    gone = [expire(database, H + 9 * DAY, DAY, 90 * DAY) for _ in range(6)]
    assert gone == [10, 10, 10, 10, 10, 0]
    assert lab.rows(results) == []


def test_roll_ups_go_when_they_are_old(database: Database) -> None:
    lab = Lab(database, [member()]).without_gaps()
    fill(lab, lab.ids[0], H, "p" * 12)
    drain(database, H + 2 * HOUR)
    clear_out(database, H + HOUR + 90 * DAY, DAY, 90 * DAY)
    assert sorted(hour for _, hour in rolled(lab)) == [1]
    clear_out(database, H + 900 * DAY, DAY, 90 * DAY)
    assert sorted(hour for _, hour in rolled(lab)) == [1], "it says how far the probe is summed up"


def test_what_an_incident_began_with_stays_as_long_as_the_incident(database: Database) -> None:
    lab = Lab(database, [member(after=2)]).without_gaps()
    probe = lab.ids[0]
    fill(lab, probe, H, "pffpp.", 1_000)
    fill(lab, probe, H + HOUR, "fff", 1_000)
    drain(database, H + 2 * HOUR)
    clear_out(database, H + 10 * DAY, DAY, 90 * DAY)
    first, last = [H + 1_000, H + HOUR], H + HOUR + 2_000
    assert [row["slot"] for row in lab.rows(evidence)] == first
    assert [row["slot"] for row in lab.rows(results)] == [*first, last]
    clear_out(database, H + 100 * DAY, DAY, 90 * DAY)
    assert [row["since"] for row in lab.rows(incidents)] == [H + HOUR], "it is still open"
    assert lab.rows(evidence) == []
    assert [row["slot"] for row in lab.rows(results)] == [last]
    assert drain(database, H + 100 * DAY) == 0, "what is left of it is not summed up again"


def test_incidents_go_with_all_that_was_told_of_them(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "CHUNK", 3)
    lab = Lab(database, fleet_of(4, after=1, recover=1)).without_gaps()
    lab.record(*[result(p, H, "fail") for p in lab.ids])
    lab.record(*[result(p, H + EVERY) for p in lab.ids[:3]])
    assert len(lab.rows(outbox)) == 14
    clear_out(database, H + EVERY + 90 * DAY, DAY, 90 * DAY)
    assert len(lab.rows(incidents)) == 4, "not yet"
    clear_out(database, H + 91 * DAY, DAY, 90 * DAY)
    (left,) = lab.rows(incidents)
    assert left["probe"] == lab.ids[3]
    assert {row["incident"] for row in lab.rows(outbox)} == {left["id"]}


def test_lapses_go_with_the_results_and_gaps_with_the_roll_ups(database: Database) -> None:
    lab = Lab(database, [member()])
    lab.timekeeper.beat(T0 + 10_000)
    lab.without_gaps().wake(T0 + HOUR)
    assert (len(lab.rows(lapses)), len(lab.rows(gaps))) == (1, 1)
    assert clear_out(database, T0 + DAY, DAY, 90 * DAY) == 0
    clear_out(database, T0 + DAY + 2 * HOUR, DAY, 90 * DAY)
    assert (len(lab.rows(lapses)), len(lab.rows(gaps))) == (0, 1)
    clear_out(database, T0 + 90 * DAY + 2 * HOUR, DAY, 90 * DAY)
    assert lab.rows(gaps) == []


def test_the_last_sign_of_life_stays_while_the_probe_is_configured(database: Database) -> None:
    """One that runs every other month has been silent for longer than results are kept, and nothing is wrong."""
    rare = member("rare", schedule=Interval(60 * DAY), silence=180 * DAY)
    lab = Lab(database, [rare, member("goes")]).without_gaps()
    a, b = lab.id("rare"), lab.id("goes")
    for i, outcome in enumerate(["pass", "fail", "pass", "missed"]):
        lab.record(*[result(probe, H + i * 60 * DAY, outcome) for probe in (a, b)])
    again = Lab(database, [rare], now=H + 170 * DAY, new=False).without_gaps()
    drain(database, H + 200 * DAY)
    clear_out(database, H + 250 * DAY, DAY, 900 * DAY)
    assert [(row["probe"], row["slot"] - H) for row in lab.rows(results)] == [(a, 120 * DAY), (a, 180 * DAY)]
    assert again.wake(H + 250 * DAY) == []


def test_a_probe_that_never_spoke_keeps_nothing(database: Database) -> None:
    lab = Lab(database, [member()]).without_gaps()
    lab.record(result(lab.ids[0], H, "missed"))
    drain(database, H + HOUR)
    clear_out(database, H + 9 * DAY, DAY, 90 * DAY)
    assert lab.rows(results) == []


def test_an_empty_database_is_kept(database: Database) -> None:
    Lab(database)
    assert (roll_up(database, H), expire(database, H, DAY, DAY)) == (0, 0)


def test_live_state_does_not_depend_on_what_is_old(database: Database) -> None:
    """An incident that has been open for longer than results are kept resolves as any other."""
    lab = Lab(database, [member(after=2)]).without_gaps()
    probe = lab.ids[0]
    (opened,) = lab.feed(result(probe, H, "fail"), result(probe, H + EVERY, "fail"))
    drain(database, H + HOUR)
    clear_out(database, H + 30 * DAY, DAY, 90 * DAY)
    late = H + 30 * DAY
    (change,) = lab.feed(result(probe, late), result(probe, late + EVERY))
    assert change.incident == opened.incident
