"""The outbox: what is still to be told, to whom, in order, at least once.

A row is waiting until the receiver has confirmed it (`sent`), a later row told it too (`merged`), or nothing helps
(`dead`, kept visible). A sender holds a row by token and lease; a lease that has run out is anyone's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from watchdog.model import Event, Json, Notification
from watchdog.store import codec
from watchdog.store.database import Database
from watchdog.store.tables import destinations, outbox, waiting

OPENED, RESOLVED = 0, 1
"""The sequence of an incident's notifications at one destination."""


@dataclass(frozen=True, slots=True)
class Held:
    """A notification that we hold the lease of."""

    notification: Notification
    token: str
    attempts: int
    """How often it was tried before."""
    receipt: Mapping[str, Json]
    """What the opening's delivery returned."""
    partly: Mapping[str, Json]
    """What the last try came to, of one that came to something."""
    created_at: int
    merged: bool = False
    """It tells the opening, too, which this destination has not heard."""


def enqueue_opened(connection: sa.Connection, incident: str, told: Iterable[str], now: int) -> None:
    rows = [_row(incident, destination, OPENED, Event.OPENED, now) for destination in told]
    if rows:
        connection.execute(sa.insert(outbox), rows)


def enqueue_resolved(connection: sa.Connection, incident: str, now: int, quiet: Collection[str]) -> None:
    """Whoever was told of the opening hears of the end, whatever the routes say by now; `quiet` destinations do not."""
    heard = sa.select(outbox.c.destination).where(outbox.c.incident == incident, outbox.c.seq == OPENED)
    told = [destination for destination in connection.execute(heard).scalars() if destination not in quiet]
    if told:
        rows = [_row(incident, destination, RESOLVED, Event.RESOLVED, now) for destination in told]
        connection.execute(sa.insert(outbox), rows)


def _row(incident: str, destination: str, seq: int, event: Event, now: int) -> dict[str, Any]:
    return {
        "incident": incident, "destination": destination, "seq": seq, "event": event, "state": "waiting",
        "created_at": now, "due_at": now, "attempts": 0, "detail": "",
    }  # fmt: skip


class Outbox:
    def __init__(self, database: Database):
        self.database = database

    def claim(self, now: int, lease: int, to: Collection[str]) -> list[Held]:
        """Take one due notification for each of these destinations that did not ask for a pause, for `lease` ms.

        What waits longest goes first. An incident's `resolved` waits for its `opened`; when both wait, one message
        tells both. What is for others is left to a process that knows them.
        """
        earlier = outbox.alias()
        blocked = sa.exists().where(
            earlier.c.incident == outbox.c.incident, earlier.c.destination == outbox.c.destination,
            earlier.c.seq < outbox.c.seq, earlier.c.state == "waiting",
        )  # fmt: skip
        free = outbox.c.leased_until.is_(None) | (outbox.c.leased_until <= now)
        due = (waiting, outbox.c.due_at <= now, free)
        paused = sa.select(destinations.c.name).where(destinations.c.resume_at > now)
        open_ = outbox.c.destination.in_(to), outbox.c.destination.not_in(paused)
        names = sa.select(outbox.c.destination).where(*due, *open_).distinct()
        first = (
            sa.select(outbox)
            .where(*due, ~blocked, outbox.c.destination == sa.bindparam("name"))
            .order_by(outbox.c.due_at, outbox.c.created_at, outbox.c.incident)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        with self.database.write() as connection:
            ready = sorted(connection.execute(names).scalars())
            rows = [connection.execute(first, {"name": name}).first() for name in ready]
            return [self._take(connection, row, now + lease) for row in rows if row is not None]

    def _take(self, connection: sa.Connection, row: Any, until: int) -> Held:
        token = uuid4().hex
        pair = (outbox.c.incident == row.incident, outbox.c.destination == row.destination)
        connection.execute(sa.update(outbox).where(*pair, waiting).values(token=token, leased_until=until))
        told = {other.seq: other for other in connection.execute(sa.select(outbox).where(*pair))}
        last = told[max(told)]
        notification = Notification(row.incident, row.destination, last.seq, Event(last.event))
        unheard = last.seq == RESOLVED and told[OPENED].state != "sent"
        opened = codec.loads(told[OPENED].receipt) if told[OPENED].state == "sent" else None
        partly = codec.loads(last.receipt)
        return Held(notification, token, row.attempts, opened or {}, partly or {}, last.created_at, unheard)

    def sent(self, held: Held, receipt: Mapping[str, Json], now: int) -> None:
        """The receiver has confirmed."""
        with self.database.write() as connection:
            this = outbox.c.seq == held.notification.seq
            told = {"done_at": now, "detail": ""}
            self._let_go(connection, held, ~this, state="merged", **told)
            self._let_go(connection, held, this, state="sent", receipt=codec.dumps(dict(receipt)), **told)

    def retry(
        self, held: Held, due: int, detail: str, *, partly: Mapping[str, Json] = {}, resume: int | None = None
    ) -> None:
        """Try again at `due`. `partly`: what this try came to, for the next one to know. `resume`: the receiver itself
        asked that nothing goes there earlier."""
        with self.database.write() as connection:
            kept = {**held.partly, **partly}
            receipt = codec.dumps(kept) if kept else None
            self._let_go(connection, held, due_at=due, detail=codec.clean(detail), receipt=receipt)
            if resume is not None:
                insert = self.database.insert(destinations).values(name=held.notification.destination, resume_at=resume)
                longer = {"set_": {"resume_at": resume}, "where": destinations.c.resume_at < resume}
                connection.execute(insert.on_conflict_do_update(index_elements=["name"], **longer))

    def bury(self, held: Held, detail: str, now: int) -> None:
        """Nothing helps: keep it as a dead letter, with the reason."""
        with self.database.write() as connection:
            self._let_go(connection, held, state="dead", done_at=now, detail=codec.clean(detail))

    def abandon(self, known: Collection[str], before: int, now: int) -> list[tuple[str, str]]:
        """Bury what was written before an instant for destinations that are not among the known.

        Until then another process may know them: an older or a newer configuration runs beside ours. Returns incident
        and destination of each.
        """
        free = outbox.c.leased_until.is_(None) | (outbox.c.leased_until <= now)
        old = (waiting, outbox.c.created_at < before, outbox.c.destination.not_in(known), free)
        buried = {"state": "dead", "done_at": now, "detail": "the destination is no longer configured"}
        update = sa.update(outbox).where(*old).values(token=None, leased_until=None, **buried)
        with self.database.write() as connection:
            rows = connection.execute(update.returning(outbox.c.incident, outbox.c.destination))
            return [(incident, destination) for incident, destination in rows]

    def still_held(self, held: Held, connection: sa.Connection) -> bool:
        """Whether the lease is still ours: asked just before sending, since a paused sender may have lost it."""
        return connection.execute(sa.select(outbox.c.seq).where(*_of(held)).limit(1)).first() is not None

    def _let_go(
        self, connection: sa.Connection, held: Held, *which: sa.ColumnElement[bool], **values: Json
    ) -> None:  # fmt: skip
        """After a try. What another has taken since is no longer ours to mark."""
        done = {"token": None, "leased_until": None, "attempts": held.attempts + 1, **values}
        connection.execute(sa.update(outbox).where(*_of(held), *which).values(**done))


def _of(held: Held) -> tuple[sa.ColumnElement[bool], ...]:
    """The rows that we hold."""
    n = held.notification
    return outbox.c.incident == n.incident, outbox.c.destination == n.destination, outbox.c.token == held.token, waiting
