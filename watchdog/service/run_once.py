"""Runs one probe on demand: evaluated like any other run, without storing anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NamedTuple, Protocol, TypeVar

from watchdog.domain.model import ClaimedSlot, Finding, Outcome, ProbeResult, ResultToRecord
from watchdog.domain.rules import AlertPolicy, availability, derive_findings_from_result, job, missing, task
from watchdog.probes.base import Probe
from watchdog.service.registration import build_registered_probe
from watchdog.service.runner import RetryingProbeRunner

TASK_AND_JOB_RULE_NAMES = (task.ALERT_RULE_NAME, missing.ALERT_RULE_NAME, job.ALERT_RULE_NAME)
"""Rules about the tasks and jobs that a result lists."""


class ProbeWithNameAndId(Protocol):
    """A configured probe, or one that is stored."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...


NamedProbeT = TypeVar("NamedProbeT", bound=ProbeWithNameAndId)


def find_probe_by_name_or_id_or_raise(probes: Sequence[NamedProbeT], name_or_id: str) -> NamedProbeT:
    """Find a probe by name or id. Raises LookupError with a message for the user."""
    for probe in probes:
        if name_or_id in (probe.name, probe.id):
            return probe
    names = [probe.name for probe in probes]
    matches = get_close_matches(name_or_id, names, 1)
    listing = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    hint = f"did you mean {matches[0]!r}?" if matches else f"probes: {listing or 'none'}"
    raise LookupError(f"no probe is named {name_or_id!r}; {hint}")


def find_runnable_probe(probes: Sequence[Probe], name_or_id: str) -> Probe:
    """Find a probe that runs on demand. Raises LookupError also for a probe that only receives data."""
    probe = find_probe_by_name_or_id_or_raise(probes, name_or_id)
    if probe.passive_source:
        raise LookupError(
            f"{probe.name} cannot be run on demand, because {probe.passive_source}; look at its status instead"
        )
    return probe


class SingleResultVerdict(NamedTuple):
    """What the rules find in one result alone. The outcome also considers the tasks and jobs that it lists."""

    findings: tuple[Finding, ...]
    """Bad ones only."""
    outcome: Outcome
    reason: str
    message: str


class OnDemandRun(NamedTuple):
    """A run on demand and its verdict, which also considers the tasks and jobs that the result lists."""

    probe: Probe
    recorded_result: ResultToRecord
    findings: tuple[Finding, ...]
    """Bad ones only."""
    outcome: Outcome
    reason: str
    message: str


async def run_probe_on_demand_without_recording(runner: RetryingProbeRunner, probe: Probe) -> OnDemandRun:
    """Run a probe now."""
    await asyncio.to_thread(probe.preload)
    slot = ClaimedSlot(0, runner.clock(), "local", None)
    return _evaluate_on_demand_run(runner, probe, await runner.run(probe, slot, {}))


def _evaluate_on_demand_run(runner: RetryingProbeRunner, probe: Probe, recorded_result: ResultToRecord) -> OnDemandRun:
    verdict = judge_single_result(build_registered_probe(probe, "", runner.mask).policy, recorded_result.result)
    return OnDemandRun(probe, recorded_result, *verdict)


def judge_single_result(policy: AlertPolicy, result: ProbeResult) -> SingleResultVerdict:
    """The outcome is `fail` if a task or job is bad, as it would open an incident."""
    findings = tuple(finding for finding in derive_findings_from_result(policy, result) if finding.bad)
    subject_findings = [finding for finding in findings if finding.rule in TASK_AND_JOB_RULE_NAMES]
    verdict = SingleResultVerdict(findings, result.outcome, result.reason, result.message)
    if not subject_findings or any(finding.rule == availability.ALERT_RULE_NAME for finding in findings):
        return verdict
    message = "; ".join(finding.message for finding in subject_findings)
    return verdict._replace(outcome=Outcome.FAIL, reason=subject_findings[0].reason, message=message)
