"""Acknowledgements and silences as JSON. Instants are ISO 8601 in UTC."""

from __future__ import annotations

from watchdog.domain.acts import Acknowledgement
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.model import Json
from watchdog.domain.silencing import Silence


def serialize_acknowledgement(acknowledgement: Acknowledgement | None) -> Json:
    if acknowledgement is None:
        return None
    return {
        "at": format_iso8601(acknowledgement.at),
        "by": acknowledgement.actor.name,
        "through": acknowledgement.actor.interface.value,
        "comment": acknowledgement.comment,
    }


def serialize_silence(silence: Silence) -> Json:
    """`until`: when it ends; once it has ended, `ended_at` states when, and `ended_by` the person who ended it."""
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
        "ended_at": None if silence.ended_at is None else format_iso8601(silence.ended_at),
        "ended_by": silence.ended_by,
    }
