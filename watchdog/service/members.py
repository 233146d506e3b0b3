"""From configured probes to what the store runs them by."""

from __future__ import annotations

from watchdog.model import ProbeInfo
from watchdog.probes.base import Probe
from watchdog.rules import Policy
from watchdog.schedule import Cron, Interval, Schedule, phase_of
from watchdog.service.runner import NAME
from watchdog.store.fleet import Member
from watchdog.wire import Mask, cap, harmless

MARGIN = 30_000
"""A result may be stored this many ms after its run's deadline and still be judged."""
SILENT = 3
"""So many slots without any result, and the probe is stale."""
NOTHING = Mask(())


def schedule_of(probe: Probe) -> Schedule:
    if probe.schedule is not None:
        return Cron(probe.schedule, probe.timezone)
    return Interval(probe.every, phase_of(probe.key, probe.every))


def member_of(probe: Probe, spec: str, mask: Mask = NOTHING) -> Member:
    """`spec`: the probe's configuration as written, in YAML.

    Where it points, and its tasks by name, are masked as they are in results: a limit would otherwise miss its task.
    """
    plan = schedule_of(probe)
    lateness = probe.deadline + MARGIN

    def silence(slot: int) -> int:
        last = slot
        for _ in range(SILENT):
            last = plan.after(last)
        return last - slot + lateness

    limits = {cap(harmless(mask(name)), NAME): limit for name, limit in probe.task_limits.items()}
    info = ProbeInfo(
        id=0, key=probe.key, name=probe.name, kind=probe.kind, group=probe.group, tags=tuple(probe.tags),
        severity=probe.alert.severity, runbook=probe.runbook, target=mask(probe.target), cadence=plan.text,
        task_limits=limits,
    )  # fmt: skip
    return Member(Policy(info, silence, probe.alert.after, probe.alert.recover, lateness), plan, spec)
