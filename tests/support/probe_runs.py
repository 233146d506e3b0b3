"""Single runs of probes, as the service makes them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.support.third_party import ThirdPartyServers
from watchdog.domain.model import ClaimedSlot, Evidence, Json, ProbeResult, ResultToRecord
from watchdog.domain.rules import derive_findings_from_result
from watchdog.domain.uptime_clock import DowntimeGaps
from watchdog.net import NetworkAccess, SecretMask
from watchdog.net.proxy import RequestRouting
from watchdog.probes import CanaryProbe, Probe, QueueProbe
from watchdog.service.clock import read_wall_clock_ms
from watchdog.service.event_loop_lag import EventLoopLagMonitor
from watchdog.service.registration import build_registered_probe
from watchdog.service.runner import RetryingProbeRunner

EMPTY_MASK = SecretMask(())


def canary_probe(job: Mapping[str, Any], **fields: Any) -> CanaryProbe:
    return CanaryProbe.model_validate({"name": "Pipeline", "every": "5m", "canary": job, **fields})


def short_canary_probe(job: Mapping[str, Any], finish_within_ms: int) -> CanaryProbe:
    """With a shorter limit than the configuration allows, to keep the tests fast."""
    probe = canary_probe({**job, "finish_within": f"{max(finish_within_ms, 1_000)}ms"})
    return probe.model_copy(update={"canary": probe.canary.model_copy(update={"finish_within": finish_within_ms})})


def outstanding_ids(report: ResultToRecord) -> list[str]:
    """The sentinels that a canary's run has left to the next ones."""
    return [record["job_id"] for record in (report.state_updates["sentinel"] or {"records": ()})["records"]]


def earlier_sentinel(job_id: str, age_ms: int = 60_000, **fields: Any) -> dict[str, Any]:
    """The state of a canary whose run sent a sentinel `age_ms` ago, and could not take it back."""
    sent_at = read_wall_clock_ms() - age_ms
    return {"sentinel": {"records": [{"job_id": job_id, "slot": sent_at, "sent_at": sent_at, **fields}]}}


def queue_probe(system: Mapping[str, Any], rules: Mapping[str, Any] | None = None) -> QueueProbe:
    fields = {} if rules is None else {"rules": rules}
    return QueueProbe.model_validate({"name": "Backlog", "queue": system, **fields})


def poll_queue(
    system: Mapping[str, Any],
    rules: Mapping[str, Any] | None = None,
    after_ms: int = 0,
    first_result: ResultToRecord | None = None,
    gaps: DowntimeGaps = (),
) -> ResultToRecord:
    """One run of a queue probe, `after_ms` after the first one."""
    slot, memory = (
        (None, {}) if first_result is None else (first_result.result.slot + after_ms, first_result.state_updates)
    )
    return asyncio.run(run_probe(queue_probe(system, rules), slot, probe_state=memory, gaps=gaps))


class IgnoringLagMonitor(EventLoopLagMonitor):
    """Reports no lag. The event loop of a test may be late on a busy machine, which would turn a timeout that the test
    expects into an error."""

    def max_event_loop_lag_s_since(self, start: float) -> float:
        return 0.0


async def run_probe(
    probe: Probe,
    slot: int | None = None,
    previous_slot: int | None = None,
    probe_state: Mapping[str, Json] | None = None,
    mask: SecretMask = EMPTY_MASK,
    gaps: DowntimeGaps = (),
    *,
    routing: RequestRouting | None = None,
) -> ResultToRecord:
    probe.preload()
    async with NetworkAccess(routing) as network, IgnoringLagMonitor() as lag:
        at = read_wall_clock_ms() if slot is None else slot
        return await RetryingProbeRunner(network, mask, read_wall_clock_ms, lag, lambda: gaps).run(
            probe, ClaimedSlot(1, at, "local", previous_slot), probe_state or {}
        )


class JobProblem(NamedTuple):
    reason: str
    message: str


@dataclass(frozen=True)
class JobsRun:
    """A run of a probe of jobs, and the problems that the fold finds in it."""

    recorded: ResultToRecord
    problems: Mapping[str, JobProblem] | None
    """By job; None: no jobs were read."""
    probe: Probe = field(repr=False)

    @property
    def result(self) -> ProbeResult:
        return self.recorded.result

    def findings(self, rule: str) -> dict[str, str]:
        """Subject -> message of each bad finding of a rule."""
        findings = derive_findings_from_result(build_registered_probe(self.probe, "").policy, self.result)
        return {finding.subject: finding.message for finding in findings if finding.rule == rule and finding.bad}

    @property
    def evidence(self) -> Evidence:
        return self.recorded.evidence

    @property
    def state_updates(self) -> Mapping[str, Json]:
        return self.recorded.state_updates


def run_jobs_probe(probe: Probe, probe_state: Mapping[str, Json] | None = None) -> JobsRun:
    recorded = asyncio.run(run_probe(probe, probe_state=probe_state))
    return JobsRun(recorded, find_job_problems(probe, recorded.result), probe)


def find_job_problems(probe: Probe, result: ProbeResult) -> dict[str, JobProblem] | None:
    if "job" not in result.listings:
        return None
    findings = derive_findings_from_result(build_registered_probe(probe, "").policy, result)
    return {f.subject: JobProblem(f.reason, f.message) for f in findings if f.rule == "job" and f.bad}


def node_worker_command(peers: ThirdPartyServers, script: str, **env: str) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of a worker script on Node.js."""
    path = f"{os.path.dirname(__file__)}/queue_workers/{script}"  # noqa: PTH120 - what a command line takes
    return [peers.node, path], {"PATH": os.environ["PATH"], "NODE_PATH": str(peers.node_modules), **env}


def python_worker_command(script: str, **env: str) -> tuple[list[str], dict[str, str]]:
    """The same in Python. Its jobs can import modules beside the script."""
    path = f"{os.path.dirname(__file__)}/queue_workers/{script}"  # noqa: PTH120 - what a command line takes
    return [sys.executable, "-u", path], {"PATH": os.environ["PATH"], **env}
