"""What the check-ins of a job add up to: runs in progress, how the newest run ended, failures in a row. Pure.

Check-ins may arrive twice and in any order. They are applied one by one as they arrive; what counts is when each
happened, by Watchdog's own clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple

from watchdog.domain.model import Json

HEARTBEAT_PROBE_KIND = "heartbeat"
HEARTBEAT_STATE_KEY = "heartbeat"
"""Key of a `HeartbeatState` in the state of its probe."""
MAX_REMEMBERED_HEARTBEAT_RUNS = 50
"""Runs in progress, ended runs and lost runs that are remembered, of each the newest."""
HEARTBEAT_STARTS_TO_FIND_USUAL_DELAY = 3
"""They show whether a job is always late by the same time, as it is if its time zone is wrong."""
SIGNAL_NAME_BY_EXIT_CODE = {
    129: "SIGHUP", 130: "SIGINT", 131: "SIGQUIT", 134: "SIGABRT", 137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM",
}  # fmt: skip
"""What ended a command, by the exit code that shells and `watchdog exec` report for it: 128 and the signal's number."""
MAX_REMEMBERED_HEARTBEAT_FAILURES = 20
"""Failures in a row whose instants are remembered. Older ones are only counted."""
DUPLICATE_CHECK_IN_WINDOW_MS = 10_000
"""A second start or end with the same run id within this time is a retry of the sender, which did not receive the
response."""
MAX_CHECK_IN_VISIBILITY_DELAY_MS = 2_000
"""A run of a heartbeat knows every check-in that was received this long before its slot: runs are claimed a second
early, and what was received is stored every half second."""
MAX_HEARTBEAT_OUTPUT_CHARS, MAX_HEARTBEAT_ERROR_CHARS = 4_000, 200
"""How much is kept of a job's output, and of the error line in it: the last characters, and the first."""


class CheckInKind(StrEnum):
    """What a job reports: that a run started, succeeded or failed, or the output of a run in progress. A check-in that
    was not understood is kept as rejected, and is no evidence about the job."""

    START = "start"
    OK = "ok"
    FAIL = "fail"
    LOG = "log"
    REJECTED = "rejected"


CHECK_IN_KINDS_ABOUT_RUNS = (CheckInKind.START, CheckInKind.OK, CheckInKind.FAIL)
"""Those that report the start or the end of a run."""


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
    """The end of the job's output, untrusted; of a rejected check-in: what was sent, and why it was rejected."""


class ReceivedCheckIn(NamedTuple):
    """A check-in as it was received, before it has an id and its output is masked."""

    kind: CheckInKind
    occurred_at: int
    run_id: str = ""
    exit_code: int | None = None
    output: bytes = b""


class EndedHeartbeatRun(NamedTuple):
    """A run whose end was reported."""

    run_id: str
    """May be empty: of the runs without an id, only the one that started last is kept."""
    end: int
    succeeded: bool
    start: int | None = None
    """None: not known."""


class LostHeartbeatRun(NamedTuple):
    """A run that had not ended when the next one started, and has no id that differs from the id of the next one."""

    run_id: str
    start: int
    lost_at: int
    """When the next run started. It counts as a failure at this instant."""


class RunningAndLostHeartbeatRuns(NamedTuple):
    """The runs that have not ended, divided by whether an end is still expected."""

    running_since: int | None
    """When the oldest run in progress started."""
    lost_starts: tuple[int, ...]
    """When the runs started that are given up, oldest first."""


