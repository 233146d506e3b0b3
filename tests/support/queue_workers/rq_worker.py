"""An RQ worker for one queue, which forks for every job unless FORKS=no. Jobs can call the functions below."""

from __future__ import annotations

import os
import time

from redis import Redis
from rq import Queue, SimpleWorker, Worker
from rq.worker import BaseWorker


def throw(name: str) -> None:
    raise ValueError(f"no template for {name}")


def hang() -> None:
    time.sleep(3600)


def slow() -> None:
    time.sleep(5)


class AnnouncingWorker(BaseWorker):
    def subscribe(self) -> None:
        super().subscribe()  # type: ignore[no-untyped-call]
        print("ready", flush=True)


class ForkingWorker(AnnouncingWorker, Worker): ...


class InProcessWorker(AnnouncingWorker, SimpleWorker):
    """Runs jobs in its own process, so that killing it ends them."""


if __name__ == "__main__":
    connection = Redis.from_url(os.environ["REDIS"])
    queue = Queue(os.environ["QUEUE"], connection=connection, serializer=os.environ.get("SERIALIZER"))
    worker_class = InProcessWorker if os.environ.get("FORKS") == "no" else ForkingWorker
    worker_class([queue], connection=connection, serializer=os.environ.get("SERIALIZER")).work()
