"""Turns configured probes into the registered probes that the store schedules and evaluates."""

from __future__ import annotations

from watchdog.config.definitions import digest_json
from watchdog.domain.model import Json, ProbeInfo
from watchdog.domain.muting import MutingProbe
from watchdog.domain.registered_probe import (
    EMPTY_NOTIFICATION_ROUTING_TABLE,
    RegisteredProbe,
    make_staleness_threshold_function,
)
from watchdog.domain.routing import NotificationRoutingTable, list_evaluated_routes_with_mismatches
from watchdog.domain.rules import AlertPolicy
from watchdog.domain.schedule import CronSchedule, IntervalSchedule, Schedule, derive_interval_schedule_phase_ms
from watchdog.domain.text import replace_invisible_characters, truncate_with_note
from watchdog.net import SecretMask
from watchdog.probes.base import Probe
from watchdog.service.runner import MAX_SUBJECT_NAME_CHARS

LATE_RESULT_STILL_EVALUATED_MARGIN_MS = 30_000
"""A result that is stored up to this many ms after its run's deadline is still evaluated."""
SECRET_MASK_WITHOUT_SECRETS = SecretMask(())


def build_probe_schedule(probe: Probe) -> Schedule:
    if probe.schedule is not None:
        return CronSchedule(probe.schedule, probe.timezone)
    return IntervalSchedule(probe.every, derive_interval_schedule_phase_ms(probe.id, probe.every))


def compute_max_result_lateness(probe: Probe) -> int:
    """How long after its slot a result can be stored and still be evaluated, in ms."""
    return probe.run_time_limit_ms + LATE_RESULT_STILL_EVALUATED_MARGIN_MS


def build_registered_probe(
    probe: Probe,
    config_yaml: str,
    mask: SecretMask = SECRET_MASK_WITHOUT_SECRETS,
    routes: NotificationRoutingTable = EMPTY_NOTIFICATION_ROUTING_TABLE,
    definition: str = "",
    *,
    muting_probes: tuple[MutingProbe, ...] = (),
) -> RegisteredProbe:
    """`config_yaml`: the probe's configuration as written. `definition`: a digest of it. `muting_probes`: they mute its
    alerts while they are down.

    Its target and the names of its tasks and jobs are masked as they are in results; otherwise a limit would not match.
    """
    schedule = build_probe_schedule(probe)
    lateness = compute_max_result_lateness(probe)

    def stored_name(name: str) -> str:
        return truncate_with_note(replace_invisible_characters(mask(name)), MAX_SUBJECT_NAME_CHARS)

    info = ProbeInfo(
        database_id=0, id=probe.id, name=probe.name, kind=probe.kind, group=probe.group, tags=tuple(probe.tags),
        severity=probe.alert.severity, runbook=probe.runbook, target=mask.mask_target(probe.target),
        schedule_text=schedule.description,
        max_task_ages={stored_name(name): limit for name, limit in probe.max_task_ages.items()},
        job_limits={stored_name(name): limit for name, limit in probe.job_limits.items()},
        timezone=schedule.timezone if isinstance(schedule, CronSchedule) else "UTC",
    )  # fmt: skip
    return RegisteredProbe(
        AlertPolicy(
            info,
            make_staleness_threshold_function(schedule, lateness),
            probe.alert.failure_threshold,
            probe.alert.success_threshold,
            lateness,
        ),
        schedule,
        config_yaml,
        definition=digest_json(
            [definition, _build_probe_routing_json_to_digest(info, routes), *(m.probe_id for m in muting_probes)]
        ),
        content_digest=definition,
        repeat_interval_ms=probe.alert.repeat_interval,
        catch_up_ms=0 if probe.schedule is None else probe.catch_up,
        is_paused=probe.paused,
        routes=routes,
        muting_probes=muting_probes,
    )


def _build_probe_routing_json_to_digest(probe: ProbeInfo, routes: NotificationRoutingTable) -> Json:
    """Everything that decides who is notified of a probe's incidents."""
    applying = [
        routes.routes[index]
        for index, mismatch in list_evaluated_routes_with_mismatches(routes.routes, probe)
        if not mismatch
    ]
    steps = [
        [(step.after_ms, step.receivers, step.unless_acknowledged) for step in r.escalation_steps] for r in applying
    ]
    groupings = [[route.group_by, route.group_wait_ms] for route in applying]
    names = {name for r in applying for name in r.list_all_receivers()} if routes.routes else set(routes.receivers)
    destinations = {name: routes.receivers[name] for name in names}
    without_resolved = {name for receiver in destinations.values() for name in receiver} & routes.without_resolved
    return [
        [(route.receivers, route.reason_patterns, route.continue_matching) for route in applying],
        destinations,
        sorted(without_resolved),
        *([steps] if any(steps) else []),
        *([groupings] if any(route.group_by is not None for route in applying) else []),
    ]
