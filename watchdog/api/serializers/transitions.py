"""Transitions as JSON. Instants are ISO 8601 in UTC."""

from __future__ import annotations

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.transitions import RecordedTransition


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class TransitionJson(TypedDict):
    """What happened to an incident, a silence, a probe or the configuration."""

    id: int
    """Later transitions have larger ones."""
    kind: str
    """Such as opened, changed, resolved, acknowledged, silenced, paused or reloaded."""
    at: str
    incident: str | None
    """The id of the incident that it is about."""
    silence: str | None
    """The id of the silence that it is about."""
    probe: str | None
    """The id of the probe that it is about."""
    probe_name: str | None
    maintenance: str | None
    """The id of the maintenance that it is about."""
    reason: str | None
    """The cause of the incident, or why it is over."""
    message: str
    """The cause in words, or the configuration that is in use."""
    by: str | None
    """The name of the person or of the API key; null: no person did it."""
    through: str | None
    """Where it was done, such as page, cli or api."""
    comment: str


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class StreamResetJson(TypedDict):
    """Some transitions cannot be repeated: the stream continues with later ones."""

    after: int
    """The id that the client sent."""
    newest: int
    """The id of the last transition so far."""


def serialize_transition(transition: RecordedTransition) -> TransitionJson:
    actor = transition.actor
    return {
        "id": transition.number,
        "kind": transition.kind.value,
        "at": format_iso8601(transition.occurred_at),
        "incident": transition.incident or None,
        "silence": transition.silence or None,
        "probe": transition.probe_id or None,
        "probe_name": transition.probe_name or None,
        "maintenance": transition.maintenance or None,
        "reason": transition.reason or None,
        "message": transition.message,
        "by": None if actor is None else actor.name,
        "through": None if actor is None else actor.interface.value,
        "comment": transition.comment,
    }
