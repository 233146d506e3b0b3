"""Alerts that are held back because of another probe, on the page of an incident and in lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from watchdog.domain.formatting import format_count_with_noun, format_names
from watchdog.domain.model import HealthState
from watchdog.domain.muting import MutingState
from watchdog.store.read.status import IncidentRecord
from watchdog.web.pages.banner import PageBanner
from watchdog.web.times import render_timestamp_with_zone


def describe_muting(record: IncidentRecord) -> tuple[str, ...]:
    """Of an open incident, for a list: "muted because of API", "waits for API"."""
    muting = record.muting
    if muting is None:
        return ()
    if muting.state is MutingState.MUTED:
        return (f"muted because of {muting.probe_name}",)
    return (f"waits for {muting.probe_name}",)


def build_muting_banners(record: IncidentRecord, muted_probe_names: Sequence[str], now: int) -> Iterator[PageBanner]:
    """Why no one is notified of an open incident, and whose alerts it mutes itself. `muted_probe_names`: one for each
    alert."""
    if record.incident.resolved_at is not None:
        return
    if muting := record.muting:
        if muting.waits_until is None:
            title = f"Muted because of {muting.probe_name}"
            text = f"No one is notified while {muting.probe_name} is down ({muting.reason})."
        else:
            title = f"Not sent yet: it is not certain whether {muting.probe_name} is down"
            until = render_timestamp_with_zone(muting.waits_until, now, seconds=True)
            sentence = Markup("It is sent at {} at the latest, unless {} is down by then ({}).")
            text = sentence.format(until, muting.probe_name, muting.reason)
        yield PageBanner(HealthState.UNKNOWN, title, text)
    if muted_probe_names:
        title = f"Mutes {format_count_with_noun(len(muted_probe_names), 'alert')} of other probes"
        names = format_names(list(dict.fromkeys(muted_probe_names)))
        yield PageBanner(
            HealthState.UNKNOWN, title, f"{names}. Alerts that are still open are sent when this incident ends."
        )
