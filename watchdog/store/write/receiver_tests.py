"""Records tests of destinations in the audit log, and refuses a test too soon after the last one."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from watchdog.domain.acts import Actor, OperatorActKind, OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.formatting import SECOND_MS, format_duration, format_utc_timestamp
from watchdog.store.act_tables import acts
from watchdog.store.database import Database
from watchdog.store.write.audit import record_operator_act

MIN_RECEIVER_TEST_INTERVAL_MS = 30 * SECOND_MS
"""The minimum time between two tests of one destination, which keeps tests from flooding a receiver."""
RECEIVER_TESTS_LOCK_KEY = -6


def record_receiver_test(
    database: Database, destinations: Sequence[str], actor: Actor, comment: str, now: int
) -> None:  # fmt: skip
    """Record a test of all of the destinations, or of none: raises OperatorActRefusedError if one of them was tested a
    moment ago, by any person and through any process."""
    with database.open_write_transaction() as connection:
        database.acquire_advisory_lock(connection, RECEIVER_TESTS_LOCK_KEY)
        is_recent = acts.c.occurred_at > now - MIN_RECEIVER_TEST_INTERVAL_MS, acts.c.occurred_at <= now
        query = sa.select(acts.c.comment, acts.c.occurred_at).where(*is_recent)
        rows = connection.execute(query.where(acts.c.kind == OperatorActKind.TEST_RECEIVER))
        tested_at = {comment.partition(": ")[0]: at for comment, at in rows}
        for destination in destinations:
            if destination in tested_at:
                wait = tested_at[destination] + MIN_RECEIVER_TEST_INTERVAL_MS - now
                tested = format_utc_timestamp(tested_at[destination], now, seconds=True)
                raise OperatorActRefusedError(
                    OperatorActRefusalReason.TOO_SOON,
                    f"{destination} was tested at {tested}: test it again in {format_duration(wait)}",
                )
        for destination in destinations:
            text = ": ".join(filter(None, (destination, comment)))
            record_operator_act(connection, OperatorActKind.TEST_RECEIVER, actor, now, comment=text)
