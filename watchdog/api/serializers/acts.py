"""Acknowledgements, silences and pauses as JSON. Instants are ISO 8601 in UTC."""

from __future__ import annotations

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.serializers.instants import format_optional_iso8601
from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG
from watchdog.domain.acts import Acknowledgement, Closure, OperatorAuditLogEntry
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.pausing import Pause
from watchdog.domain.selection import SelectedProbeCountAndWarnings
from watchdog.domain.silencing import Silence
from watchdog.domain.text import format_as_sentence
from watchdog.store.write.forgotten_jobs import ForgottenJobs


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class AcknowledgementJson(TypedDict):
    """Who is handling an incident."""

    at: str
    by: str
    """The name of the person or of the API key."""
    through: str
    """Where it was done, such as page, cli or api."""
    comment: str


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class IncidentAcknowledgementJson(TypedDict):
    """An incident, and who is handling it."""

    incident: str
    """Its id."""
    acknowledgement: AcknowledgementJson | None
    """Null: it is not acknowledged."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ClosureJson(TypedDict):
    """The closing of an incident by a person, although its finding did not recover."""

    at: str
    by: str
    """The name of the person or of the API key."""
    through: str
    """Where it was done, such as page, cli or api."""
    comment: str


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class IncidentClosureJson(TypedDict):
    """An incident, and who closed it."""

    incident: str
    """Its id."""
    closure: ClosureJson
    outlook: str
    """When another incident opens if the failure continues. Empty: that is not known, for example because the last
    result was good, the probe is paused or in maintenance, or the incident was closed before."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ResentNotificationsJson(TypedDict):
    """An incident of which notifications are sent again."""

    incident: str
    """Its id."""
    destinations: list[str]
    """To which they are sent again."""


