"""What is in a queue of pg-boss."""

from __future__ import annotations

from collections.abc import Container

from watchdog.queues.base import Depth, DepthSystem, Ended, Reach
from watchdog.queues.pgboss import Columns, PgbossQueue, tables
from watchdog.queues.postgres import COUNTING, Session, connected, counted

RIGHTS = "the role needs USAGE on the schema, SELECT on version, queue and job"


class PgbossDepth(PgbossQueue, DepthSystem):
    """What is in a queue of pg-boss. It does not show consumers. The role needs SELECT, no more."""

    @property
    def hides(self) -> Container[str]:
        return ("consumers",)

    async def depth(self, reach: Reach, within: int | None) -> Depth:
        async with connected(self, reach, RIGHTS) as session:
            columns = await tables(self, session, reach)
            found = f'SELECT 1 FROM "{self.in_schema}".queue WHERE name = %(queue)s'
            if not await session.ask(found, {"queue": self.queue}):
                raise self.missing
            depth = await under_way(self, session, columns)
            values = {"queue": self.queue, "within": within or 0}
            if told := await counted(session, reach, OVER.format(self.in_schema), values):
                failed, lately, well = told
                depth = depth._replace(failed=failed, ended=None if within is None else Ended(lately, well))
            return depth


async def under_way(config: PgbossQueue, session: Session, columns: Columns) -> Depth:
    """What waits and what is being worked on."""
    ready = "state IN ('created', 'retry') AND start_after <= now()"
    if "blocked" in columns["job"]:
        ready += " AND NOT blocked"
    ((waiting, oldest, active, delayed, head),) = await session.ask(
        f"""
        SELECT count(*) FILTER (WHERE {ready}),
            (extract(epoch FROM now() - min(start_after) FILTER (WHERE {ready})) * 1000)::bigint,
            count(*) FILTER (WHERE state = 'active'),
            count(*) FILTER (WHERE state <> 'active' AND start_after > now()),
            (
                SELECT id::text FROM "{config.in_schema}".job WHERE name = %(queue)s AND {ready}
                ORDER BY priority DESC, created_on, id LIMIT 1
            )
        FROM "{config.in_schema}".job
        WHERE name = %(queue)s AND state IN ('created', 'retry', 'active')
        """,
        {"queue": config.queue},
        COUNTING,
    )
    return Depth(waiting, active, delayed, oldest=oldest, head=head)


OVER = """
    SELECT count(*) FILTER (WHERE state = 'failed'),
        count(*) FILTER (WHERE state = 'failed' AND completed_on > now() - %(within)s * interval '1 ms'),
        count(*) FILTER (WHERE state = 'completed' AND completed_on > now() - %(within)s * interval '1 ms')
    FROM "{}".job WHERE name = %(queue)s AND state IN ('completed', 'failed')
"""
