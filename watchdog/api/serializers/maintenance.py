"""Maintenance windows as JSON. Instants are ISO 8601 in UTC."""

from __future__ import annotations

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.serializers.instants import format_optional_iso8601
from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.maintenance_windows import MaintenanceWindow
from watchdog.domain.silencing import EVERY_PROBE_MATCHER


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class MaintenanceCriteriaJson(TypedDict):
    """Which probes a window selects. A field that is null or empty selects every probe."""

    id: str | None
    """The id of the probe."""
    group: str | None
    tags: list[str]
    kind: str | None
    severity: str | None
    all: bool
    """Every probe is selected, except Watchdog itself."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class MaintenanceWindowJson(TypedDict):
    """A period in which no incident of some probes opens."""

    id: str
    name: str
    """Empty if a person began it."""
    match: MaintenanceCriteriaJson
    starts_at: str
    until: str
    """When it ends."""
    state: str
    """planned, in_effect or ended."""
    by: str
    """The person who began it; empty if it is configured."""
    through: str
    """Where it was started, such as page, cli or api; empty if it is configured."""
    comment: str
    ended_at: str | None
    """When it ended before its time; null: it did not."""
    ended_by: str
    """The person who ended it before its time."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class StartedMaintenanceJson(TypedDict):
    """Maintenance that begins, and how many probes it selects at that time."""

    maintenance: MaintenanceWindowJson
    probe_count: int


def serialize_started_maintenance(window: MaintenanceWindow, probe_count: int, now: int) -> StartedMaintenanceJson:
    return {"maintenance": serialize_maintenance_window(window, now), "probe_count": probe_count}


def serialize_maintenance_window(window: MaintenanceWindow, now: int) -> MaintenanceWindowJson:
    match, actor = window.matcher, window.actor
    return {
        "id": window.id,
        "name": window.name,
        "match": {
            "id": match.probe or None,
            "group": match.group or None,
            "tags": sorted(match.tags),
            "kind": match.kind or None,
            "severity": match.severity,
            "all": match == EVERY_PROBE_MATCHER,
        },
        "starts_at": format_iso8601(window.starts_at),
        "until": format_iso8601(window.ends_at),
        "state": window.find_state(now).value,
        "by": "" if actor is None else actor.name,
        "through": "" if actor is None else actor.interface.value,
        "comment": window.comment,
        "ended_at": format_optional_iso8601(window.ended_at),
        "ended_by": window.ended_by,
    }
