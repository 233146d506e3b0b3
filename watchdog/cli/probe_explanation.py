"""A probe as `watchdog explain` shows it: its state, what may open an incident, and whom that would notify."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from watchdog.cli.incident_detail import IncidentReadContext, LoadedIncident
    from watchdog.domain.model import ProbeInfo
    from watchdog.store.read.new_incidents import NewIncidentOutlook
    from watchdog.store.read.status import ProbeStatus, ResultRow


class ExplainedProbe(NamedTuple):
    """Why there is an incident of a probe, or none."""

    status: ProbeStatus
    incidents: Sequence[LoadedIncident]
    """Those that are open, else the newest one; empty: none is stored."""
    outlook: NewIncidentOutlook
    now: int
    """When it was read, in epoch ms."""


def load_explained_probe(reader: IncidentReadContext, probe: ProbeInfo) -> ExplainedProbe:
    from watchdog.cli.incident_detail import load_incident_or_raise
    from watchdog.store.read.new_incidents import load_new_incident_outlook
    from watchdog.store.read.status import list_incidents, list_probe_statuses

    connection, now, _ = reader
    (status,) = list_probe_statuses(connection, database_ids=[probe.database_id], probe_id=probe.id, now=now)
    ids = [incident.id for incident in status.open_incidents]
    if not ids:
        newest = list_incidents(connection, probe_database_ids=[probe.database_id], limit=1)
        ids = [record.incident.id for record in newest]
    reason = status.pending_findings[0].reason if status.pending_findings else ""
    outlook = load_new_incident_outlook(connection, probe, reason, now)
    return ExplainedProbe(status, [load_incident_or_raise(reader, id) for id in ids], outlook, now)


def serialize_explained_probe(explained: ExplainedProbe) -> dict[str, Any]:
    from watchdog.api.serializers.acts import serialize_silence
    from watchdog.api.serializers.probes import serialize_probe_status
    from watchdog.cli.incident_detail import serialize_loaded_incident

    outlook = explained.outlook
    return {
        "probe": serialize_probe_status(explained.status),
        "incidents": list(map(serialize_loaded_incident, explained.incidents)),
        "new_incident": {
            "destinations": list(outlook.routing.destinations),
            "routing_log": list(outlook.routing.routing_log),
            "maintenance": [window.id for window in outlook.maintenance_windows],
            "silences": list(map(serialize_silence, outlook.silences)),
            "muted_because_of": [muting.probe.probe_id for muting in outlook.muting_probes],
        },
    }


def iter_probe_explanation_lines(explained: ExplainedProbe) -> Iterator[str]:
    """Without its incidents."""
    from watchdog.cli.incident_detail import INDENT
    from watchdog.domain.formatting import format_count_with_noun
    from watchdog.domain.text import capitalize_first

    status, routing = explained.status, explained.outlook.routing
    count = len(status.open_incidents)
    yield f"{status.probe.name}: {status.state}"
    yield f"{format_count_with_noun(count, 'open incident')}, below" if count else _describe_no_open_incident(explained)
    if status.latest_result is not None:
        yield _describe_result(status.latest_result, explained.now)
    for pending in status.pending_findings:
        yield capitalize_first(pending.describe())
    yield from _iter_hold_lines(explained)
    yield ""
    names = ", ".join(routing.destinations) or "no one"
    which = "another" if count else "a new"
    subject = f"after that, {which} incident" if _holds_every_incident(explained) else f"{which} incident"
    yield f"{capitalize_first(subject)} would notify: {names}{_describe_flapping_hold(explained)}"
    yield from (f"{INDENT}{capitalize_first(step)}" for step in routing.routing_log)


def _holds_every_incident(explained: ExplainedProbe) -> bool:
    """Whether something keeps each new incident of the probe from opening, or from being sent."""
    outlook = explained.outlook
    silenced = any(not silence.matcher.subject_pattern for silence in outlook.silences)
    return bool(silenced or explained.status.pause or outlook.maintenance_windows or outlook.muting_probes)


def _describe_flapping_hold(explained: ExplainedProbe) -> str:
    """Empty: no alert flaps, or no one would be notified."""
    from watchdog.domain.formatting import format_utc_timestamp

    outlook = explained.outlook
    if outlook.flapping_stable_at is None or not outlook.routing.destinations:
        return ""
    end = format_utc_timestamp(max(outlook.flapping_stable_at, explained.now), explained.now)
    return f", but is held back while the alert flaps (until {end} at the earliest)"


def _describe_no_open_incident(explained: ExplainedProbe) -> str:
    status = explained.status
    if status.latest_result is None:
        return "No incident is open: there is no result yet"
    if status.pending_findings and status.pause is None and not explained.outlook.maintenance_windows:
        return "No incident is open yet"
    return "No incident is open"


def _describe_result(result: ResultRow, now: int) -> str:
    from watchdog.domain.formatting import format_time_ago

    message = f": {result.message}" if result.message else ""
    return f"Last result: {result.outcome} {format_time_ago(result.slot, now)}{message}"


def _iter_hold_lines(explained: ExplainedProbe) -> Iterator[str]:
    """What keeps an incident from opening, or its notifications from being sent."""
    from watchdog.domain.formatting import format_utc_timestamp
    from watchdog.domain.pausing import describe_pause
    from watchdog.domain.text import capitalize_first

    pause, outlook, now = explained.status.pause, explained.outlook, explained.now
    if pause is not None:
        yield f"{capitalize_first(describe_pause(pause, now))}. The probe does not run, and no incident opens."
    for window in outlook.maintenance_windows:
        reason = ": ".join(filter(None, (window.label, window.comment)))
        end = format_utc_timestamp(window.ends_at, now)
        yield f"In maintenance until {end}, {reason}. The probe runs, but no incident opens."
    for silence in outlook.silences:
        comment = f": {silence.comment}" if silence.comment else ""
        selection = f"{silence.id} by {silence.actor.name}, {silence.describe_selection()}{comment}"
        incidents = "incidents with this subject" if silence.matcher.subject_pattern else "incidents"
        effect = f"Until it ends, nothing is sent about {incidents}, except recoveries of those that were sent before."
        yield f"Silenced {silence.describe_end(now)} ({selection}). {effect}"
    for muting in outlook.muting_probes:
        cause = f"{muting.display_name} is down ({muting.probe.setting})"
        yield f"Muted while {cause}. No one is notified until that probe is no longer down."
