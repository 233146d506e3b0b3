"""What a job's check-ins add up to: which of its runs are under way, how the newest ended, how often it failed. Pure.

Check-ins may come twice and in any order: what counts is when each happened, by our own clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from watchdog.domain.model import Json

HEARTBEAT_STATE_KEY = "heartbeat"
"""Key of a `HeartbeatState` in the state of its probe."""
MAX_REMEMBERED_RUNS = 50
"""Runs under way, and runs that are over, that are remembered."""
MAX_REMEMBERED_FAILURES = 20
"""Failures in a row whose instants are remembered; of older ones the number."""
DUPLICATE_END_WINDOW_MS = 10_000
"""A run that ends twice within so many ms ended once: its sender did not get our answer."""
MAX_OUTPUT_CHARS, MAX_ERROR_CHARS = 4_000, 200
"""How many characters are kept of a job's output, and of why it failed; always the end."""


class CheckInKind(StrEnum):
    START = "start"
    OK = "ok"
    FAIL = "fail"
    LOG = "log"


class CheckIn(NamedTuple):
    """One word from a job."""

    id: str
    """Given when it came in: what is stored twice counts once."""
    occurred_at: int
    """When it happened: when it came in, less how long its sender says that it was on its way."""
    kind: CheckInKind
    run_id: str = ""
    """The sender's own word for the run that it is about; empty: it has none."""
    exit_code: int | None = None
    """The exit code, where one was given."""
    output: str = ""
    """The end of the job's output, untrusted."""


class HeartbeatState(NamedTuple):
    """All that is known of a job by its check-ins. Instants in ms since the epoch."""

    open_runs: tuple[tuple[str, int], ...] = ()
    """Under way: the run, empty when nobody named it, and when it began; by the latter."""
    ended_runs: tuple[tuple[str, int, bool], ...] = ()
    """Named runs that ended: the run, when, and whether well; newest last."""
    last_start: int | None = None
    last_end: int | None = None
    last_ok: int | None = None
    duration: int | None = None
    """Of the run that ended last; None: nobody said when it began."""
    recent_failures: tuple[int, ...] = ()
    """When the newest failures since the last good run were, in their order."""
    older_failure_count: int = 0
    """Failures in a row before those."""
    error: str = ""
    """What the newest of them said."""
    output: str = ""
    output_is_partial: bool = False
    """The output is of a run that has not ended."""

    @property
    def failure_count(self) -> int:
        return self.older_failure_count + len(self.recent_failures)

    def running_since(self, lost_after: int) -> int | None:
        """When the oldest run that is under way began. One that nobody ended is given up for lost once another run
        ended well more than `patience` ms after it began."""
        done = self.last_ok
        return min((begun for _, begun in self.open_runs if done is None or done - begun <= lost_after), default=None)

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
    state: HeartbeatState
    duration: int | None = None
    """How long the run took that this check-in ended."""


def apply_check_in(state: HeartbeatState, check_in: CheckIn) -> HeartbeatUpdate:
    """One more check-in."""
    if check_in.kind is CheckInKind.START:
        return HeartbeatUpdate(_apply_start(state, check_in))
    if check_in.kind is CheckInKind.LOG:
        return HeartbeatUpdate(
            state._replace(output=check_in.output[-MAX_OUTPUT_CHARS:], output_is_partial=True)
            if check_in.output
            else state
        )
    return _apply_end(state, check_in)


def _apply_start(state: HeartbeatState, check_in: CheckIn) -> HeartbeatState:
    if check_in.run_id and any(run == check_in.run_id for run, _ in state.open_runs):
        return state
    end = _find_run_end(state, check_in)
    if end is not None:
        if end == state.last_end and state.duration is None:
            state = state._replace(duration=end - check_in.occurred_at)
        return state
    runs = sorted((*state.open_runs, (check_in.run_id, check_in.occurred_at)), key=lambda run: run[1])
    return state._replace(
        open_runs=tuple(runs[-MAX_REMEMBERED_RUNS:]), last_start=_latest(state.last_start, check_in.occurred_at)
    )