class HeartbeatState(NamedTuple):
    """Everything that the check-ins of a job have shown so far. Instants in ms since the epoch."""

    open_runs: tuple[tuple[str, int], ...] = ()
    """Runs that started and have not ended: id (may be empty) and start, ordered by start."""
    ended_runs: tuple[EndedHeartbeatRun, ...] = ()
    """Newest last."""
    lost_runs: tuple[LostHeartbeatRun, ...] = ()
    """Newest last."""
    last_start: int | None = None
    recent_starts: tuple[int, ...] = ()
    """Of the newest runs, oldest first."""
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
    last_rejected: int | None = None
    """When its newest check-in was not understood."""
    output: str = ""
    output_is_partial: bool = False
    """The output belongs to a run that has not ended."""

    @property
    def consecutive_failure_count(self) -> int:
        return self.older_failure_count + len(self.recent_failures)

    def classify_open_runs(
        self, deadline: Callable[[int], int], now: int, *, is_limited: bool
    ) -> RunningAndLostHeartbeatRuns:
        """Which of the runs that have not ended are lost at `now`, besides `lost_runs`. `deadline`: from the start of a
        run to the instant at which it should have ended. `is_limited`: whether runs have a limit of their own.

        A run with an id of its own is lost if its deadline has passed and a later run has ended. Where
        runs are not limited, so that none is ever stuck, it is enough that a later run has started and none has ended
        since this one started: otherwise a job whose runs are all killed would never be reported.
        """
        newest_ended = max(map(_find_latest_possible_start_of_ended_run, self.ended_runs), default=None)
        running: list[int] = []
        lost: list[int] = []
        for _, start in self.open_runs:
            silent = not is_limited and (self.last_end is None or self.last_end < start)
            later_ended = newest_ended is not None and start < newest_ended
            overtaken = later_ended or (start < self.open_runs[-1][1] and silent)
            (lost if overtaken and deadline(start) <= now else running).append(start)
        return RunningAndLostHeartbeatRuns(running[0] if running else None, tuple(lost))

    def cap_instants(self, latest: int) -> HeartbeatState:
        """The state after the clock was set back to `latest`: nothing happened later than that."""

        def cap_instant_at_latest(instant: int | None) -> int | None:
            return None if instant is None else min(instant, latest)

        return self._replace(
            open_runs=tuple((run_id, min(start, latest)) for run_id, start in self.open_runs),
            ended_runs=tuple(
                run._replace(start=cap_instant_at_latest(run.start), end=min(run.end, latest))
                for run in self.ended_runs
            ),
            lost_runs=tuple(
                run._replace(start=min(run.start, latest), lost_at=min(run.lost_at, latest)) for run in self.lost_runs
            ),
            recent_starts=tuple(min(start, latest) for start in self.recent_starts),
            recent_failures=tuple(min(failure, latest) for failure in self.recent_failures),
            last_start=cap_instant_at_latest(self.last_start),
            last_end=cap_instant_at_latest(self.last_end),
            last_ok=cap_instant_at_latest(self.last_ok),
            last_rejected=cap_instant_at_latest(self.last_rejected),
        )

    def to_json(self) -> Json:
        return self._asdict()

    @classmethod
    def from_json(cls, stored: Mapping[str, Json] | None) -> HeartbeatState:
        """Fields that this version does not know are ignored."""
        values = {name: value for name, value in (stored or {}).items() if name in cls._fields}
        values["open_runs"] = tuple((run_id, start) for run_id, start in values.get("open_runs", ()))
        values["ended_runs"] = tuple(EndedHeartbeatRun(*run) for run in values.get("ended_runs", ()))
        values["lost_runs"] = tuple(LostHeartbeatRun(*run) for run in values.get("lost_runs", ()))
        for name in ("recent_starts", "recent_failures"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)


class HeartbeatStateAfterCheckIn(NamedTuple):
    """The state after a check-in."""

    state: HeartbeatState
    duration: int | None = None
    """Of the run that the check-in ended."""


def apply_check_in(state: HeartbeatState, check_in: CheckIn) -> HeartbeatStateAfterCheckIn:
    """Folds one check-in, which may be late or repeat another. `state` is not changed."""
    if check_in.kind is CheckInKind.REJECTED:
        return HeartbeatStateAfterCheckIn(
            state._replace(last_rejected=_pick_later_timestamp(state.last_rejected, check_in.occurred_at))
        )
    if check_in.kind is CheckInKind.START:
        return HeartbeatStateAfterCheckIn(_apply_start_check_in(state, check_in))
    if check_in.kind is CheckInKind.LOG:
        output = check_in.output[-MAX_HEARTBEAT_OUTPUT_CHARS:]
        return HeartbeatStateAfterCheckIn(state._replace(output=output, output_is_partial=True) if output else state)
    return _apply_end_check_in(state, check_in)


