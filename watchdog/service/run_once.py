"""Runs one probe on demand: evaluated like any other run, without storing anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from watchdog.domain.model import ClaimedSlot, RecordedResult
from watchdog.domain.rules import evaluate_rules
from watchdog.probes.base import Probe
from watchdog.service.policies import build_registered_probe
from watchdog.service.runner import ProbeRunner


def find_probe(probes: Sequence[Probe], name_or_id: str) -> Probe:
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
    probe = find_probe(probes, name_or_id)
    if probe.passive_source:
        raise LookupError(
            f"{probe.name} cannot be run on demand, because {probe.passive_source}; look at its status instead"
        )
    return probe


async def run_once(runner: ProbeRunner, probe: Probe) -> dict[str, Any]:
    """Run a probe now. Returns the result as JSON; durations are in ms."""
    await asyncio.to_thread(probe.prepare)
    slot = ClaimedSlot(0, runner.clock(), "local", None)
    return _recorded_result_to_json(runner, probe, await runner.run(probe, slot, {}))


def _recorded_result_to_json(runner: ProbeRunner, probe: Probe, recorded_result: RecordedResult) -> dict[str, Any]:
    """The outcome is `fail` if a task is bad, as it would open an incident."""
    result = recorded_result.result
    findings = [f for f in evaluate_rules(build_registered_probe(probe, "", runner.mask).policy, result) if f.bad]
    tasks = [f for f in findings if f.rule in ("task", "missing", "job")]
    explained = tasks and not any(f.rule == "availability" for f in findings)
    outcome, reason, message = str(result.outcome), result.reason, result.message
    if explained:
        outcome, reason, message = "fail", tasks[0].reason, "; ".join(f.message for f in tasks)
    return {
        "probe": probe.id,
        "kind": probe.kind,
        "outcome": outcome,
        "reason": reason,
        "message": message,
        "duration": result.duration,
        "phases": {name: round(ms, 1) for name, ms in result.phases.items()},
        "measurements": dict(result.measurements),
        "tasks": {name: task._asdict() for name, task in result.tasks.items()} if result.tasks is not None else None,
        "findings": [
            {"rule": f.rule, "subject": f.subject, "reason": f.reason, "message": f.message} for f in findings
        ],
        "evidence": {"facts": dict(recorded_result.evidence.facts), "excerpt": recorded_result.evidence.excerpt},
    }
