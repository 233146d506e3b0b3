"""What the check-ins of a job add up to: runs in progress, how the newest run ended, failures in a row. Pure.

Check-ins may arrive twice and in any order. They are applied one by one as they arrive; what counts is when each
happened, by Watchdog's own clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from watchdog.domain.model import Json

HEARTBEAT_STATE_KEY = "heartbeat"
"""Key of a `HeartbeatState` in the state of its probe."""
MAX_REMEMBERED_RUNS = 50
"""Runs in progress, and ended runs, that are remembered."""
MAX_REMEMBERED_FAILURES = 20
"""Failures in a row whose instants are remembered. Older ones are only counted."""
DUPLICATE_END_WINDOW_MS = 10_000
"""A second end of the same run within this time is a retry of the sender, which did not receive the response."""
MAX_OUTPUT_CHARS, MAX_ERROR_CHARS = 4_000, 200
"""How much is kept of a job's output, and of the error line in it: the last characters, and the first."""


class CheckInKind(StrEnum):
    """What a job reports: that a run started, succeeded or failed, or the output of a run in progress."""

    START = "start"
    OK = "ok"
    FAIL = "fail"
    LOG = "log"


class CheckIn(NamedTuple):
    """One message of a job about one of its runs."""

    id: str
    """Assigned when it was received, so that a check-in that is stored twice counts once."""
    occurred_at: int
    """When it happened: the instant of receipt, less the age that the sender states."""
    kind: CheckInKind
    run_id: str = ""
    """The sender's id for the run; empty: it has none."""
    exit_code: int | None = None
    output: str = ""
    """The end of the job's output, untrusted."""


class HeartbeatState(NamedTuple):
    """Everything that the check-ins of a job have shown so far. Instants in ms since the epoch."""

    open_runs: tuple[tuple[str, int], ...] = ()
    """Runs in progress: id (may be empty) and start, ordered by start."""
    ended_runs: tuple[tuple[str, int, bool], ...] = ()
    """Ended runs with an id: id, end, and whether it succeeded; newest last."""
    last_start: int | None = None
    last_end: int | None = None
    last_ok: int | None = None
    duration: int | None = None
    """Of the run that ended last; None: its start is not known."""
    recent_failures: tuple[int, ...] = ()
    """Instants of the newest failures since the last success, oldest first."""
    older_failure_count: int = 0
    """Failures in a row before those."""
    error: str = ""
    """Of the newest failure."""
    output: str = ""
    output_is_partial: bool = False
    """The output belongs to a run that has not ended."""

    @property
    def failure_count(self) -> int:
        return self.older_failure_count + len(self.recent_failures)

    def running_since(self, lost_after: int) -> int | None:
        """When the oldest run in progress started. A run whose end never arrived is given up as lost once another run
        has succeeded more than `lost_after` ms after its start."""
        ok = self.last_ok
        return min((start for _, start in self.open_runs if ok is None or ok - start <= lost_after), default=None)

    def to_json(self) -> Json:
        return self._asdict()

    @classmethod
    def from_json(cls, stored: Mapping[str, Json] | None) -> HeartbeatState:
        """Fields that this version does not know are ignored."""
        values = {name: value for name, value in (stored or {}).items() if name in cls._fields}
        for name in ("open_runs", "ended_runs"):
            values[name] = tuple(tuple(run) for run in values.get(name, ()))
        return cls(**{**values, "recent_failures": tuple(values.get("recent_failures", ()))})


class HeartbeatUpdate(NamedTuple):
    """The state after a check-in."""

    state: HeartbeatState
    duration: int | None = None
    """Of the run that the check-in ended."""


def apply_check_in(state: HeartbeatState, check_in: CheckIn) -> HeartbeatUpdate:
    """Folds one check-in, which may be late or repeat another. `state` is not changed."""
    if check_in.kind is CheckInKind.START:
        return HeartbeatUpdate(_apply_start(state, check_in))
    if check_in.kind is CheckInKind.LOG:
        output = check_in.output[-MAX_OUTPUT_CHARS:]
        return HeartbeatUpdate(state._replace(output=output, output_is_partial=True) if output else state)
    return _apply_end(state, check_in)


def _apply_start(state: HeartbeatState, check_in: CheckIn) -> HeartbeatState:
    start = check_in.occurred_at
    if check_in.run_id and any(run_id == check_in.run_id for run_id, _ in state.open_runs):
        return state
    end = _find_run_end(state, check_in)
    if end is not None:
        if end == state.last_end and state.duration is None:
            state = state._replace(duration=end - start)
        return state
    runs = sorted((*state.open_runs, (check_in.run_id, start)), key=lambda run: run[1])
    return state._replace(open_runs=tuple(runs[-MAX_REMEMBERED_RUNS:]), last_start=_latest(state.last_start, start))


