"""Maintenance windows as JSON. Instants are ISO 8601 in UTC."""

from __future__ import annotations

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.serializers.instants import format_optional_iso8601
from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.maintenance_windows import MaintenanceWindow


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class MaintenanceMatchJson(TypedDict):
    """Which probes a window selects. A field that is null or empty selects every probe."""

    id: str | None
    """The id of the probe."""
    group: str | None
    tags: list[str]
    kind: str | None
    severity: str | None


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class MaintenanceWindowJson(TypedDict):
    """A period in which no incident of some probes opens."""

    id: str
    name: str
    """Empty if a person began it."""
    match: MaintenanceMatchJson
    starts_at: str
    until: str
    """When it ends."""
    in_effect: bool
    by: str
    """The person who began it; empty if it is configured."""
    through: str
    """Where it was started, such as page, command or api; empty if it is configured."""
    comment: str
    ended_at: str | None
    """When it ended before its time; null: it did not."""
    ended_by: str
    """The person who ended it before its time."""


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
        },
        "starts_at": format_iso8601(window.starts_at),
        "until": format_iso8601(window.ends_at),
        "in_effect": window.is_in_effect(now),
        "by": "" if actor is None else actor.name,
        "through": "" if actor is None else actor.interface.value,
        "comment": window.comment,
        "ended_at": format_optional_iso8601(window.ended_at),
        "ended_by": window.ended_by,
    }
