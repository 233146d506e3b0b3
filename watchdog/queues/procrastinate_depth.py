"""What is in a queue of Procrastinate."""

from __future__ import annotations

from collections.abc import Container

from watchdog.queues.base import Depth, DepthSystem, Ended, Reach
from watchdog.queues.postgres import connected, counted
from watchdog.queues.procrastinate import RECENT, ProcrastinateQueue, at, there, under_way

RIGHTS = "the role needs SELECT on procrastinate_jobs, _events and _workers"


class ProcrastinateDepth(ProcrastinateQueue, DepthSystem):
    """What is in a queue of Procrastinate 3. It does not show consumers. A queue that holds no job and one that is not
    there are the same."""

    @property
    def hides(self) -> Container[str]:
        return ("consumers",)

    async def depth(self, reach: Reach, within: int | None) -> Depth:
        async with connected(self, reach, RIGHTS) as session:
            await there(session)
            depth = (await under_way(session, self.queue))._replace(consumers=None)  # of any queue, hence not of this
            if told := await counted(session, reach, FAILED, {"queue": self.queue}):
                depth = depth._replace(failed=told[0])
            if within is None:
                return depth
            if told := await counted(session, reach, ENDED, {"queue": self.queue, "within": within}):
                failed, well, kept = told
                depth = depth._replace(ended=Ended(failed, well if kept else None))
            return depth


FAILED = "SELECT count(*) FROM procrastinate_jobs WHERE queue_name = %(queue)s AND status = 'failed'"
ENDED = f"""
    WITH ended AS (
        SELECT status, {at("succeeded", "failed")} > (extract(epoch FROM now()) * 1000)::bigint - %(within)s AS lately
        FROM procrastinate_jobs j
        WHERE id > (SELECT max(id) FROM procrastinate_jobs) - {RECENT}
            AND queue_name = %(queue)s AND status IN ('succeeded', 'failed')
    )
    SELECT count(*) FILTER (WHERE lately AND status = 'failed'), count(*) FILTER (WHERE lately AND status <> 'failed'),
        count(*) FILTER (WHERE status <> 'failed')
    FROM ended
"""
