"""Acknowledgements, silences, pauses and maintenance on pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from watchdog.domain.acts import Actor, OperatorActKind
from watchdog.domain.model import HealthState, Incident
from watchdog.domain.pausing import Pause, describe_pause_author_and_comment
from watchdog.domain.silencing import Silence
from watchdog.domain.text import capitalize_first
from watchdog.store.read.acts import (
    list_operator_acts_about_incident,
    list_silences_of_incident,
    load_pauses_in_effect,
)
from watchdog.store.read.maintenance import list_maintenance_in_effect_of_probe
from watchdog.store.read.status import Connection, IncidentRecord
from watchdog.web.pages.banner import PageBanner
from watchdog.web.times import render_timestamp_with_zone

TITLE_BY_ACT_KIND = {
    OperatorActKind.ACKNOWLEDGE: "Acknowledged",
    OperatorActKind.UNACKNOWLEDGE: "Acknowledgement removed",
    OperatorActKind.SILENCE: "Silence started",
    OperatorActKind.UNSILENCE: "Silence ended",
    OperatorActKind.CLOSE: "Closed by hand",
    OperatorActKind.RESEND: "Notifications sent again",
    OperatorActKind.PAUSE: "Paused",
    OperatorActKind.RESUME: "Resumed",
    OperatorActKind.RUN_NOW: "Run requested",
    OperatorActKind.BEGIN_MAINTENANCE: "Maintenance started",
    OperatorActKind.END_MAINTENANCE: "Maintenance ended",
    OperatorActKind.CREATE_PROBE: "Probe created",
    OperatorActKind.EDIT_PROBE: "Probe edited",
    OperatorActKind.DELETE_PROBE: "Probe deleted",
    OperatorActKind.TEST_RECEIVER: "Receiver tested",
    OperatorActKind.FORGET_JOBS: "Jobs forgotten",
    OperatorActKind.ACCEPT_CONTRACT: "Contract accepted",
    OperatorActKind.RELOAD: "Configuration reloaded",
}


@dataclass(frozen=True, slots=True)
class IncidentTimelineEvent:
    """Has either a state, whose glyph it shows, or an icon."""

    occurred_at: int
    title: str
    detail: str
    state: HealthState | None = None
    icon: str = ""


def build_acknowledgement_and_silence_banners(
    connection: Connection, record: IncidentRecord, now: int
) -> Iterator[PageBanner]:
    """Who is handling an open incident, and why no one is notified of it."""
    if record.incident.resolved_at is not None:
        return
    for pause in load_pauses_in_effect(connection, [record.probe.database_id]).values():
        yield build_pause_banner(pause, now)
    if acknowledgement := record.incident.acknowledgement:
        at = render_timestamp_with_zone(acknowledgement.at, now)
        title = Markup("Acknowledged by {} at {}").format(acknowledgement.actor.name, at)
        yield PageBanner(HealthState.UNKNOWN, title, acknowledgement.comment)
    for silence in list_silences_of_incident(connection, record.incident.id):
        if silence.ended_at is None:
            title = Markup("Silenced {}").format(render_silence_end(silence, now))
            effect = "Until it ends, nothing is sent, except the recovery of an incident that was sent before."
            text = f"{_describe_silence(silence)}. {effect}"
            yield PageBanner(HealthState.UNKNOWN, title, text, silence_id=silence.id)
    yield from build_maintenance_banner(connection, record.incident.probe, now)


def build_silence_banners(silences: Sequence[Silence], now: int) -> Iterator[PageBanner]:
    """That silences select incidents of a probe, which may have none at the moment. `silences`: those, by their end."""
    if silences:
        title = capitalize_first(describe_silences_of_probe(silences, now))
        yield PageBanner(HealthState.UNKNOWN, title, _describe_silence(silences[-1]))


def describe_silences_of_probe(silences: Sequence[Silence], now: int) -> Markup:
    """ "a silence is in effect until 03:29 UTC". `silences`: those that may select incidents of it, by their end."""
    text = "a silence is" if len(silences) == 1 else f"{len(silences)} silences are"
    return Markup("{} in effect {}").format(text, render_silence_end(silences[-1], now))


def describe_acts(incident: Incident, silences: Sequence[Silence], now: int) -> tuple[str, ...]:
    """For a list: "acknowledged by Ana", "silenced until 03:29 UTC". `silences`: those in effect that select it."""
    marks: list[str] = [f"acknowledged by {incident.acknowledgement.actor.name}"] if incident.acknowledgement else []
    if silences:
        last = max(silences, key=lambda silence: silence.ends_at)
        marks.append(Markup("silenced {}").format(render_silence_end(last, now)))
    return tuple(marks)


def render_silence_end(silence: Silence, now: int) -> Markup:
    """Of a silence in effect: "until 03:29 UTC", "until the incident is resolved"."""
    if silence.incident:
        return Markup("until the incident is resolved")
    return Markup("until {}").format(render_timestamp_with_zone(silence.ends_at, now))


def render_pause(pause: Pause, now: int) -> Markup:
    """As `describe_pause`: "paused until 12:00 UTC by ana: decommissioned"."""
    since_or_until, at = ("since", pause.started_at) if pause.ends_at is None else ("until", pause.ends_at)
    time, details = render_timestamp_with_zone(at, now), describe_pause_author_and_comment(pause)
    return Markup("paused {} {} {}").format(since_or_until, time, details)


def build_pause_banner(pause: Pause, now: int) -> PageBanner:
    """Why a probe does not run."""
    text = "The probe does not run, and an incident that is open stays open."
    return PageBanner(HealthState.PAUSED, capitalize_first(render_pause(pause, now)), text)


def build_maintenance_banner(connection: Connection, probe: int, now: int) -> Iterator[PageBanner]:
    """That a probe is in maintenance, and why."""
    if windows := list_maintenance_in_effect_of_probe(connection, probe, now):
        end = render_timestamp_with_zone(windows[-1].ends_at, now)
        reasons = "; ".join(": ".join(filter(None, (window.label, window.comment))) for window in windows)
        text = f"{reasons}. Its runs go on, but no incident opens, and the time does not count for uptime."
        yield PageBanner("maint", Markup("In maintenance until {}").format(end), text)


def build_act_timeline_events(connection: Connection, incident: str) -> Iterator[IncidentTimelineEvent]:
    """What people did, and when silences that select the incident began and ended."""
    for act in list_operator_acts_about_incident(connection, incident):
        detail = ": ".join(filter(None, (format_actor(act.actor), act.comment)))
        yield IncidentTimelineEvent(act.occurred_at, TITLE_BY_ACT_KIND[act.kind], detail, icon="action")
    for silence in list_silences_of_incident(connection, incident):
        yield IncidentTimelineEvent(silence.started_at, "Silenced", _describe_silence(silence), icon="action")
        if silence.ended_at is not None:
            detail = f"{silence.id}, {silence.describe_past_end()}"
            yield IncidentTimelineEvent(silence.ended_at, "Silence ended", detail, icon="action")


def _describe_silence(silence: Silence) -> str:
    """ "s-4f0c2a91be by Ana (page): group Search. Upgrade"."""
    comment = f". {silence.comment}" if silence.comment else ""
    return f"{silence.id} by {format_actor(silence.actor)}: {silence.describe_selection()}{comment}"


def format_actor(actor: Actor) -> str:
    """ "Ana (page)"."""
    return f"{actor.name} ({actor.interface})"
