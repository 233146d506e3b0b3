"""Acknowledgements, silences, pauses and the log of acts, as pages, commands and tools show them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from watchdog.domain.acts import Acknowledgement, Actor, OperatorActKind, OperatorAuditLogEntry, OperatorInterfaceKind
from watchdog.domain.model import Json, ProbeInfo, Severity
from watchdog.domain.pausing import Pause
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.silencing import Silence, SilenceMatcher, select_silences_by_probe
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.act_tables import (
    acts,
    pause_is_in_effect,
    pauses,
    silence_is_in_effect,
    silenced_incidents,
    silences,
)
from watchdog.store.json_text import decode_nullable_json, encode_storable_json
from watchdog.store.tables import incidents

MAX_INCIDENTS_LOADED_BY_ID = 500
"""Of more, all that are open are read: the values of a statement are limited."""


def encode_silence_matcher(matcher: SilenceMatcher) -> str:
    probe = matcher.probe
    values: dict[str, Json] = {
        "id": probe.probe,
        "group": probe.group,
        "tags": sorted(probe.tags),
        "kind": probe.kind,
        "severity": probe.severity,
        "subject": matcher.subject_pattern,
    }
    return encode_storable_json({name: value for name, value in values.items() if value})


def decode_silence_matcher(text: str) -> SilenceMatcher:
    values: Mapping[str, Any] = decode_nullable_json(text)
    severity = values.get("severity")
    probe = ProbeMatcher(
        severity=None if severity is None else Severity(severity),
        tags=frozenset(values.get("tags", ())),
        group=values.get("group", ""),
        kind=values.get("kind", ""),
        probe=values.get("id", ""),
    )
    return SilenceMatcher(probe, values.get("subject", ""))


def build_silence_from_row(row: Any) -> Silence:
    """`row`: of the table silences."""
    return Silence(
        id=row.id,
        matcher=decode_silence_matcher(row.matcher),
        started_at=row.started_at,
        ends_at=row.ends_at,
        actor=Actor(row.author, OperatorInterfaceKind(row.interface)),
        comment=row.comment,
        ended_at=row.ended_at,
        ended_by=row.ended_by,
        incident=row.incident,
    )


def build_pause_from_row(row: Any) -> Pause:
    """`row`: of the table pauses."""
    return Pause(row.started_at, row.ends_at, Actor(row.author, OperatorInterfaceKind(row.interface)), row.comment)


def load_pauses_in_effect(connection: sa.Connection, probes: Collection[int] | None = None) -> dict[int, Pause]:
    """By database id of the probe. `probes`: of these alone."""
    query = sa.select(pauses).where(pause_is_in_effect)
    if probes is not None:
        query = query.where(pauses.c.probe.in_(probes))
    return {row.probe: build_pause_from_row(row) for row in connection.execute(query)}


def build_acknowledgement_from_row(row: Any) -> Acknowledgement | None:
    """`row`: of the table incidents. None if no one has acknowledged it."""
    if row.acknowledged_at is None:
        return None
    actor = Actor(row.acknowledged_by, OperatorInterfaceKind(row.acknowledged_through))
    return Acknowledgement(row.acknowledged_at, actor, row.acknowledgement_comment)


def list_silences_in_effect(connection: sa.Connection) -> list[Silence]:
    """Those that end first come first."""
    query = sa.select(silences).where(silence_is_in_effect).order_by(silences.c.ends_at, silences.c.id)
    return [build_silence_from_row(row) for row in connection.execute(query)]


def list_silences(
    connection: sa.Connection, *, limit: int, is_in_effect: bool | None = None, after: tuple[int, str] | None = None
) -> list[Silence]:
    """Those that began last, newest first. `after`: behind the one that began at this instant and has this id."""
    query = sa.select(silences).order_by(silences.c.started_at.desc(), silences.c.id).limit(limit)
    if is_in_effect is not None:
        query = query.where(silence_is_in_effect if is_in_effect else ~silence_is_in_effect)
    if after is not None:
        started_at, id = after
        is_same_instant = sa.and_(
            silences.c.started_at == started_at, silences.c.id > replace_unstorable_characters(id)
        )
        query = query.where(silences.c.started_at <= started_at, (silences.c.started_at < started_at) | is_same_instant)
    return [build_silence_from_row(row) for row in connection.execute(query)]


def load_silence(connection: sa.Connection, silence: str) -> Silence | None:
    query = sa.select(silences).where(silences.c.id == replace_unstorable_characters(silence))
    row = connection.execute(query).first()
    return None if row is None else build_silence_from_row(row)


def list_silences_of_incident(connection: sa.Connection, incident: str) -> list[Silence]:
    """Every silence that selected the incident, in effect or ended, in the order in which they began."""
    query = (
        sa.select(silences)
        .join(silenced_incidents, silenced_incidents.c.silence == silences.c.id)
        .where(silenced_incidents.c.incident == incident)
    )
    return [
        build_silence_from_row(row) for row in connection.execute(query.order_by(silences.c.started_at, silences.c.id))
    ]


def load_silences_by_probe(connection: sa.Connection, probes: Iterable[ProbeInfo]) -> dict[int, tuple[Silence, ...]]:
    """Those in effect that may select incidents of each probe, by their end. Probes without any are missing."""
    in_effect = list_silences_in_effect(connection)
    return select_silences_by_probe(in_effect, probes) if in_effect else {}


def load_silences_by_incident(
    connection: sa.Connection, only: Collection[str] | None = None
) -> dict[str, tuple[Silence, ...]]:
    """Those in effect that select each open incident, by their end. Incidents that none selects are missing. `only`: at
    least those of these incidents."""
    if only is not None and not only:
        return {}
    number_by_id = {silence.id: (i, silence) for i, silence in enumerate(list_silences_in_effect(connection))}
    if not number_by_id:
        return {}
    is_open = incidents.c.id == silenced_incidents.c.incident, incidents.c.resolved_at.is_(None)
    query = sa.select(silenced_incidents.c.incident, silenced_incidents.c.silence).where(*is_open)
    if only is not None and len(only) <= MAX_INCIDENTS_LOADED_BY_ID:
        query = query.where(incidents.c.id.in_(only))
    by_incident: dict[str, list[tuple[int, Silence]]] = {}
    for row in connection.execute(query):
        if row.silence in number_by_id:
            by_incident.setdefault(row.incident, []).append(number_by_id[row.silence])
    return {
        incident: tuple(silence for _, silence in sorted(selecting, key=itemgetter(0)))
        for incident, selecting in by_incident.items()
    }


def list_operator_acts_about_incident(connection: sa.Connection, incident: str) -> list[OperatorAuditLogEntry]:
    """Oldest first."""
    query = sa.select(acts).where(acts.c.incident == incident).order_by(acts.c.id)
    return [_build_act_from_row(row) for row in connection.execute(query)]


def list_acts(
    connection: sa.Connection, *, limit: int, incident: str = "", before_id: int | None = None
) -> list[OperatorAuditLogEntry]:
    """The audit log, newest first: of every act, or of those about an incident."""
    query = sa.select(acts).order_by(acts.c.id.desc()).limit(limit)
    if incident:
        query = query.where(acts.c.incident == replace_unstorable_characters(incident))
    if before_id is not None:
        query = query.where(acts.c.id < before_id)
    return [_build_act_from_row(row) for row in connection.execute(query)]


def _build_act_from_row(row: Any) -> OperatorAuditLogEntry:
    return OperatorAuditLogEntry(
        id=row.id,
        kind=OperatorActKind(row.kind),
        occurred_at=row.occurred_at,
        actor=Actor(row.author, OperatorInterfaceKind(row.interface)),
        incident=row.incident,
        silence=row.silence,
        comment=row.comment,
        probe=row.probe,
        maintenance=row.maintenance,
    )