def _find_run_end(state: HeartbeatState, start: CheckIn) -> int | None:
    """The end of the run whose start arrives only now, after its end; None: the run is in progress."""
    if start.run_id:
        ends = [end for run_id, end, _ in state.ended_runs if run_id == start.run_id and end >= start.occurred_at]
        return ends[0] if ends else None
    return state.last_end if state.last_end is not None and state.last_end > start.occurred_at else None


def _apply_end(state: HeartbeatState, check_in: CheckIn) -> HeartbeatUpdate:
    succeeded, end = check_in.kind is CheckInKind.OK, check_in.occurred_at
    if _is_repeated_end(state, check_in):
        return HeartbeatUpdate(state)
    start, still_open = _close_runs(state, check_in)
    duration = None if start is None else max(end - start, 0)
    if check_in.run_id:
        ended = sorted((*state.ended_runs, (check_in.run_id, end, succeeded)), key=lambda run: run[1])
        state = state._replace(ended_runs=tuple(ended[-MAX_REMEMBERED_RUNS:]))
    if state.last_end is None or end >= state.last_end:
        output = check_in.output[-MAX_OUTPUT_CHARS:] or (state.output if state.output_is_partial else "")
        state = state._replace(last_end=end, duration=duration, output=output, output_is_partial=False)
    last_start = _latest(state.last_start, end if start is None else start)
    state = state._replace(open_runs=still_open, last_start=last_start)
    return HeartbeatUpdate(_record_success(state, end) if succeeded else _record_failure(state, check_in), duration)


def _is_repeated_end(state: HeartbeatState, check_in: CheckIn) -> bool:
    succeeded = check_in.kind is CheckInKind.OK
    return bool(check_in.run_id) and any(
        run_id == check_in.run_id
        and run_succeeded is succeeded
        and abs(end - check_in.occurred_at) <= DUPLICATE_END_WINDOW_MS
        for run_id, end, run_succeeded in state.ended_runs
    )


def _close_runs(state: HeartbeatState, check_in: CheckIn) -> tuple[int | None, tuple[tuple[str, int], ...]]:
    """When the run started that ends here, and the runs that stay open.

    An end without an id closes every open run without one: the newest is the run that ends, and those before it were
    cut off silently. If they stayed open, each crash would leave one that never ends. If all open runs have ids, it
    closes the oldest.
    """
    closed = [
        run
        for run in state.open_runs
        if run[0] == check_in.run_id and (check_in.run_id or run[1] <= check_in.occurred_at)
    ]
    if not closed and not check_in.run_id:
        closed = [run for run in state.open_runs if run[1] <= check_in.occurred_at][:1]
    return (closed[-1][1] if closed else None), tuple(run for run in state.open_runs if run not in closed)


def _record_success(state: HeartbeatState, at: int) -> HeartbeatState:
    later_failures = tuple(failed_at for failed_at in state.recent_failures if failed_at > at)
    return state._replace(
        last_ok=_latest(state.last_ok, at),
        recent_failures=later_failures,
        # The instants of older failures are gone. They stay in the count only if this success clears no recent one.
        older_failure_count=state.older_failure_count if later_failures == state.recent_failures else 0,
        error=state.error if later_failures else "",
    )


def _record_failure(state: HeartbeatState, check_in: CheckIn) -> HeartbeatState:
    if state.last_ok is not None and check_in.occurred_at <= state.last_ok:
        return state
    failures = sorted((*state.recent_failures, check_in.occurred_at))
    return state._replace(
        recent_failures=tuple(failures[-MAX_REMEMBERED_FAILURES:]),
        older_failure_count=state.older_failure_count + max(len(failures) - MAX_REMEMBERED_FAILURES, 0),
        error=_failure_message(check_in) if failures[-1] == check_in.occurred_at else state.error,
    )


def _failure_message(check_in: CheckIn) -> str:
    """ "exit code 3: No space left on device": the last line of a job's output is usually why it failed."""
    lines = [line.strip() for line in check_in.output.splitlines() if line.strip()]
    code = f"exit code {check_in.exit_code}" if check_in.exit_code is not None else ""
    return ": ".join(part for part in (code, *(line[:MAX_ERROR_CHARS] for line in lines[-1:])) if part)


def _latest(current: int | None, candidate: int) -> int:
    return candidate if current is None else max(current, candidate)
