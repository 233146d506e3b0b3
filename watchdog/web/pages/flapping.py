"""Alerts that open and resolve again and again, on the page of an incident and in lists."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.alert_flapping import FlappingEndReason
from watchdog.domain.flapping import STABLE_AFTER_MS, describe_flapping_incidents
from watchdog.domain.formatting import format_duration, format_utc_timestamp
from watchdog.domain.model import HealthState
from watchdog.store.read.status import IncidentRecord
from watchdog.web.pages.banner import PageBanner

_FLAPPING_END_TEXT_BY_REASON = {
    FlappingEndReason.STAYS_OPEN: "an incident stayed open",
    FlappingEndReason.STAYS_RESOLVED: "no further incident opened",
    FlappingEndReason.PROBE_REMOVED: "the probe was removed",
}


def list_flapping_label_if_active(record: IncidentRecord) -> tuple[str, ...]:
    """Of an open incident, for a list: "flapping"."""
    return ("flapping",) if record.flapping is not None and record.flapping.is_active else ()


def build_incident_flapping_banners(record: IncidentRecord, now: int) -> Iterator[PageBanner]:
    """Why no notification is or was sent although an incident opened."""
    if (flapping := record.flapping) is None:
        return
    incidents = describe_flapping_incidents(flapping)
    since = format_utc_timestamp(flapping.began_at, now, seconds=True)
    if flapping.is_active:
        text = (
            f"{incidents}. Destinations that were notified of the flapping get the next message when an incident has "
            f"been open, or all have been resolved, for {format_duration(STABLE_AFTER_MS)}."
        )
        yield PageBanner(HealthState.DEGRADED, f"Flapping since {since}", text)
    elif flapping.ended_at is not None and flapping.end_reason is not None:
        until = format_utc_timestamp(flapping.ended_at, now, seconds=True)
        end_text = _FLAPPING_END_TEXT_BY_REASON[flapping.end_reason]
        text = f"{incidents}. Flapping ended because {end_text} ({flapping.end_reason})."
        yield PageBanner(HealthState.UNKNOWN, f"Opened while its alert was flapping, from {since} to {until}", text)
