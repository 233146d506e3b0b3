"""Measurements of queues, canaries, jobs, tasks and steps in results, and their stored form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple, Self

from watchdog.domain.formatting import format_duration
from watchdog.domain.model import Json, JsonScalar
from watchdog.domain.observations import QueueMetricValues


@dataclass(frozen=True, slots=True)
class QueueMeasurements(QueueMetricValues):
    """The metrics of a queue at one run, stored as the result's measurements."""

    failure_ratio: float | None = None
    """The share of failures among the jobs that ended within the window of the `failure_ratio` rule; 0 to 1."""

    @classmethod
    def from_queue_metrics(cls, metrics: QueueMetricValues, failure_ratio: float | None = None) -> Self:
        values = {field.name: getattr(metrics, field.name) for field in fields(QueueMetricValues)}
        return cls(**values, failure_ratio=failure_ratio)

    def to_measurements(self) -> dict[str, JsonScalar]:
        return _drop_none_values(asdict(self))

    def to_evidence_facts(self) -> dict[str, Json]:
        """For the evidence: as measurements, with durations that people can read."""
        facts: dict[str, Json] = self.to_measurements()
        return facts if self.oldest is None else facts | {"oldest": format_duration(self.oldest)}

    @classmethod
    def from_measurements(cls, measurements: Mapping[str, JsonScalar]) -> Self:
        """Ignores measurements of other names, and values that are no numbers."""
        values = {
            name: measurements.get(name) for name in cls.__dataclass_fields__
        }  # `fields` takes several times as long
        return cls(**{name: value for name, value in values.items() if isinstance(value, int | float)})  # type: ignore[arg-type] # by their names


class CanaryStageDurations(NamedTuple):
    """How long each stage of a sentinel job took, in ms, stored among the result's phases.

    None: the stage was not reached, or the queue system does not show it.
    """

    enqueue: float | None = None
    pick_up: float | None = None
    """From enqueued to picked up by a worker."""
    finish: float | None = None
    """From picked up to finished; from enqueued where no pick-up is shown."""

    def to_phases(self) -> dict[str, float]:
        return _drop_none_values(self._asdict())

    @classmethod
    def from_phases(cls, phases: Mapping[str, float]) -> Self:
        """Ignores phases that are no stage, such as `connect`."""
        return cls(*(phases.get(name) for name in cls._fields))


def _drop_none_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


class ListedJobCounts(NamedTuple):
    """How many jobs a source lists, stored as the result's measurements."""

    jobs: int
    jobs_failing: int


class ListedMcpTaskCounts(NamedTuple):
    """How many tasks an MCP server lists, stored as the result's measurements."""

    tasks: int
    tasks_failed: int


class HttpStepRecord(NamedTuple):
    """The result of one step of a `steps` probe in one run."""

    name: str
    status: int | None = None
    """None: there was no response."""
    duration_ms: int | None = None
    """None: no request was sent."""
    failed: bool = False

    @property
    def was_run(self) -> bool:
        return self.failed or self.duration_ms is not None

    def describe(self) -> str:
        """ "HTTP 503 in 12 ms", "no response in 3 s", "not sent", "not run"."""
        if self.duration_ms is None:
            return "not sent" if self.failed else "not run"
        result = "no response" if self.status is None else f"HTTP {self.status}"
        return f"{result} in {format_duration(self.duration_ms)}"


def describe_steps(steps: Iterable[HttpStepRecord]) -> str:
    """ "Log in: HTTP 200 in 85 ms; Cart: HTTP 503 in 12 ms; Buy: not run"."""
    return "; ".join(f"{step.name}: {step.describe()}" for step in steps)


_FAILED_STEP_MEASUREMENT_NAME = "failed_step"
_STEP_MEASUREMENT_NAME_PATTERN = re.compile(r"step_[0-9]+(_status|_ms)?|failed_step")


def build_step_measurements(steps: Iterable[HttpStepRecord]) -> dict[str, JsonScalar]:
    """The steps of a run, in their order, as they are stored among the result's measurements."""
    measurements: dict[str, JsonScalar] = {}
    for number, step in enumerate(steps, start=1):
        values = {"": step.name, "_status": step.status, "_ms": step.duration_ms}
        measurements |= {f"step_{number}{suffix}": value for suffix, value in values.items() if value is not None}
        if step.failed:
            measurements[_FAILED_STEP_MEASUREMENT_NAME] = number
    return measurements


def read_step_records(measurements: Mapping[str, JsonScalar]) -> list[HttpStepRecord]:
    """The steps of a run, in their order; none if it had no steps."""
    steps: list[HttpStepRecord] = []
    while isinstance(name := measurements.get(f"step_{len(steps) + 1}"), str):
        number = len(steps) + 1
        status, duration = measurements.get(f"step_{number}_status"), measurements.get(f"step_{number}_ms")
        steps.append(
            HttpStepRecord(
                name,
                status if isinstance(status, int) else None,
                round(duration) if isinstance(duration, int | float) else None,
                failed=measurements.get(_FAILED_STEP_MEASUREMENT_NAME) == number,
            )
        )
    return steps


def drop_step_measurements(measurements: Mapping[str, JsonScalar]) -> dict[str, JsonScalar]:
    """The measurements that are not about a step."""
    return {n: value for n, value in measurements.items() if not _STEP_MEASUREMENT_NAME_PATTERN.fullmatch(n)}


EVIDENCE_FACT_LABELS = {
    "consumers": "workers",
    "contract_changes": "changes of the contract",
    "duration": "duration of the last finished run",
    "failures": "failures in a row",
    "gone_since": "not listed since",
    "last_end": "last run ended",
    "last_ok": "last success",
    "last_start": "last run started",
    "lost_since": "lost run started",
    "next_due": "next run",
    "next_run": "next run",
    "oldest": "oldest waiting job",
    "rejected_at": "check-in rejected",
    "running_since": "run in progress since",
    "sent_at": "sent",
    "sentinel": "canary job",
    "usual_delay": "usual delay",
}
"""How messages label the facts of queues, canaries and jobs: their names are those of the configuration or of JSON. A
fact of any other name is its own label."""
MCP_HTTP_REQUESTS_FACT = "requests"
"""Evidence fact of an MCP session: its first HTTP requests, with their status and time."""
JOBS_EVIDENCE_KEY, TASKS_EVIDENCE_KEY = "jobs", "tasks"
"""Evidence facts with an object for each job or task, by its name. They replace the count of the same name."""


def drop_facts_of_other_subjects(subject: str, facts: Mapping[str, Json]) -> dict[str, Json]:
    """The facts about one job or task, and those about none, without the facts and counts of the others.

    Returns all facts if they do not list the subject. `facts`: the result's measurements, then its evidence. A task's
    own entry is left out, because the result itself holds its values.
    """
    for key, counts in (
        (JOBS_EVIDENCE_KEY, ListedJobCounts._fields),
        (TASKS_EVIDENCE_KEY, ListedMcpTaskCounts._fields),
    ):
        entries = facts.get(key)
        if isinstance(entries, Mapping) and subject in entries:
            own_facts = entries[subject] if key == JOBS_EVIDENCE_KEY else {}
            return {name: value for name, value in facts.items() if name not in counts} | own_facts
    return dict(facts)
