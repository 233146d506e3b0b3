"""What a person means who states the id of an incident, the beginning of one, or a probe.

All functions raise OperatorActRefusedError.
"""

from __future__ import annotations

import re

import sqlalchemy as sa

from watchdog.domain.acts import ActSubjectKind, OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.model import ProbeInfo
from watchdog.domain.selection import format_similar_name_hint
from watchdog.domain.text import format_display_name, replace_unstorable_characters
from watchdog.store.read.selections import load_active_probe_infos
from watchdog.store.read.status import list_incidents
from watchdog.store.tables import incidents

MIN_INCIDENT_ID_PREFIX_CHARS = 6
MAX_INCIDENT_IDS_IN_REFUSAL = 5
_ID_PREFIX_PATTERN = re.compile(f"[0-9a-f]{{{MIN_INCIDENT_ID_PREFIX_CHARS},}}")
_HEX_PATTERN = re.compile("[0-9a-f]+")
_AFTER_LAST_HEX_DIGIT = "g"


def find_incident_id_or_probe(connection: sa.Connection, text: str) -> str | ProbeInfo:
    """The id of an incident, or a probe that is not retired. `text`: a whole id of an incident, which comes first, the
    id or name of a probe, or the beginning of the id of a single incident. A probe that is named like such a beginning
    is refused: otherwise the person who names a probe could choose what others act on."""
    text = replace_unstorable_characters(text).removesuffix("…")  # as in tables
    if connection.execute(sa.select(incidents.c.id).where(incidents.c.id == text)).first():
        return text
    infos = load_active_probe_infos(connection).values()
    named = sorted((info for info in infos if text in (info.id, info.name)), key=lambda info: info.id != text)
    beginning = _list_incidents_by_id_prefix(connection, text) if _ID_PREFIX_PATTERN.fullmatch(text) else []
    if named and beginning:
        raise _build_ambiguity_refusal(f"{text} is a probe, and an incident has an id that begins so", beginning)
    if named:
        return named[0]
    if len(beginning) > 1:
        raise _build_ambiguity_refusal(f"several incidents have an id that begins with {text}", beginning)
    if beginning:
        return beginning[0]
    similar = format_similar_name_hint(text, (name for info in infos for name in (info.name, info.id)))
    is_short_prefix = _HEX_PATTERN.fullmatch(text) and len(text) < MIN_INCIDENT_ID_PREFIX_CHARS
    prefix_hint = f"; the beginning of an id needs at least {MIN_INCIDENT_ID_PREFIX_CHARS} characters"
    hint = similar or (prefix_hint if is_short_prefix else "")
    raise OperatorActRefusedError(
        OperatorActRefusalReason.NOT_FOUND,
        f"no incident has the id {text}, and no probe has this id or name{hint}",
        unknown_subject=None if similar else ActSubjectKind.INCIDENT,
    )


def find_incident_id_to_act_on(connection: sa.Connection, text: str) -> str:
    """The id of an incident. `text`: as for `find_incident_id_or_probe`; a probe stands for its only open incident."""
    referenced = find_incident_id_or_probe(connection, text)
    if isinstance(referenced, str):
        return referenced
    records = list_incidents(connection, is_open=True, probe_database_ids=[referenced.database_id])
    if len(records) == 1:
        return records[0].incident.id
    name = format_display_name(referenced.name)
    if not records:
        raise OperatorActRefusedError(OperatorActRefusalReason.CONFLICT, f"{name} has no open incident")
    listed = [f"{record.incident.id} ({record.incident.message})" for record in records]
    raise _build_ambiguity_refusal(f"{name} has {len(records)} open incidents", listed)


def _list_incidents_by_id_prefix(connection: sa.Connection, prefix: str) -> list[str]:
    """Their ids, at most one more than is listed."""
    begins_so = incidents.c.id >= prefix, incidents.c.id < prefix + _AFTER_LAST_HEX_DIGIT
    query = sa.select(incidents.c.id).where(*begins_so).order_by(incidents.c.id).limit(MAX_INCIDENT_IDS_IN_REFUSAL + 1)
    return list(connection.execute(query).scalars())


def _build_ambiguity_refusal(problem: str, listed: list[str]) -> OperatorActRefusedError:
    more = " and others" if len(listed) > MAX_INCIDENT_IDS_IN_REFUSAL else ""
    text = f"{problem}; state the id of one of them: {', '.join(listed[:MAX_INCIDENT_IDS_IN_REFUSAL])}{more}"
    return OperatorActRefusedError(OperatorActRefusalReason.INVALID, text)
