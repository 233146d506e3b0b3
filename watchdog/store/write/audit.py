"""The log of who did what."""

from __future__ import annotations

import sqlalchemy as sa

from watchdog.domain.acts import Actor, OperatorActKind
from watchdog.store.act_tables import acts


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
    """In the transaction of the act."""
    connection.execute(
        sa.insert(acts).values(
            kind=kind,
            occurred_at=now,
            author=actor.name,
            interface=actor.interface,
            incident=incident,
            silence=silence,
            probe=probe,
            maintenance=maintenance,
            comment=comment,
        )
    )
