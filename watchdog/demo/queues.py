"""A server with two RQ queues, what fills them, and their workers, each in a process of its own.

usage: python -m watchdog.demo.queues serve PORT | work PORT QUEUE      (exits when its standard input closes)

What `serve` reads from standard input makes the worker of one queue hang in a job.

The server is fakeredis: it speaks the protocol of Redis, and needs no other program. The optional packages `fakeredis`
and `rq` are required; without them the demo has no queues.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from watchdog.demo.worker import has_stdin_closed_within

if TYPE_CHECKING:
    from redis import Redis

DEMO_CANARY_QUEUE = "emails"
"""Its worker is killed."""
DEMO_BACKLOG_QUEUE = "thumbnails"
"""Its worker hangs in a job, and jobs pile up."""
DEMO_QUEUES = (DEMO_CANARY_QUEUE, DEMO_BACKLOG_QUEUE)
DEMO_JOB_INTERVAL_S = 0.5
"""Time between two jobs that are added to the backlog queue."""
DEMO_JOB_DURATION_S = 0.05
DEMO_WORKER_TTL_S = 16
"""RQ waits for a job for 15 s less than this. Until then the server gives jobs to a worker that was killed."""


def are_demo_queues_installed() -> bool:
    return all(find_spec(package) is not None for package in ("fakeredis", "rq"))


@contextmanager
def start_demo_queue_process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run this module with arguments, and end it with SIGKILL."""
    command = [sys.executable, "-m", "watchdog.demo.queues", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:  # noqa: S603 - our own
        try:
            yield process
        finally:
            process.kill()


def serve_demo_queues(port: int) -> None:
    """Serve the queues, and add jobs to one of them."""
    from fakeredis import TcpFakeServer
    from rq import Queue

    server = TcpFakeServer(("127.0.0.1", port))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    queue = Queue(DEMO_BACKLOG_QUEUE, connection=connect_to_demo_redis(port))
    while True:
        queue.enqueue_call("time.sleep", args=(DEMO_JOB_DURATION_S,), result_ttl=0)
        if has_stdin_closed_within(DEMO_JOB_INTERVAL_S):  # or has data
            if not os.read(sys.stdin.fileno(), 100):
                break
            queue.enqueue_call("time.sleep", args=(3_600,), timeout=-1, failure_ttl=1, at_front=True)


def work_on_demo_queue(port: int, name: str) -> None:
    """Run the jobs of a queue, until it is killed or standard input closes."""
    from rq import Queue, SimpleWorker

    def exit_with_parent() -> None:
        while not has_stdin_closed_within(60):
            pass
        os._exit(0)

    threading.Thread(target=exit_with_parent, daemon=True).start()
    connection = connect_to_demo_redis(port)
    queue = Queue(name, connection=connection)
    worker = SimpleWorker([queue], connection=connection, worker_ttl=DEMO_WORKER_TTL_S)
    worker.work(logging_level="ERROR")


def connect_to_demo_redis(port: int) -> Redis:
    """Connect once the server listens."""
    from redis import Redis
    from redis.backoff import ConstantBackoff
    from redis.retry import Retry

    connection = Redis(port=port, retry=Retry(ConstantBackoff(0.1), 300))
    # fakeredis writes addresses with spaces, which the client cannot parse. Only RQ asks for its own.
    connection.set_response_callback("CLIENT INFO", lambda *_, **__: {"addr": "127.0.0.1"})
    connection.ping()
    return connection


def main(command: str, port: int, *queue_names: str) -> None:
    if command == "serve":
        serve_demo_queues(port)
    else:
        work_on_demo_queue(port, *queue_names)
    os._exit(0)  # without the threads of open connections


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
