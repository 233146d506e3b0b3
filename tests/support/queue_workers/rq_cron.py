"""An RQ scheduler with two cron jobs: one every second, with the function that BEHAVIOR selects, and a nightly one."""

from __future__ import annotations

import operator
import os
import time

from redis import Redis
from rq.cron import CronScheduler
from rq_worker import hang, throw  # type: ignore[import-not-found]


class AnnouncingScheduler(CronScheduler):
    def heartbeat(self) -> None:
        super().heartbeat()
        os.write(1, b"ready\n")


if __name__ == "__main__":
    scheduler = AnnouncingScheduler(connection=Redis.from_url(os.environ["REDIS"]))
    queue = os.environ["QUEUE"]
    function, args = {"return": (operator.index, (7,)), "throw": (throw, ("digest",)), "hang": (hang, ())}[
        os.environ["BEHAVIOR"]
    ]
    ttl = int(os.environ["TTL"]) if "TTL" in os.environ else None
    scheduler.register(function, queue, args=args, interval=1, name="digest", ttl=ttl)
    scheduler.register(time.monotonic, queue, cron="0 3 * * *", name="nightly")
    scheduler.start()  # type: ignore[no-untyped-call]
