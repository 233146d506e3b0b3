"""Every run that started is in progress, ended or lost, in any order in which its check-ins arrive."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.domain.heartbeat import DUPLICATE_CHECK_IN_WINDOW_MS, CheckIn, CheckInKind, HeartbeatState, apply_check_in

MINUTE_MS = 60_000
START, OK, FAIL = CheckInKind.START, CheckInKind.OK, CheckInKind.FAIL
Run = tuple[int, int | None, CheckInKind]
"""Start, end (None: it is killed), and how it ends, in minutes. A run lasts at least a minute."""


@st.composite
def histories(draw: st.DrawFn, *, overlap: bool) -> list[Run]:
    """Runs in the order of their starts. Without `overlap` each ends before the next starts, or is killed."""
    starts = sorted(draw(st.sets(st.integers(0, 400), min_size=1, max_size=8)))
    runs = []
    for n, start in enumerate(starts):
        latest = starts[n + 1] - 1 if n + 1 < len(starts) and not overlap else start + 100
        end = draw(st.none() | st.integers(start + 1, latest)) if latest > start else None
        runs.append((start, end, draw(st.sampled_from([OK, FAIL]))))
    return runs


def check_ins_of(runs: Sequence[Run], *, with_ids: bool) -> list[CheckIn]:
    """In the order in which they happen."""
    check_ins = []
    for n, (start, end, kind) in enumerate(runs):
        run_id = f"run-{n}" if with_ids else ""
        check_ins.append(CheckIn(f"s{n}", start * MINUTE_MS, START, run_id))
        if end is not None:
            check_ins.append(CheckIn(f"e{n}", end * MINUTE_MS, kind, run_id, None, f"error of {n}"))
    return sorted(check_ins, key=lambda check_in: (check_in.occurred_at, check_in.id[0] == "s"))


def fold(check_ins: list[CheckIn]) -> HeartbeatState:
    state = HeartbeatState()
    for check_in in check_ins:
        state = apply_check_in(state, check_in).state
    assert HeartbeatState.from_json(json.loads(json.dumps(state.to_json()))) == state
    return state


def failures_since_success(runs: list[tuple[int, CheckInKind]]) -> int:
    """Of ends in order: instant and kind."""
    count = 0
    for _, kind in runs:
        count = 0 if kind is OK else count + 1
    return count


@given(histories(overlap=True), st.data())
@settings(deadline=None)
def test_with_ids_neither_order_nor_duplicates_matter(runs: list[Run], data: st.DataObject) -> None:
    check_ins = check_ins_of(runs, with_ids=True)
    arrivals = data.draw(st.permutations(check_ins))
    repeated = data.draw(st.lists(st.sampled_from(check_ins), max_size=5))
    late = [
        c._replace(occurred_at=c.occurred_at + data.draw(st.integers(0, DUPLICATE_CHECK_IN_WINDOW_MS)))
        for c in repeated
    ]
    expected, state = fold(check_ins), fold([*arrivals, *late])
    assert {start for _, start in state.open_runs} == {start * MINUTE_MS for start, end, _ in runs if end is None}
    assert {run[:3] for run in state.ended_runs} == {run[:3] for run in expected.ended_runs}
    names = ("last_ok", "last_end", "recent_failures", "older_failure_count", "lost_runs")
    assert [getattr(state, name) for name in names] == [getattr(expected, name) for name in names]
    ends = [end for _, end, _ in runs if end is not None]
    if len(ends) == len(set(ends)):
        assert state.error == expected.error
    now = 10_000 * MINUTE_MS
    assert state.classify_open_runs(lambda start: start, now, is_limited=True) == expected.classify_open_runs(
        lambda start: start, now, is_limited=True
    )


@given(histories(overlap=True))
@settings(deadline=None)
def test_with_ids_a_run_is_lost_once_a_later_one_has_ended(runs: list[Run]) -> None:
    state = fold(check_ins_of(runs, with_ids=True))
    newest_ended = max((start for start, end, _ in runs if end is not None), default=-1)
    never_ended = [start for start, end, _ in runs if end is None]
    divided = state.classify_open_runs(lambda start: start, 10_000 * MINUTE_MS, is_limited=True)
    assert list(divided.lost_starts) == [start * MINUTE_MS for start in never_ended if start < newest_ended]
    in_progress = [start * MINUTE_MS for start in never_ended if start > newest_ended]
    assert divided.running_since == min(in_progress, default=None)


@given(histories(overlap=False))
@settings(deadline=None)
def test_without_ids_every_run_that_was_killed_is_lost_at_the_next_start(runs: list[Run]) -> None:
    state = fold(check_ins_of(runs, with_ids=False))
    killed = [start for start, end, _ in runs[:-1] if end is None]
    assert [run.start for run in state.lost_runs] == [start * MINUTE_MS for start in killed]
    assert [start for _, start in state.open_runs] == [s * MINUTE_MS for s, end, _ in runs[-1:] if end is None]
    next_starts = {runs[n][0]: runs[n + 1][0] for n in range(len(runs) - 1)}
    ends = [
        (next_starts[start], FAIL) if end is None else (end, kind)
        for start, end, kind in runs
        if end is not None or start in next_starts
    ]
    assert state.consecutive_failure_count == failures_since_success(ends)


@given(histories(overlap=True))
@settings(deadline=None)
def test_without_ids_no_run_is_lost_for_good_if_every_start_has_an_end(runs: list[Run]) -> None:
    ended = [(start, start + 1 if end is None else end, kind) for start, end, kind in runs]
    check_ins = check_ins_of(ended, with_ids=False)
    state = fold(check_ins)
    assert (state.open_runs, state.lost_runs) == ((), ())
    in_order = sorted((c for c in check_ins if c.kind is not START), key=lambda c: c.occurred_at)
    assert state.last_end == in_order[-1].occurred_at
    ok_times = [c.occurred_at for c in in_order if c.kind is OK]
    assert state.last_ok == max(ok_times, default=None)
    assert state.consecutive_failure_count == sum(
        c.occurred_at > max(ok_times, default=-1) for c in in_order if c.kind is FAIL
    )


@given(histories(overlap=True), st.booleans(), st.data())
@settings(deadline=None)
def test_no_interleaving_leaves_more_runs_than_started(runs: list[Run], with_ids: bool, data: st.DataObject) -> None:
    check_ins = check_ins_of(runs, with_ids=with_ids)
    mixed = [c._replace(run_id=c.run_id if data.draw(st.booleans()) else "") for c in check_ins]
    state = fold(data.draw(st.permutations([*mixed, *mixed[:3]])))
    starts = sum(c.kind is START for c in (*mixed, *mixed[:3]))
    assert len(state.open_runs) + len(state.lost_runs) <= starts
    assert sum(not run_id for run_id, _ in state.open_runs) <= 1
    assert state.consecutive_failure_count <= len(mixed) + 3
    assert list(state.recent_failures) == sorted(state.recent_failures)
    assert all(failed_at > (state.last_ok or -1) for failed_at in state.recent_failures)
