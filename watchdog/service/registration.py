"""Turns configured probes into the registered probes that the store schedules and evaluates."""

from __future__ import annotations

from watchdog.domain.model import ProbeInfo
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.rules import AlertPolicy
from watchdog.domain.schedule import CronSchedule, IntervalSchedule, Schedule, interval_phase
from watchdog.domain.text import replace_unsafe_characters, truncate
from watchdog.net import SecretMask
from watchdog.probes.base import Probe
from watchdog.service.runner import MAX_NAME_CHARS

LATE_RESULT_MARGIN_MS = 30_000
"""A result that is stored up to this many ms after its run's deadline is still evaluated."""
STALE_AFTER_SLOTS = 3
"""A probe is stale after this many slots without a result."""
EMPTY_MASK = SecretMask(())


def build_schedule(probe: Probe) -> Schedule:
    if probe.schedule is not None:
        return CronSchedule(probe.schedule, probe.timezone)
    return IntervalSchedule(probe.every, interval_phase(probe.id, probe.every))


def build_registered_probe(probe: Probe, config_yaml: str, mask: SecretMask = EMPTY_MASK) -> RegisteredProbe:
    """`config_yaml`: the probe's configuration as written.

    Its target and the names of its tasks and jobs are masked as they are in results; otherwise a limit would not match.
    """
    schedule = build_schedule(probe)
    lateness = probe.deadline_ms + LATE_RESULT_MARGIN_MS

    def staleness_threshold_ms(slot: int) -> int:
        last_slot = slot
        for _ in range(STALE_AFTER_SLOTS):
            last_slot = schedule.next_slot_after(last_slot)
        return last_slot - slot + lateness

    def stored_name(name: str) -> str:
        return truncate(replace_unsafe_characters(mask(name)), MAX_NAME_CHARS)

    info = ProbeInfo(
        database_id=0, id=probe.id, name=probe.name, kind=probe.kind, group=probe.group, tags=tuple(probe.tags),
        severity=probe.alert.severity, runbook=probe.runbook, target=mask(probe.target),
        schedule_text=schedule.description,
        task_limits={stored_name(name): limit for name, limit in probe.task_limits.items()},
        job_limits={stored_name(name): limit for name, limit in probe.job_limits.items()},
    )  # fmt: skip
    return RegisteredProbe(
        AlertPolicy(
            info, staleness_threshold_ms, probe.alert.failure_threshold, probe.alert.success_threshold, lateness
        ),
        schedule,
        config_yaml,
    )
