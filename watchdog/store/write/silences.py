"""Silences: their beginning, which incidents they select, and that they have ended.

An incident is selected by a silence when it opens, or when the silence begins. Both happen under the advisory lock of
incident groups, so that no incident falls between them. Notifications are held back when they would be leased.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.domain.acts import (
    Actor,
    ActSubjectKind,
    OperatorActKind,
    OperatorActRefusalReason,
    OperatorActRefusedError,
)
from watchdog.domain.formatting import format_number, format_utc_timestamp
from watchdog.domain.model import IncidentEvent, ProbeInfo
from watchdog.domain.silencing import MAX_ACTIVE_SILENCES, Silence, SilenceMatcher
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.act_tables import silence_is_in_effect, silenced_incidents, silences
from watchdog.store.codec import decode_probe_info
from watchdog.store.database import Database
from watchdog.store.read.acts import build_silence_from_row, encode_silence_matcher
from watchdog.store.read.alert_context import INCIDENTS_WITH_PROBE_INFO_QUERY
from watchdog.store.tables import incidents, probes
from watchdog.store.write.audit import record_operator_act
from watchdog.store.write.incident_groups import INCIDENT_GROUPS_LOCK_KEY
from watchdog.store.write.incident_locks import lock_incident, lock_incidents
from watchdog.store.write.outbox_rows import enqueue_message_edit_notifications


def begin_silence(database: Database, silence: Silence) -> tuple[Silence, int]:
    """Store a silence that begins now, unless there is one with its id. Returns the silence that is stored, and how
    many open incidents it selected when it began. Raises OperatorActRefusedError if there are too many."""
    while True:
        with database.open_write_transaction() as connection:
            open_incidents = _lock_selected_open_incidents(database, connection, [silence])
            if open_incidents is None:
                continue
            if (stored := _load_silence_of_earlier_request(connection, silence)) is not None:
                return stored
            return silence, _store_silence_of_open_incidents(connection, silence, open_incidents)


def begin_silences_unless_repeated(database: Database, new: Sequence[Silence], tolerance_ms: int) -> list[Silence]:
    """Store those silences that repeat none in effect: one with the same matcher that ends at most `tolerance_ms`
    earlier. Returns the silence that each of them is or repeats. Raises OperatorActRefusedError if there are too
    many."""
    by_matcher = {encode_silence_matcher(silence.matcher): silence for silence in new}
    while True:
        with database.open_write_transaction() as connection:
            open_incidents = _lock_selected_open_incidents(database, connection, new)
            if open_incidents is None:
                continue
            repeated = _load_silences_that_new_ones_repeat(connection, by_matcher, tolerance_ms)
            for matcher, silence in by_matcher.items():
                if matcher not in repeated:
                    _store_silence_of_open_incidents(connection, silence, open_incidents)
            return [repeated.get(matcher, silence) for matcher, silence in by_matcher.items()]


def _load_silences_that_new_ones_repeat(
    connection: sa.Connection, by_matcher: Mapping[str, Silence], tolerance_ms: int
) -> dict[str, Silence]:
    """The silences in effect that the given ones repeat, by encoded matcher."""
    is_same = silence_is_in_effect, silences.c.incident == "", silences.c.matcher.in_(by_matcher)
    repeated: dict[str, Silence] = {}
    for row in connection.execute(sa.select(silences).where(*is_same).order_by(silences.c.ends_at)):
        if row.ends_at >= by_matcher[row.matcher].ends_at - tolerance_ms:
            repeated[row.matcher] = build_silence_from_row(row)
    return repeated


class _OpenIncident(NamedTuple):
    id: str
    probe: ProbeInfo
    subject: str


def _lock_selected_open_incidents(
    database: Database, connection: sa.Connection, new: Iterable[Silence]
) -> list[_OpenIncident] | None:
    """The open incidents that these silences select. Takes the locks in the order of the recorder: probes, incident
    groups. None: an incident of another probe opened before the second lock was held."""
    matchers = [silence.matcher for silence in new]
    locked = database.lock_probes(
        connection, {each.probe.database_id for each in _list_open_incidents_selected_by_matchers(connection, matchers)}
    )
    database.acquire_advisory_lock(connection, INCIDENT_GROUPS_LOCK_KEY)
    selected = _list_open_incidents_selected_by_matchers(connection, matchers)
    return selected if {each.probe.database_id for each in selected} <= set(locked) else None


def _list_open_incidents_selected_by_matchers(
    connection: sa.Connection, matchers: Collection[SilenceMatcher]
) -> list[_OpenIncident]:
    query = INCIDENTS_WITH_PROBE_INFO_QUERY.where(incidents.c.resolved_at.is_(None))
    rows = connection.execute(query)
    opened = [_OpenIncident(row.id, decode_probe_info(row.probe, row.info), row.subject) for row in rows]
    return [
        each for each in opened if any(not matcher.describe_mismatch(each.probe, each.subject) for matcher in matchers)
    ]


def _store_silence_of_open_incidents(
    connection: sa.Connection, silence: Silence, open_incidents: Iterable[_OpenIncident]
) -> int:
    """How many of them it selects. Raises OperatorActRefusedError if there are too many silences."""
    selected = [each.id for each in open_incidents if not silence.matcher.describe_mismatch(each.probe, each.subject)]
    _store_silence(connection, silence, selected)
    return len(selected)


def begin_silence_until_resolved(database: Database, silence: Silence) -> Silence:
    """Store a silence of its incident alone that begins now. Returns it with a matcher, or the one that is in effect.
    Raises OperatorActRefusedError if the incident is unknown or resolved, or there are too many silences."""
    now = silence.started_at
    with database.open_write_transaction() as connection:
        incident = lock_incident(database, connection, silence.incident)
        if incident.resolved_at is not None:
            resolved = format_utc_timestamp(incident.resolved_at, now)
            message = f"the incident was resolved at {resolved}: only an open incident can be silenced"
            raise OperatorActRefusedError(OperatorActRefusalReason.CONFLICT, message)
        database.acquire_advisory_lock(connection, INCIDENT_GROUPS_LOCK_KEY)
        return _begin_silence_of_locked_incident(connection, silence, incident)


def begin_silences_until_resolved(database: Database, new: Sequence[Silence]) -> list[Silence]:
    """The same for those of several incidents that are open: all or none. Raises OperatorActRefusedError if none of
    them is."""
    by_incident = {silence.incident: silence for silence in new}
    with database.open_write_transaction() as connection:
        rows = [row for row in lock_incidents(database, connection, by_incident) if row.resolved_at is None]
        if not rows:
            raise OperatorActRefusedError(
                OperatorActRefusalReason.CONFLICT, "none of the incidents is open: only an open one can be silenced"
            )
        database.acquire_advisory_lock(connection, INCIDENT_GROUPS_LOCK_KEY)
        return [_begin_silence_of_locked_incident(connection, by_incident[row.id], row) for row in rows]


def _begin_silence_of_locked_incident(connection: sa.Connection, silence: Silence, incident: Any) -> Silence:
    """`incident`: the row of an open incident. Under the lock of incident groups."""
    is_same = silence_is_in_effect, silences.c.incident == incident.id
    if (row := connection.execute(sa.select(silences).where(*is_same)).first()) is not None:
        return build_silence_from_row(row)
    probe_id = connection.execute(sa.select(probes.c.probe_id).where(probes.c.id == incident.probe)).scalar_one()
    matcher = SilenceMatcher.of_incident(probe_id, incident.subject)
    silence = replace(silence, incident=incident.id, matcher=matcher)
    _store_silence(connection, silence, [incident.id])
    return silence


def _store_silence(connection: sa.Connection, silence: Silence, selected_incidents: Collection[str]) -> None:
    """Store the silence, and enqueue edits of the messages about its incidents. Raises OperatorActRefusedError if too
    many are in effect. Under the locks of the probes and of incident groups."""
    in_effect = sa.select(sa.func.count()).select_from(silences).where(silence_is_in_effect)
    if connection.execute(in_effect).scalar_one() >= MAX_ACTIVE_SILENCES:
        raise OperatorActRefusedError(
            OperatorActRefusalReason.CONFLICT,
            f"{format_number(MAX_ACTIVE_SILENCES)} silences are in effect, and no more are possible: end some, or"
            " select a group or a tag with a single one",
        )
    connection.execute(
        sa.insert(silences).values(
            id=silence.id,
            matcher=encode_silence_matcher(silence.matcher),
            started_at=silence.started_at,
            ends_at=silence.ends_at,
            author=silence.actor.name,
            interface=silence.actor.interface,
            comment=silence.comment,
            ended_by="",
            incident=silence.incident,
        )
    )
    record_operator_act(
        connection,
        OperatorActKind.SILENCE,
        silence.actor,
        silence.started_at,
        silence=silence.id,
        comment=silence.comment,
    )
    rows = [{"incident": id, "silence": silence.id, "since": silence.started_at} for id in selected_incidents]
    if rows:
        connection.execute(sa.insert(silenced_incidents), rows)
        enqueue_message_edit_notifications(
            connection, selected_incidents, IncidentEvent.SILENCE_BEGAN_OR_ENDED, silence.started_at
        )


def _load_silence_of_earlier_request(connection: sa.Connection, silence: Silence) -> tuple[Silence, int] | None:
    row = connection.execute(sa.select(silences).where(silences.c.id == silence.id)).first()
    if row is None:
        return None
    stored = build_silence_from_row(row)
    if stored.matcher != silence.matcher:
        raise OperatorActRefusedError(
            OperatorActRefusalReason.CONFLICT, f"the key was used for another silence, {stored.id}: use a new key"
        )
    is_first = silenced_incidents.c.silence == stored.id, silenced_incidents.c.since == stored.started_at
    count = sa.select(sa.func.count()).select_from(silenced_incidents).where(*is_first)
    return stored, connection.execute(count).scalar_one()


def load_silences_for_new_incidents(connection: sa.Connection, now: int) -> list[Silence]:
    """The silences that select incidents which open now. Under the lock of incident groups."""
    query = sa.select(silences).where(silence_is_in_effect, silences.c.ends_at > now, silences.c.incident == "")
    return [build_silence_from_row(row) for row in connection.execute(query.order_by(silences.c.id))]


def store_silences_of_incident(
    connection: sa.Connection, incident: str, selecting: Iterable[Silence], now: int
) -> None:
    rows = [{"incident": incident, "silence": silence.id, "since": now} for silence in selecting]
    if rows:
        connection.execute(sa.insert(silenced_incidents), rows)


def mark_silences_ended(
    connection: sa.Connection, ids: Collection[str], now: int, ended_by: str = ""
) -> Sequence[str]:  # fmt: skip
    """Returns those that no one else has ended. `ended_by`: a person; empty: they expired."""
    update = sa.update(silences).where(silences.c.id.in_(ids), silence_is_in_effect)
    ended = update.values(ended_at=now, ended_by=ended_by).returning(silences.c.id)
    return list(connection.execute(ended).scalars())


def load_silence_by_id_or_raise_if_ended(connection: sa.Connection, silence: str, now: int) -> Silence:
    """Raises OperatorActRefusedError if it is unknown or has ended."""
    id = replace_unstorable_characters(silence)
    row: Any = connection.execute(sa.select(silences).where(silences.c.id == id)).first()
    if row is None:
        raise OperatorActRefusedError(
            OperatorActRefusalReason.NOT_FOUND, f"no silence has the id {id}", unknown_subject=ActSubjectKind.SILENCE
        )
    if row.ended_at is not None:
        by = f", by {row.ended_by}" if row.ended_by else ""
        message = f"the silence {id} ended at {format_utc_timestamp(row.ended_at, now)}{by}"
        raise OperatorActRefusedError(OperatorActRefusalReason.CONFLICT, message)
    return build_silence_from_row(row)


def list_ids_of_expired_silences(connection: sa.Connection, now: int) -> list[str]:
    """Of those in effect: whose time is over, or whose only incident has been resolved."""
    is_open = sa.exists().where(incidents.c.id == silences.c.incident, incidents.c.resolved_at.is_(None))
    is_over = (silences.c.ends_at <= now) | ((silences.c.incident != "") & ~is_open)
    query = sa.select(silences.c.id).where(silence_is_in_effect, is_over)
    return list(connection.execute(query.order_by(silences.c.ends_at)).scalars())


def record_unsilence_act(connection: sa.Connection, silence: str, actor: Actor, now: int) -> None:
    record_operator_act(connection, OperatorActKind.UNSILENCE, actor, now, silence=silence)