def _find_run_end(state: HeartbeatState, start: CheckIn) -> int | None:
    """When the run ended of which only now we hear that it began; None: it is under way."""
    if start.run_id:
        ends = [end for run, end, _ in state.ended_runs if run == start.run_id and end >= start.occurred_at]
        return ends[0] if ends else None
    return state.last_end if state.last_end is not None and state.last_end > start.occurred_at else None


def _apply_end(state: HeartbeatState, check_in: CheckIn) -> HeartbeatUpdate:
    good = check_in.kind is CheckInKind.OK
    if check_in.run_id and any(
        o[0] == check_in.run_id and o[2] is good and abs(o[1] - check_in.occurred_at) <= DUPLICATE_END_WINDOW_MS
        for o in state.ended_runs
    ):
        return HeartbeatUpdate(state)
    begun, rest = _close_runs(state, check_in)
    duration = None if begun is None else max(check_in.occurred_at - begun, 0)
    if check_in.run_id:
        over = sorted((*state.ended_runs, (check_in.run_id, check_in.occurred_at, good)), key=lambda end: end[1])
        state = state._replace(ended_runs=tuple(over[-MAX_REMEMBERED_RUNS:]))
    if state.last_end is None or check_in.occurred_at >= state.last_end:
        output = check_in.output[-MAX_OUTPUT_CHARS:] or (state.output if state.output_is_partial else "")
        state = state._replace(last_end=check_in.occurred_at, duration=duration, output=output, output_is_partial=False)
    state = state._replace(
        open_runs=rest, last_start=_latest(state.last_start, check_in.occurred_at if begun is None else begun)
    )
    return HeartbeatUpdate(
        _record_success(state, check_in.occurred_at) if good else _record_failure(state, check_in), duration
    )


def _close_runs(state: HeartbeatState, check_in: CheckIn) -> tuple[int | None, tuple[tuple[str, int], ...]]:
    """When the run began that ends here, and the runs that go on.

    Without a name it ends every run that has none: those before the newest were cut off without a word, or each crash
    would leave one behind for ever. Where all have names, it ends the oldest.
    """
    ends = [
        run
        for run in state.open_runs
        if run[0] == check_in.run_id and (check_in.run_id or run[1] <= check_in.occurred_at)
    ]
    if not ends and not check_in.run_id:
        ends = [run for run in state.open_runs if run[1] <= check_in.occurred_at][:1]
    return (ends[-1][1] if ends else None), tuple(run for run in state.open_runs if run not in ends)


def _record_success(state: HeartbeatState, at: int) -> HeartbeatState:
    failed = tuple(one for one in state.recent_failures if one > at)
    older = state.older_failure_count if failed == state.recent_failures else 0
    error = state.error if failed else ""
    return state._replace(
        last_ok=_latest(state.last_ok, at), recent_failures=failed, older_failure_count=older, error=error
    )


def _record_failure(state: HeartbeatState, check_in: CheckIn) -> HeartbeatState:
    if state.last_ok is not None and check_in.occurred_at <= state.last_ok:
        return state
    failed = sorted((*state.recent_failures, check_in.occurred_at))
    error = _failure_message(check_in) if failed[-1] == check_in.occurred_at else state.error
    older = state.older_failure_count + max(len(failed) - MAX_REMEMBERED_FAILURES, 0)
    return state._replace(
        recent_failures=tuple(failed[-MAX_REMEMBERED_FAILURES:]), older_failure_count=older, error=error
    )


def _failure_message(check_in: CheckIn) -> str:
    """ "exit code 3: No space left on device": the last line of what the job said is why, mostly."""
    lines = [line.strip() for line in check_in.output.splitlines() if line.strip()]
    code = f"exit code {check_in.exit_code}" if check_in.exit_code is not None else ""
    return ": ".join(part for part in (code, *(line[:MAX_ERROR_CHARS] for line in lines[-1:])) if part)


def _latest(current: int | None, candidate: int) -> int:
    return candidate if current is None else max(current, candidate)
