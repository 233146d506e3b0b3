"""The log of who did what."""

from __future__ import annotations

import sqlalchemy as sa

from watchdog.domain.acts import Actor, OperatorActKind
from watchdog.domain.transitions import TRANSITION_KIND_BY_ACT
from watchdog.store.act_tables import acts
from watchdog.store.database import Database
from watchdog.store.write.transitions import record_transition


def record_operator_act(
    connection: sa.Connection,
    kind: OperatorActKind,
    actor: Actor,
    now: int,
    *,
    incident: str = "",
    silence: str = "",
    probe: str = "",
    maintenance: str = "",
    comment: str = "",
) -> None:
    """In the transaction of the act, together with the transition that it is."""
    subject = {"incident": incident, "silence": silence, "probe": probe, "maintenance": maintenance}
    row = {"kind": kind, "occurred_at": now, "author": actor.name, "interface": actor.interface, "comment": comment}
    act = connection.execute(sa.insert(acts).values(**row, **subject).returning(acts.c.id)).scalar_one()
    record_transition(connection, TRANSITION_KIND_BY_ACT[kind], now, act=act, **subject)


def record_operator_act_alone(
    database: Database, kind: OperatorActKind, actor: Actor, now: int, *, probe: str = "", comment: str = ""
) -> None:
    """Of an act that changes nothing else in the database."""
    with database.open_write_transaction() as connection:
        record_operator_act(connection, kind, actor, now, probe=probe, comment=comment)
