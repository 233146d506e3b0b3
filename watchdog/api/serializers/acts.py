"""Acknowledgements and silences as JSON. Instants are ISO 8601 in UTC."""

from __future__ import annotations

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.serializers.instants import format_optional_iso8601
from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG
from watchdog.domain.acts import Acknowledgement
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.silencing import Silence


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class AcknowledgementJson(TypedDict):
    """Who takes care of an incident."""

    at: str
    by: str
    """The name of the person or of the API key."""
    through: str
    """Where it was done, such as page, command or api."""
    comment: str


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class SilenceMatchJson(TypedDict):
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
    match: SilenceMatchJson
    started_at: str
    until: str
    """When it ends."""
    by: str
    through: str
    """Where it was done, such as page, command or api."""
    comment: str
    ended_at: str | None
    """When it ended; null: it is in effect."""
    ended_by: str
    """The person who ended it; empty if it expired."""


def serialize_acknowledgement(acknowledgement: Acknowledgement | None) -> AcknowledgementJson | None:
    if acknowledgement is None:
        return None
    return {
        "at": format_iso8601(acknowledgement.at),
        "by": acknowledgement.actor.name,
        "through": acknowledgement.actor.interface.value,
        "comment": acknowledgement.comment,
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
        "started_at": format_iso8601(silence.started_at),
        "until": format_iso8601(silence.ends_at),
        "by": silence.actor.name,
        "through": silence.actor.interface.value,
        "comment": silence.comment,
        "ended_at": format_optional_iso8601(silence.ended_at),
        "ended_by": silence.ended_by,
    }