def _apply_start_check_in(state: HeartbeatState, check_in: CheckIn) -> HeartbeatState:
    run_id, start = check_in.run_id, check_in.occurred_at
    known_starts = [*state.open_runs, *((run.run_id, run.start) for run in state.lost_runs)]
    if run_id and any(
        id == run_id and abs(other - start) <= DUPLICATE_CHECK_IN_WINDOW_MS for id, other in known_starts
    ):
        return state
    ended = _find_ended_run_of_delayed_start_check_in(state, check_in)
    if ended is not None:
        if ended.end == state.last_end and state.duration is None:
            state = state._replace(duration=ended.end - start)
        ended_runs = (run._replace(start=start) if run == ended else run for run in state.ended_runs)
        return state._replace(ended_runs=tuple(ended_runs))
    open_runs = tuple(sorted((*state.open_runs, (run_id, start)), key=lambda run: run[1]))
    return _move_superseded_heartbeat_runs_to_lost(
        _remember_heartbeat_start(state._replace(open_runs=open_runs), start)
    )


def _remember_heartbeat_start(state: HeartbeatState, start: int) -> HeartbeatState:
    starts = sorted({*state.recent_starts, start})[-HEARTBEAT_STARTS_TO_FIND_USUAL_DELAY:]
    return state._replace(last_start=starts[-1], recent_starts=tuple(starts))


def _find_ended_run_of_delayed_start_check_in(state: HeartbeatState, start: CheckIn) -> EndedHeartbeatRun | None:
    """The run whose start arrives only now, after its end; None: the run is in progress."""
    if start.run_id:
        ends = [run for run in state.ended_runs if run.run_id == start.run_id and run.end >= start.occurred_at]
        return ends[0] if ends else None
    if state.last_end is None or state.last_end <= start.occurred_at:
        return None
    return EndedHeartbeatRun("", state.last_end, succeeded=state.last_end == state.last_ok)


def _move_superseded_heartbeat_runs_to_lost(state: HeartbeatState) -> HeartbeatState:
    """A run without an id ends at the latest when the next run starts; a run with an id, when the next run with the
    same id starts. If they stayed open, each crash would leave one that never ends."""
    still_open: list[tuple[str, int]] = []
    lost: list[LostHeartbeatRun] = []
    for n, (run_id, start) in enumerate(state.open_runs):
        next_starts = [later for id, later in state.open_runs[n + 1 :] if not run_id or id == run_id]
        if next_starts:
            lost.append(LostHeartbeatRun(run_id, start, next_starts[0]))
        else:
            still_open.append((run_id, start))
    lost_runs = sorted((*state.lost_runs, *lost), key=lambda run: run.start)
    state = state._replace(
        open_runs=tuple(still_open[-MAX_REMEMBERED_HEARTBEAT_RUNS:]),
        lost_runs=tuple(lost_runs[-MAX_REMEMBERED_HEARTBEAT_RUNS:]),
    )
    for run in lost:
        state = _add_failure_to_heartbeat(state, run.lost_at)
    return state


def _apply_end_check_in(state: HeartbeatState, check_in: CheckIn) -> HeartbeatStateAfterCheckIn:
    succeeded, end = check_in.kind is CheckInKind.OK, check_in.occurred_at
    if _is_repeated_end_check_in(state, check_in):
        return HeartbeatStateAfterCheckIn(state)
    state, start, duration = _remove_ended_run_and_get_start_and_duration(state, check_in)
    state = _remember_ended_heartbeat_run(state, EndedHeartbeatRun(check_in.run_id, end, succeeded, start))
    if state.last_end is None or end >= state.last_end:
        output = check_in.output[-MAX_HEARTBEAT_OUTPUT_CHARS:] or (state.output if state.output_is_partial else "")
        state = state._replace(last_end=end, duration=duration, output=output, output_is_partial=False)
    state = _remember_heartbeat_start(state, end if start is None else start)
    state = (
        _record_heartbeat_success_and_clear_failures(state, end)
        if succeeded
        else _add_failure_to_heartbeat(state, end, _format_failed_check_in_message(check_in))
    )
    return HeartbeatStateAfterCheckIn(state, duration)


def _is_repeated_end_check_in(state: HeartbeatState, check_in: CheckIn) -> bool:
    succeeded = check_in.kind is CheckInKind.OK
    return bool(check_in.run_id) and any(
        run.run_id == check_in.run_id
        and run.succeeded is succeeded
        and abs(run.end - check_in.occurred_at) <= DUPLICATE_CHECK_IN_WINDOW_MS
        for run in state.ended_runs
    )


