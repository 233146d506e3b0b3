"""The outbox: what is still to be told, to whom, in order, at least once.

A row is waiting until the receiver has confirmed it (`sent`), a later row told it too (`merged`), or nothing helps
(`dead`, kept visible). A sender holds a row by token and lease; a lease that has run out is anyone's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from watchdog.model import Change, Event, Json, Notification
from watchdog.store import codec
from watchdog.store.database import Database
from watchdog.store.tables import destinations, outbox

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
    merged: bool = False
    """It tells the opening, too, which this destination has not heard."""


def enqueue_opened(connection: sa.Connection, change: Change, told: Sequence[str], now: int) -> None:
    if told:
        rows = [_row(change.incident, destination, OPENED, Event.OPENED, now) for destination in told]
        connection.execute(sa.insert(outbox), rows)


def enqueue_resolved(
    connection: sa.Connection, changes: Iterable[Change], now: int, quiet: Collection[str] = frozenset()
) -> None:
    """Whoever was told of the opening hears of the end, whatever the routes say by now; `quiet` destinations do not."""
    for change in changes:
        heard = sa.select(outbox.c.destination).where(outbox.c.incident == change.incident, outbox.c.seq == OPENED)
        told = [d for d in connection.execute(heard).scalars() if d not in quiet]
        if told:
            rows = [_row(change.incident, destination, RESOLVED, Event.RESOLVED, now) for destination in told]
            connection.execute(sa.insert(outbox), rows)


def _row(incident: str, destination: str, seq: int, event: Event, now: int) -> dict[str, Any]:
    return {
        "incident": incident, "destination": destination, "seq": seq, "event": event, "state": "waiting",
        "created_at": now, "due_at": now, "attempts": 0, "detail": "",
    }  # fmt: skip


class Outbox:
    def __init__(self, database: Database):
        self.database = database

    def claim(self, now: int, lease: int, busy: Collection[str] = (), limit: int = 100) -> list[Held]:
        """Take at most one due notification for each destination that is not busy, for `lease` ms.

        An incident's `resolved` waits for its `opened`; when both wait, one message tells both.
        """
        earlier = outbox.alias()
        blocked = sa.exists().where(
            earlier.c.incident == outbox.c.incident, earlier.c.destination == outbox.c.destination,
            earlier.c.seq < outbox.c.seq, earlier.c.state == "waiting",
        )  # fmt: skip
        paused = sa.select(destinations.c.name).where(destinations.c.resume_at > now)
        free = outbox.c.leased_until.is_(None) | (outbox.c.leased_until <= now)
        due = (
            sa.select(outbox)
            .where(outbox.c.state == "waiting", outbox.c.due_at <= now, free, ~blocked)
            .where(outbox.c.destination.not_in(paused), outbox.c.destination.not_in(list(busy)))
            .order_by(outbox.c.due_at, outbox.c.created_at, outbox.c.incident)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        with self.database.write() as connection:
            first: dict[str, Any] = {}
            for row in connection.execute(due):
                first.setdefault(row.destination, row)
            return [self._take(connection, row, now + lease) for row in first.values()]

    def _take(self, connection: sa.Connection, row: Any, until: int) -> Held:
        token = uuid4().hex
        pair = (outbox.c.incident == row.incident, outbox.c.destination == row.destination)
        held = sa.update(outbox).where(*pair, outbox.c.state == "waiting").values(token=token, leased_until=until)
        connection.execute(held)
        told = {other.seq: other for other in connection.execute(sa.select(outbox).where(*pair))}
        last = told[max(told)]
        notification = Notification(row.incident, row.destination, last.seq, Event(last.event))
        unheard = last.seq == RESOLVED and told[OPENED].state != "sent"
        return Held(notification, token, row.attempts, codec.loads(told[OPENED].receipt) or {}, unheard)

    def sent(self, held: Held, receipt: Mapping[str, Json], now: int) -> None:
        """The receiver has confirmed."""
        with self.database.write() as connection:
            mine = self._mine(held)
            values = {"token": None, "leased_until": None, "done_at": now, "attempts": held.attempts + 1, "detail": ""}
            this = outbox.c.seq == held.notification.seq
            done = sa.update(outbox).where(*mine, this)
            connection.execute(done.values(state="sent", receipt=codec.dumps(dict(receipt)), **values))
            connection.execute(sa.update(outbox).where(*self._mine(held), ~this).values(state="merged", **values))

    def retry(self, held: Held, due: int, detail: str, *, pause: bool = False) -> None:
        """Try again at `due`. `pause`: the receiver itself asked for the wait, so nothing else goes there earlier."""
        with self.database.write() as connection:
            values = {
                "token": None,
                "leased_until": None,
                "due_at": due,
                "detail": detail,
                "attempts": held.attempts + 1,
            }
            connection.execute(sa.update(outbox).where(*self._mine(held)).values(**values))
            if pause:
                insert = self.database.insert(destinations).values(name=held.notification.destination, resume_at=due)
                connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"resume_at": due}))

    def bury(self, held: Held, detail: str, now: int) -> None:
        """Nothing helps: keep it as a dead letter, with the reason."""
        with self.database.write() as connection:
            values = {"state": "dead", "token": None, "leased_until": None, "done_at": now, "detail": detail}
            connection.execute(sa.update(outbox).where(*self._mine(held)).values(attempts=held.attempts + 1, **values))

    def still_held(self, held: Held, connection: sa.Connection) -> bool:
        """Whether the lease is still ours: asked just before sending, since a paused sender may have lost it."""
        return connection.execute(sa.select(outbox.c.seq).where(*self._mine(held)).limit(1)).first() is not None

    def _mine(self, held: Held) -> tuple[sa.ColumnElement[bool], ...]:
        n = held.notification
        pair = (outbox.c.incident == n.incident, outbox.c.destination == n.destination)
        return (*pair, outbox.c.token == held.token, outbox.c.state == "waiting")

    def waiting(self) -> int:
        with self.database.read() as connection:
            count = sa.select(sa.func.count()).select_from(outbox).where(outbox.c.state == "waiting")
            return connection.execute(count).scalar_one()