def serialize_resent_notifications(incident: str, destinations: list[str]) -> ResentNotificationsJson:
    return {"incident": incident, "destinations": destinations}


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class SilenceCriteriaJson(TypedDict):
    """Which incidents a silence selects. A field that is null or empty selects every incident."""

    id: str | None
    """The id of the probe."""
    group: str | None
    tags: list[str]
    kind: str | None
    severity: str | None
    subject: str | None
    """A pattern: `*` stands for any text."""
    all: bool
    """Every incident is selected."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class SilenceJson(TypedDict):
    """For a time, the notifications of some incidents are held back."""

    id: str
    match: SilenceCriteriaJson
    incident: str | None
    """The only incident that it selects. It ends when that is resolved, and at `until` at the latest."""
    started_at: str
    until: str
    """When it ends."""
    by: str
    through: str
    """Where it was done, such as page, cli or api."""
    comment: str
    ended_at: str | None
    """When it ended; null: it is in effect."""
    ended_by: str
    """The person who ended it; empty if it expired, or its incident was resolved."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class StartedSilenceJson(TypedDict):
    """A silence that begins, and what it selects at that time."""

    silence: SilenceJson
    open_incident_count: int
    """How many open incidents it selected when it began."""
    probe_count: int
    """How many probes have incidents that it may select."""
    warnings: list[str]
    """Why it may select nothing at present, and which name was probably meant."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class RecordedActJson(TypedDict):
    """An entry of the audit log: who did what."""

    act: str
    """What was done, such as acknowledge or silence."""
    at: str
    by: str
    """The name of the person or of the API key."""
    through: str
    """Where it was done, such as page, cli or api."""
    incident: str | None
    """The id of the incident that it is about."""
    silence: str | None
    """The id of the silence that it is about."""
    probe: str | None
    """The id of the probe that it is about."""
    maintenance: str | None
    """The id of the maintenance that it is about."""
    comment: str


class PauseJson(TypedDict):
    """A probe does not run at present."""

    since: str
    until: str | None
    """When it ends; null: when someone resumes the probe."""
    by: str
    """The name of the person or of the API key."""
    through: str
    """Where it was done, such as page, cli or api."""
    comment: str


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ProbePauseJson(TypedDict):
    """A probe, and whether it is paused."""

    probe: str
    """The id of the probe."""
    pause: PauseJson | None
    """null: it runs."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class RunRequestJson(TypedDict):
    """A run that is requested of the running service."""

    probe: str
    """The id of the probe."""
    slot: str
    """The instant of the request. The result of the run has this slot, or one shortly after it."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ForgottenJobsJson(TypedDict):
    """Missing jobs that are no longer expected, starting with the next run of their probe."""

    probe: str
    """The id of the probe."""
    jobs: list[str]
    """Their names."""


def serialize_forgotten_jobs(forgotten: ForgottenJobs) -> ForgottenJobsJson:
    return {"probe": forgotten.probe_id, "jobs": list(forgotten.jobs)}


def serialize_pause(pause: Pause | None) -> PauseJson | None:
    if pause is None:
        return None
    return {
        "since": format_iso8601(pause.started_at),
        "until": format_optional_iso8601(pause.ends_at),
        "by": pause.actor.name,
        "through": pause.actor.interface.value,
        "comment": pause.comment,
    }


def serialize_probe_pause(probe_id: str, pause: Pause | None) -> ProbePauseJson:
    return {"probe": probe_id, "pause": serialize_pause(pause)}


def serialize_run_request(probe_id: str, slot: int) -> RunRequestJson:
    return {"probe": probe_id, "slot": format_iso8601(slot)}


def serialize_acknowledgement(acknowledgement: Acknowledgement | None) -> AcknowledgementJson | None:
    if acknowledgement is None:
        return None
    return {
        "at": format_iso8601(acknowledgement.at),
        "by": acknowledgement.actor.name,
        "through": acknowledgement.actor.interface.value,
        "comment": acknowledgement.comment,
    }


def serialize_incident_acknowledgement(
    incident: str, acknowledgement: Acknowledgement | None
) -> IncidentAcknowledgementJson:
    return {"incident": incident, "acknowledgement": serialize_acknowledgement(acknowledgement)}


def serialize_closure(closure: Closure) -> ClosureJson:
    return {
        "at": format_iso8601(closure.at),
        "by": closure.actor.name,
        "through": closure.actor.interface.value,
        "comment": closure.comment,
    }


def serialize_incident_closure(incident: str, closure: Closure, outlook: str) -> IncidentClosureJson:
    """`outlook`: a clause, or empty."""
    return {
        "incident": incident,
        "closure": serialize_closure(closure),
        "outlook": format_as_sentence(outlook) if outlook else "",
    }


def serialize_silence(silence: Silence) -> SilenceJson:
    probe = silence.matcher.probe
    return {
        "id": silence.id,
        "match": {
            "id": probe.probe or None,
            "group": probe.group or None,
            "tags": sorted(probe.tags),
            "kind": probe.kind or None,
            "severity": probe.severity,
            "subject": silence.matcher.subject_pattern or None,
            "all": silence.matcher.is_empty,
        },
        "incident": silence.incident or None,
        "started_at": format_iso8601(silence.started_at),
        "until": format_iso8601(silence.ends_at),
        "by": silence.actor.name,
        "through": silence.actor.interface.value,
        "comment": silence.comment,
        "ended_at": format_optional_iso8601(silence.ended_at),
        "ended_by": silence.ended_by,
    }


def serialize_started_silence(
    silence: Silence, open_incident_count: int, selection: SelectedProbeCountAndWarnings
) -> StartedSilenceJson:
    return {
        "silence": serialize_silence(silence),
        "open_incident_count": open_incident_count,
        "probe_count": selection.probe_count,
        "warnings": list(map(format_as_sentence, selection.warnings)),
    }


def serialize_recorded_act(act: OperatorAuditLogEntry) -> RecordedActJson:
    return {
        "act": act.kind.value,
        "at": format_iso8601(act.occurred_at),
        "by": act.actor.name,
        "through": act.actor.interface.value,
        "incident": act.incident or None,
        "silence": act.silence or None,
        "probe": act.probe or None,
        "maintenance": act.maintenance or None,
        "comment": act.comment,
    }