def _remove_ended_run_and_get_start_and_duration(
    state: HeartbeatState, check_in: CheckIn
) -> tuple[HeartbeatState, int | None, int | None]:
    """The state without the run that ends here, and its start and duration, as far as they are known.

    An end with an id ends its own run. An end without one ends the newest run still open, first of those without an id.
    If none is open, it takes back the newest run that was counted as lost: two runs overlapped. Which of the two ended
    first is not known, nor when the one that ends here started.
    """
    run_id, end = check_in.run_id, check_in.occurred_at
    started = [run for run in state.open_runs if run_id or run[1] <= end]
    closed = [run for run in started if run[0] == run_id] or ([] if run_id else started)
    if closed:
        open_runs = list(state.open_runs)
        open_runs.remove(closed[-1])
        start = closed[-1][1]
        return state._replace(open_runs=tuple(open_runs)), start, max(end - start, 0)
    lost = [run for run in state.lost_runs if run.run_id == run_id and run.start <= end]
    if not lost:
        return state, None, None
    lost_runs, failures = list(state.lost_runs), list(state.recent_failures)
    lost_runs.remove(lost[-1])
    if lost[-1].lost_at in failures:
        failures.remove(lost[-1].lost_at)
    state = state._replace(lost_runs=tuple(lost_runs), recent_failures=tuple(failures))
    return state, None, None


def _remember_ended_heartbeat_run(state: HeartbeatState, ended: EndedHeartbeatRun) -> HeartbeatState:
    others = list(state.ended_runs)
    if not ended.run_id:
        same = [run for run in others if not run.run_id]
        if same and _find_latest_possible_start_of_ended_run(same[0]) >= _find_latest_possible_start_of_ended_run(
            ended
        ):
            return state
        others = [run for run in others if run.run_id]
    runs = sorted((*others, ended), key=lambda run: run.end)
    return state._replace(ended_runs=tuple(runs[-MAX_REMEMBERED_HEARTBEAT_RUNS:]))


def _find_latest_possible_start_of_ended_run(run: EndedHeartbeatRun) -> int:
    """When a run started, at the latest."""
    return run.end if run.start is None else run.start


def _record_heartbeat_success_and_clear_failures(state: HeartbeatState, at: int) -> HeartbeatState:
    later_failures = tuple(failed_at for failed_at in state.recent_failures if failed_at > at)
    return state._replace(
        last_ok=_pick_later_timestamp(state.last_ok, at),
        recent_failures=later_failures,
        # The instants of older failures are gone. They stay in the count only if this success clears no recent one.
        older_failure_count=state.older_failure_count if later_failures == state.recent_failures else 0,
        error=state.error if later_failures else "",
    )


def _add_failure_to_heartbeat(state: HeartbeatState, at: int, error: str | None = None) -> HeartbeatState:
    """`error`: None for a lost run, which reports none."""
    if state.last_ok is not None and at <= state.last_ok:
        return state
    failures = sorted((*state.recent_failures, at))
    return state._replace(
        recent_failures=tuple(failures[-MAX_REMEMBERED_HEARTBEAT_FAILURES:]),
        older_failure_count=state.older_failure_count + max(len(failures) - MAX_REMEMBERED_HEARTBEAT_FAILURES, 0),
        error=error if error is not None and failures[-1] == at else state.error,
    )


def _format_failed_check_in_message(check_in: CheckIn) -> str:
    """ "exit code 3: No space left on device": the last line of a job's output is usually why it failed."""
    lines = [line.strip() for line in check_in.output.splitlines() if line.strip()]
    parts = [line[:MAX_HEARTBEAT_ERROR_CHARS] for line in lines[-1:]]
    if check_in.exit_code is not None:
        signal = SIGNAL_NAME_BY_EXIT_CODE.get(check_in.exit_code)
        parts.insert(0, f"exit code {check_in.exit_code}{f' ({signal})' if signal else ''}")
    return ": ".join(parts)


def _pick_later_timestamp(current: int | None, candidate: int) -> int:
    return candidate if current is None else max(current, candidate)
