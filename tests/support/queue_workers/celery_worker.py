"""A Celery worker for one queue, in one process, with tasks that fail, retry and hang."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery
from celery.signals import worker_ready

app = Celery("shop", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
app.conf.task_track_started = os.environ.get("TRACKS") == "yes"
app.conf.task_default_queue = os.environ["QUEUE"]


@app.task(name="throw")  # type: ignore[untyped-decorator]
def throw(name: str) -> None:
    raise ValueError(f"no template for {name}")


@app.task(name="retry_later", bind=True)  # type: ignore[untyped-decorator]
def retry_later(self: Any) -> None:
    raise self.retry(exc=ValueError("not yet"), countdown=60)


@app.task(name="hang")  # type: ignore[untyped-decorator]
def hang() -> None:
    time.sleep(3600)


@app.task(name="slow")  # type: ignore[untyped-decorator]
def slow() -> None:
    time.sleep(5)


@worker_ready.connect  # type: ignore[untyped-decorator]
def announce_ready(**_: Any) -> None:
    os.write(1, b"ready\n")  # Celery turns print() into log lines


if __name__ == "__main__":
    name = os.environ.get("NAME", "celery@%h")
    options = ["--pool=solo", "--loglevel=ERROR", "--without-gossip", "--without-mingle", f"--hostname={name}"]
    app.worker_main(["worker", *options])
