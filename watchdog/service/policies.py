"""From configured probes to what the store runs them by."""

from __future__ import annotations

from watchdog.domain.model import ProbeInfo
from watchdog.domain.rules import AlertPolicy
from watchdog.domain.schedule import CronSchedule, IntervalSchedule, Schedule, interval_phase
from watchdog.domain.text import replace_unsafe_characters, truncate
from watchdog.net import SecretMask
from watchdog.probes.base import Probe
from watchdog.service.runner import MAX_NAME_CHARS
from watchdog.store.write.probe_registry import RegisteredProbe

LATE_RESULT_MARGIN_MS = 30_000
"""A result may be stored this many ms after its run's deadline and still be judged."""
STALE_AFTER_SLOTS = 3
"""So many slots without any result, and the probe is stale."""
EMPTY_MASK = SecretMask(())


def build_schedule(probe: Probe) -> Schedule:
    if probe.schedule is not None:
        return CronSchedule(probe.schedule, probe.timezone)
    return IntervalSchedule(probe.every, interval_phase(probe.id, probe.every))


def build_registered_probe(probe: Probe, config_yaml: str, mask: SecretMask = EMPTY_MASK) -> RegisteredProbe:
    """`spec`: the probe's configuration as written, in YAML.

    Where it points, and its tasks by name, are masked as they are in results: a limit would otherwise miss its task.
    """
    plan = build_schedule(probe)
    lateness = probe.deadline_ms + LATE_RESULT_MARGIN_MS

    def silence(slot: int) -> int:
        last = slot
        for _ in range(STALE_AFTER_SLOTS):
            last = plan.next_slot_after(last)
        return last - slot + lateness

    limits = {
        truncate(replace_unsafe_characters(mask(name)), MAX_NAME_CHARS): limit
        for name, limit in probe.task_limits.items()
    }
    info = ProbeInfo(
        database_id=0, id=probe.id, name=probe.name, kind=probe.kind, group=probe.group, tags=tuple(probe.tags),
        severity=probe.alert.severity, runbook=probe.runbook, target=mask(probe.target), cadence=plan.description,
        task_limits=limits,
    )  # fmt: skip
    return RegisteredProbe(
        AlertPolicy(info, silence, probe.alert.failure_threshold, probe.alert.success_threshold, lateness),
        plan,
        config_yaml,
    )
