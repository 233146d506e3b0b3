"""Requests of Slack that were accepted, so that none is accepted twice."""

from __future__ import annotations

import sqlalchemy as sa

from watchdog.store.act_tables import slack_requests
from watchdog.store.database import Database


def store_accepted_slack_request(database: Database, signature: str, forgotten_after: int, now: int) -> bool:
    """False: a process on this database has accepted a request with this signature. `forgotten_after`: epoch ms, from
    when on the request is too old anyway."""
    with database.open_write_transaction() as connection:
        connection.execute(sa.delete(slack_requests).where(slack_requests.c.forgotten_after < now))
        insert = database.build_insert_statement(slack_requests)
        values = insert.values(signature=signature, forgotten_after=forgotten_after).on_conflict_do_nothing()
        return connection.execute(values.returning(slack_requests.c.signature)).first() is not None
