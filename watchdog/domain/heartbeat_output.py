"""Runs of a heartbeat that reported success although their output does not meet what is expected. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from watchdog.domain.heartbeat import HeartbeatState
from watchdog.domain.model import Json
from watchdog.domain.observations import ScheduledJobFacts

JUDGED_HEARTBEAT_OUTPUT_STATE_KEY = "heartbeat_output"
"""Key of a `JudgedHeartbeatOutput` in the state of its probe."""


class JudgedHeartbeatOutput(NamedTuple):
    """The newest run that reported success, and whether its output met the expectations.

    The check-ins count it as a success, so the failures in a row before it are remembered here. Instants are in ms
    since the epoch.
    """

    end: int
    """When the run ended."""
    problem: str = ""
    """Why its output does not meet the expectations; empty if it does, or if its output was not known."""
    failures_before: int = 0
    """Failures in a row before it."""
    last_ok_before: int | None = None
    """The end of the newest good run before it."""
    failures: int = 0
    """Failures in a row when it was last judged, those after it included."""

    @property
    def last_ok(self) -> int | None:
        """The end of the newest good run."""
        return self.last_ok_before if self.problem else self.end

    @classmethod
    def from_json(cls, stored: Mapping[str, Json] | None) -> JudgedHeartbeatOutput | None:
        """Fields that this version does not know are ignored."""
        return None if stored is None else cls(**{name: stored[name] for name in cls._fields if name in stored})

    def to_json(self) -> Json:
        return self._asdict()


def judge_heartbeat_output(
    state: HeartbeatState, judged: JudgedHeartbeatOutput | None, find_problem: Callable[[str], str]
) -> JudgedHeartbeatOutput | None:
    """Judges the newest run that reported success; None if there is none.

    `judged`: what the run before this one stored. `find_problem`: from an output to why it does not meet the
    expectations. It is applied again as long as the output is known, so that changed expectations have an effect.
    """
    if state.last_ok is None:
        return None
    if judged is None:
        judged = JudgedHeartbeatOutput(state.last_ok)
    elif state.last_ok > judged.end:
        judged = JudgedHeartbeatOutput(state.last_ok, failures_before=judged.failures, last_ok_before=judged.last_ok)
    if state.last_end == state.last_ok and not state.output_is_partial:
        judged = judged._replace(problem=find_problem(state.output))
    own_failures = judged.failures_before + 1 if judged.problem else 0
    return judged._replace(end=state.last_ok, failures=own_failures + state.consecutive_failure_count)


def add_judged_output_to_job_facts(facts: ScheduledJobFacts, judged: JudgedHeartbeatOutput | None) -> ScheduledJobFacts:
    """A run whose output does not meet the expectations counts as a failure. `facts`: what the check-ins show."""
    if judged is None or not judged.problem:
        return facts
    return facts._replace(
        last_ok=judged.last_ok,
        failures=facts.failures + judged.failures_before + 1,
        error=facts.error if facts.failures else judged.problem,
    )
