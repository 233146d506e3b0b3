"""The property that the heart stands on: replaying what is stored gives the incidents that live running gave."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.builders import failed_job, healthy_job, make_listings
from tests.support.store import INTERVAL_MS, LOCATION, START_AT, DatabasePair, StoreHarness, make_registered_probe
from watchdog.domain.model import IncidentEvent, IncidentTransition, Outcome, RecordedResult, ReportedTask, Result
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.rules import AlertPolicy, AlertStates, UptimeClock, stale
from watchdog.domain.rules.engine import apply_finding, apply_result
from watchdog.store.listings import read_results
from watchdog.store.tables import RESULT_COLUMNS, evaluation_cursors, incidents, outbox, results, staleness_events

COMMON: Any = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": False}
SQLITE = settings(max_examples=100, **COMMON)
TWICE = settings(max_examples=40, **COMMON)
POSTGRES = settings(max_examples=20, **COMMON)

JOBS = [healthy_job("a", START_AT), failed_job("a", "boom"), healthy_job("b", START_AT), failed_job("c")]


@dataclass(frozen=True)
class Case:
    """A generated history: when each result arrives, some twice, some late, some never; and when we stood still."""

    member: RegisteredProbe
    arrivals: list[tuple[int, Result]]
    seed: int
    gaps: list[tuple[int, int]] = field(default_factory=list)

    def known(self, now: int) -> UptimeClock:
        """Our own time, as far as it is known by then: a gap is found once it is over."""
        return UptimeClock(gap for gap in self.gaps if gap[1] <= now)


@st.composite
def pauses(draw: st.DrawFn) -> list[tuple[int, int]]:
    """When we stood still, one after the other."""
    gaps: list[tuple[int, int]] = []
    start = START_AT
    for _ in range(draw(st.integers(0, 2))):
        start += draw(st.integers(1, 10 * INTERVAL_MS))
        gaps.append((start, stop := start + draw(st.sampled_from([6_000, 50_000, 400_000, 3_600_000]))))
        start = stop + 1_000
    return gaps


@st.composite
def cases(draw: st.DrawFn) -> Case:
    limits = draw(st.sampled_from([{}, {"a": 10_000, "*": 10_000}]))
    lateness = draw(st.sampled_from([40_000, 100_000, 200_000]))
    probe = make_registered_probe(
        failure_threshold=draw(st.integers(1, 3)),
        success_threshold=draw(st.integers(1, 3)),
        lateness_ms=lateness,
        task_limits=limits,
        staleness_threshold=draw(st.sampled_from([lateness + 20_000, 420_000])),
    )
    gaps = draw(pauses())
    alive = UptimeClock(gaps)
    arrivals: list[tuple[int, Result]] = []
    prev = None
    for k in range(1, draw(st.integers(5, 25))):
        slot = START_AT + k * INTERVAL_MS
        if alive.gap_at(slot):
            continue
        outcome = draw(
            st.sampled_from([Outcome.PASS, Outcome.PASS, Outcome.FAIL, Outcome.FAIL, Outcome.ERROR, None, None])
        )
        before, prev = prev, slot
        if outcome is None:  # killed: a sweep records it once its lateness has passed, or never
            if draw(st.booleans()):
                lost = Result(1, slot, LOCATION, Outcome.MISSED, "missed.result_lost")
                arrivals.append((alive.deadline_after(slot, lateness + draw(st.integers(0, 2 * INTERVAL_MS))), lost))
            continue
        tasks = None
        if limits and outcome is not Outcome.ERROR:
            tasks = {n: ReportedTask(draw(st.booleans()), slot - 5_000) for n in draw(st.sampled_from(["ab", "a", ""]))}
        preferences = draw(st.sampled_from([None, {"x": ""}, {"x": "x is false"}])) if outcome is Outcome.PASS else None
        jobs = draw(st.none() | st.lists(st.sampled_from(JOBS), unique_by=lambda facts: facts.name))
        if outcome is Outcome.ERROR:
            jobs = None
        listings = make_listings(slot, tasks, preferences, jobs)
        reason = draw(st.sampled_from(["mcp.tool_error", "http.status"])) if outcome is not Outcome.PASS else ""
        seen = Result(1, slot, LOCATION, outcome, reason, "x", 100, listings=listings, previous_slot=before)
        at = alive.deadline_after(slot, draw(st.integers(0, int(lateness * 1.2))))  # some are too late to be judged
        arrivals += [(at, seen)] + [(at + draw(st.integers(0, 2 * INTERVAL_MS)), seen)] * draw(st.integers(0, 1))
    arrivals.sort(key=lambda arrival: arrival[0])
    return Case(probe, arrivals, draw(st.integers(0, 2**30)), gaps)


def drive(
    on: DatabasePair, case: Case, *, skew: int = 0, crashes: bool = True, together: int = 4
) -> tuple[StoreHarness, list[IncidentTransition], int]:
    """Feed a history to two processes in turn, with crashes inside transactions, wakes, gaps and another clock."""
    rnd = random.Random(case.seed)
    first = StoreHarness(on.first, [case.member]).without_downtime()
    labs = [first, StoreHarness(on.second, [case.member], create_schema=False).without_downtime()]
    out: list[IncidentTransition] = []
    todo = [(at, result._replace(probe=first.database_ids[0])) for at, result in case.arrivals]
    while todo:
        n = rnd.randint(1, together)
        chunk, todo = todo[:n], todo[n:]
        which = rnd.randrange(2)
        now = chunk[-1][0] + (skew if which else 0)
        lab, reports = labs[which], [RecordedResult(result) for _, result in chunk]
        first.watermark.uptime_clock = labs[1].watermark.uptime_clock = case.known(chunk[-1][0])
        if crashes and rnd.random() < 0.2:  # nothing of a transaction that did not commit may remain
            with lab.database.writer.connect() as connection:
                transaction = connection.begin()
                lab.recorder.record_results_in_transaction(connection, reports, now)
                transaction.rollback()
        out += lab.recorder.record_results(reports, now)
        if rnd.random() < 0.3:
            first.advance_watermark(now)
            out += labs[rnd.randrange(2)].recorder.evaluate_deadlines(now)[1]
    last = max([START_AT, *[at for at, _ in case.arrivals[-1:]], *[stop for _, stop in case.gaps]])
    end = last + case.member.policy.max_lateness + max(skew, 0) + 1
    first.watermark.uptime_clock = case.known(end)
    first.advance_watermark(end)
    out += first.recorder.evaluate_deadlines(end)[1]
    return first, out, end


def oracle(lab: StoreHarness, policy: AlertPolicy) -> tuple[AlertStates, list[IncidentTransition]]:
    """The judged rows by slot, without holds, cursors or deadlines: what the fold has to come to."""
    with lab.database.read_transaction() as connection:
        judged = sa.select(*RESULT_COLUMNS).where(~results.c.late).order_by(results.c.slot)
        rows = {result.slot: result for result in read_results(connection, connection.execute(judged).all())}
        lapsed = {
            slot + 0.5: silence
            for slot, silence in connection.execute(
                sa.select(staleness_events.c.last_result_slot, staleness_events.c.threshold_ms)
            )
        }
    machines: AlertStates = {}
    out: list[IncidentTransition] = []
    for at in sorted({*rows, *lapsed}):
        if at in lapsed:
            apply_finding(policy, machines, int(at), stale.stale_finding(lapsed[at]), out)
        else:
            apply_result(policy, machines, rows[int(at)], out)
    return machines, out


def by_finding(changes: list[IncidentTransition]) -> list[IncidentTransition]:
    return sorted(changes, key=lambda change: (change.rule, change.subject))


def check(on: DatabasePair, case: Case, skew: int) -> None:
    lab, live, end = drive(on, case, skew=skew)
    probe = lab.database_ids[0]
    machines, replayed = lab.recorder.replay_probe(probe, end)
    assert lab.load_alert_states(probe) == machines
    assert by_finding(live) == by_finding(replayed)
    plain = oracle(lab, lab.registry[probe].policy)
    assert (plain[0], by_finding(plain[1])) == (machines, by_finding(replayed))
    assert [row["awaiting_slot"] for row in lab.select_rows(evaluation_cursors)] == [False], (
        "nothing is awaited for ever"
    )
    opened = [change for change in replayed if change.event is IncidentEvent.OPENED]
    assert {row["id"] for row in lab.select_rows(incidents)} == {change.incident for change in opened}
    assert len(lab.select_rows(outbox)) == 2 * len(replayed), "two destinations hear of every change, once"
    open_now: dict[tuple[str, str], str] = {}
    for change in live:
        key = (change.rule, change.subject)
        if change.event is IncidentEvent.OPENED:
            assert key not in open_now
            open_now[key] = change.incident
        else:
            assert open_now.pop(key) == change.incident


skews = st.sampled_from([0, 0, 5_000, -20_000, 70_000])


@SQLITE
@given(cases(), skews)
def test_live_is_replay_on_sqlite(on_sqlite: DatabasePair, case: Case, skew: int) -> None:
    check(on_sqlite, case, skew)


@POSTGRES
@given(cases(), skews)
def test_live_is_replay_on_postgres(on_postgres: DatabasePair, case: Case, skew: int) -> None:
    check(on_postgres, case, skew)


@TWICE
@given(cases(), st.integers(0, 2**30))
def test_the_order_of_arrival_does_not_matter_within_lateness(on_sqlite: DatabasePair, case: Case, seed: int) -> None:
    lateness = case.member.policy.max_lateness
    first: dict[int, tuple[int, Result]] = {}
    for at, seen in case.arrivals:
        first.setdefault(seen.slot, (at, seen))
    on_time = [(at, r) for at, r in first.values() if at < r.slot + lateness and r.outcome is not Outcome.MISSED]
    rnd = random.Random(seed)
    shuffled = [(r.slot + rnd.randrange(lateness - 1), r) for _, r in on_time]
    told = []
    for arrivals in (on_time, shuffled):
        ordered = Case(case.member, sorted(arrivals, key=lambda arrival: arrival[0]), case.seed)
        _, out, _ = drive(on_sqlite, ordered, crashes=False, together=1)
        told.append(by_finding([change for change in out if change.rule != stale.RULE_NAME]))
    assert told[0] == told[1]
