"""What the tests of job sources share: runs of a jobs probe, each of which knows the state of the one before."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from tests.support.probe_runs import JobProblem, JobsRun, run_jobs_probe
from watchdog.domain.model import Json
from watchdog.domain.probe_state import build_scheduled_job_state_key
from watchdog.probes import JobsProbe

NO_PROBLEM = JobProblem("", "")


class JobSourceHarness(ABC):
    """One source of scheduled jobs in a real system."""

    def __init__(self) -> None:
        self.state: dict[str, Json] = {}
        """The probe's state, saved between runs."""
        self.keeps_state = True

    @property
    @abstractmethod
    def source(self) -> dict[str, dict[str, Any]]:
        """The source as configured: {"bullmq": {"redis": ...}}."""

    def run_probe(
        self, grace: str = "1m", overrides: Mapping[str, Any] = {}, **watch: Mapping[str, str | int]
    ) -> JobsRun:
        """`overrides`: fields of the source. `watch`: limits by job; `rest` stands for `*`."""
        source = {kind: {**fields, **overrides} for kind, fields in self.source.items()}
        limits = {"*" if name == "rest" else name: limit for name, limit in watch.items()}
        probe = JobsProbe.model_validate({"name": "Jobs", "jobs": {**source, "grace": grace, "watch": limits}})
        report = run_jobs_probe(probe, self.state)
        if self.keeps_state:
            self.state |= report.state_updates
            self.state = {key: value for key, value in self.state.items() if value is not None}
        return report

    def problems(self, grace: str = "1m", **watch: Mapping[str, str | int]) -> dict[str, tuple[str, str]]:
        """Reason and message by job."""
        report = self.run_probe(grace, **watch)
        assert report.problems is not None, report.result.message
        return {name: (problem.reason, problem.message) for name, problem in report.problems.items()}

    def reason(self, grace: str = "1m", **watch: Mapping[str, str | int]) -> str:
        """Of the job `digest`; empty if it has no problem, or if the source cannot be read."""
        return (self.run_probe(grace, **watch).problems or {}).get("digest", NO_PROBLEM).reason

    def source_reason(self, grace: str = "1m", **watch: Mapping[str, str | int]) -> str:
        """Of the run: that of the source, or of its first job with a problem."""
        return self.run_probe(grace, **watch).result.reason

    def job_evidence(self, name: str = "digest") -> Json:
        return self.run_probe().evidence.facts.get("jobs", {}).get(name, {})

    def job_state(self, name: str) -> Json:
        """What the probe has saved about a job."""
        [state] = [state for key, state in self.state.items() if key == build_scheduled_job_state_key(name) and state]
        return state
