"""Conversion between domain objects and rows. JSON columns are text; an empty value is NULL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import lru_cache
from typing import Any

from watchdog.domain.config_changes import ConfigSectionSnapshot
from watchdog.domain.escalation import EscalationStep
from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.model import Outcome, ProbeInfo, ProbeResult, Severity
from watchdog.domain.registered_probe import RegisteredProbe, make_staleness_threshold_function
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable, ProbeMatcher
from watchdog.domain.rules import AlertPolicy
from watchdog.domain.schedule import CronSchedule, IntervalSchedule
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.json_text import decode_nullable_json, encode_storable_json
from watchdog.store.packed_values import pack_values, unpack_values
from watchdog.store.tables import RESULT_COLUMNS

MAX_CACHED_PROBE_INFOS = 8_192
"""About 2 KB each."""
RESULT_COLUMN_NAMES = [column.name for column in RESULT_COLUMNS]
OUTCOMES_BY_VALUE = {outcome.value: outcome for outcome in Outcome}
"""Lists decode thousands of outcomes; `Outcome(value)` takes ten times as long."""


def result_to_row(
    result: ProbeResult, *, late: bool, recorded_at: int, facts: str | None = None, facts_base: int | None = None
) -> dict[str, Any]:
    """`facts`, `facts_base`: the encoded listings (store/listings.py)."""
    row: dict[str, Any] = result._asdict()
    row["message"] = replace_unstorable_characters(result.message)
    row["phases"] = pack_values({name: round(ms, 1) for name, ms in result.phases.items()})
    row["measurements"] = pack_values(result.measurements)
    del row["listings"]
    row["facts"], row["facts_base"] = facts, facts_base
    row["late"], row["recorded_at"] = late, recorded_at
    row["held_until"] = None if late else result.held_until
    return row


def build_result_from_row(row: Sequence[Any]) -> ProbeResult:
    """`row`: the values of RESULT_COLUMNS. Without listings: `build_results_with_listings_from_rows` of
    store/listings.py adds them."""
    values = dict(zip(RESULT_COLUMN_NAMES, row, strict=True))
    del values["facts"], values["facts_base"]
    values["outcome"] = OUTCOMES_BY_VALUE[values["outcome"]]
    values["phases"], values["measurements"] = unpack_values(values["phases"]), unpack_values(values["measurements"])
    values["late"] = bool(values["late"])
    return ProbeResult(**values)


def encode_probe_info_as_json(info: ProbeInfo) -> str:
    values = {field.name: getattr(info, field.name) for field in fields(info) if field.name != "database_id"}
    return encode_storable_json(
        values | {"job_limits": {name: limits.to_json() for name, limits in info.job_limits.items()}}
    )


@lru_cache(maxsize=MAX_CACHED_PROBE_INFOS)
def decode_probe_info(database_id: int, text: str) -> ProbeInfo:
    """Fields that only a newer version knows are ignored, because its process may share the database. Pages decode the
    same text for each request, so the newest MAX_CACHED_PROBE_INFOS are kept."""
    field_names = {field.name for field in fields(ProbeInfo)}
    values: dict[str, Any] = {name: value for name, value in decode_nullable_json(text).items() if name in field_names}
    values["tags"], values["severity"] = tuple(values["tags"]), Severity(values["severity"])
    values["job_limits"] = {name: ScheduledJobLimits.from_json(limits) for name, limits in values["job_limits"].items()}
    return ProbeInfo(database_id=database_id, **values)


def encode_probe_schedule_and_policy(registered: RegisteredProbe) -> str:
    """How a probe is scheduled and evaluated: what a member needs that does not have it."""
    policy, schedule = registered.policy, registered.schedule
    return encode_storable_json(
        {
            "failure_threshold": policy.failure_threshold,
            "success_threshold": policy.success_threshold,
            "max_lateness": policy.max_lateness,
            "catch_up_ms": registered.catch_up_ms,
            "repeat_interval_ms": registered.repeat_interval_ms,
            "schedule": {field.name: getattr(schedule, field.name) for field in fields(schedule)},
        }
    )


def decode_registered_probe(
    info: ProbeInfo, policy: str, config_yaml: str, definition: str, routes: NotificationRoutingTable
) -> RegisteredProbe:
    """`policy`: of encode_probe_schedule_and_policy."""
    values = decode_nullable_json(policy)
    schedule_values = values["schedule"]
    schedule = IntervalSchedule(**schedule_values) if "every" in schedule_values else CronSchedule(**schedule_values)
    return RegisteredProbe(
        AlertPolicy(
            info,
            make_staleness_threshold_function(schedule, values["max_lateness"]),
            values["failure_threshold"],
            values["success_threshold"],
            values["max_lateness"],
        ),
        schedule,
        config_yaml,
        definition=definition,
        repeat_interval_ms=values.get("repeat_interval_ms", 0),
        catch_up_ms=values.get("catch_up_ms", 0),
        routes=routes,
    )


def encode_notification_routing_table(routes: NotificationRoutingTable) -> str:
    return encode_storable_json(
        {
            "receivers": routes.receivers,
            "routes": [
                {
                    "receivers": route.receivers,
                    "match": {**asdict(route.match), "tags": sorted(route.match.tags)},
                    "continue_matching": route.continue_matching,
                    "reason_patterns": route.reason_patterns,
                    "escalation_steps": list(map(asdict, route.escalation_steps)),
                    "group_by": route.group_by,
                    "group_wait_ms": route.group_wait_ms,
                }
                for route in routes.routes
            ],
            "without_resolved": sorted(routes.without_resolved),
            "without_reminders": sorted(routes.without_reminders),
        }
    )


def decode_notification_routing_table(text: str) -> NotificationRoutingTable:
    values = decode_nullable_json(text)
    routes = [
        NotificationRoute(
            tuple(route["receivers"]),
            ProbeMatcher(
                **{
                    **route["match"],
                    "tags": frozenset(route["match"]["tags"]),
                    "severity": route["match"]["severity"] and Severity(route["match"]["severity"]),
                }
            ),
            route["continue_matching"],
            tuple(route["reason_patterns"]),
            tuple(
                EscalationStep(step["after_ms"], tuple(step["receivers"]), step["unless_acknowledged"])
                for step in route.get("escalation_steps", ())
            ),
            group_by=None if route.get("group_by") is None else tuple(route["group_by"]),
            group_wait_ms=route.get("group_wait_ms", 0),
        )
        for route in values["routes"]
    ]
    receivers = {name: tuple(destinations) for name, destinations in values["receivers"].items()}
    without_resolved, without_reminders = values["without_resolved"], values.get("without_reminders", ())
    return NotificationRoutingTable(receivers, tuple(routes), frozenset(without_resolved), frozenset(without_reminders))


def encode_config_section_snapshots(sections: Mapping[str, ConfigSectionSnapshot]) -> str:
    return encode_storable_json({name: list(section) for name, section in sections.items()})


def decode_config_section_snapshots(text: str | None) -> dict[str, ConfigSectionSnapshot]:
    """Empty if an earlier version has stored none."""
    return {name: ConfigSectionSnapshot(*values) for name, values in (decode_nullable_json(text) or {}).items()}
