"""1,000 sentinels through real queues, with real workers, ten at a time; and kill -9 while one is sent.

A gate between the canary and its server sees the sentinel come by, and kills the canary's process at one of three
points. What counts is what stays behind.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar
from urllib.parse import urlsplit

import psycopg
import redis
import uvloop

from benchmarks.table import Figure, percentile
from tests import postgres, redis_server
from tests.mcp_peers import Peers, install
from tests.patience import wait
from tests.queues.runs import canary, node, once
from watchdog.model import Outcome, Slot
from watchdog.probes.base import idempotency_key
from watchdog.queues import Reach, Sentinel
from watchdog.service.clock import wall
from watchdog.service.lag import LagSentinel
from watchdog.service.runner import Runner
from watchdog.wire import Mask, Trace, Wire

CYCLES, SIDE_BY_SIDE, KILLS = 1_000, 10, 20
QUEUE = "mail"


class Point(Enum):
    """When the process is killed."""

    UNHEARD = 0
    """The sentinel has left it, and never reaches the server."""
    UNANSWERED = 1
    """The sentinel has left it, and reaches the server afterwards."""
    UNREAD = 2
    """The server has answered, and the answer never arrives."""


@dataclass
class Bullmq:
    """A queue of BullMQ on a server of its own."""

    url: str
    name: ClassVar[str] = "bullmq"
    worker: ClassVar[str] = "bullmq.cjs"
    client: Any = field(init=False)

    def __post_init__(self) -> None:
        self.client = redis.Redis.from_url(self.url, decode_responses=True)

    def system(self, port: int | None = None) -> dict[str, Any]:
        return {"bullmq": {"redis": f"redis://127.0.0.1:{port or urlsplit(self.url).port}/0", "queue": QUEUE}}

    @property
    def env(self) -> dict[str, str]:
        return {"REDIS": self.url}

    def sentinels(self) -> int:
        """How many are there, in whatever state."""
        key = f"bull:{QUEUE}:"
        listed = sum(self.client.llen(key + name) for name in ("wait", "active"))
        listed += sum(self.client.zcard(key + name) for name in ("completed", "failed", "prioritized"))
        return max(int(listed), len(self.client.keys(f"{key}wd-*")))


@dataclass
class Pgboss:
    """A queue of pg-boss in a database of its own."""

    url: str
    name: ClassVar[str] = "pgboss"
    worker: ClassVar[str] = "pgboss.cjs"

    def system(self, port: int | None = None) -> dict[str, Any]:
        here = f"127.0.0.1:{urlsplit(self.url).port}"
        return {"pgboss": {"url": self.url.replace(here, f"127.0.0.1:{port}") if port else self.url, "queue": QUEUE}}

    @property
    def env(self) -> dict[str, str]:
        return {"DATABASE": self.url.replace("+psycopg", "")}

    def sentinels(self) -> int:
        with psycopg.connect(self.env["DATABASE"]) as connection:
            row = connection.execute("SELECT count(*) FROM pgboss.job WHERE name = %s", [QUEUE]).fetchone()
            return int(row[0]) if row else 0


def prove() -> Iterator[Figure]:
    peers = install()
    with redis_server.running() as broker:
        yield from _proven(Bullmq(broker.url), peers)
    with postgres.running() as server, server.fresh() as url:
        yield from _proven(Pgboss(url), peers)


def _proven(queue: Bullmq | Pgboss, peers: Peers) -> Iterator[Figure]:
    env = {"QUEUE": QUEUE, "CONCURRENCY": str(SIDE_BY_SIDE), **queue.env}
    with redis_server.working(*node(peers, queue.worker, DOES="return", **env)):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            ended, durations, cpu = runner.run(_cycles(queue))
        left = queue.sentinels()
    yield Figure(f"{queue.name}: cycles, {SIDE_BY_SIDE} at a time", ended.total())
    yield Figure(f"{queue.name}: cycles that did not pass", ended.total() - ended["pass"], "", 0)
    yield Figure(f"{queue.name}: sentinels left behind", left, "", 0)
    yield Figure(f"{queue.name}: sent to finished, p50", percentile(durations, 50), "ms")
    yield Figure(f"{queue.name}: CPU per 1,000 cycles", cpu / ended.total() * 1_000, "s")
    if odd := {how: n for how, n in ended.items() if how != "pass"}:
        print(f"  {queue.name}: {odd}", flush=True)
    killed = [_kill(queue, number) for number in range(KILLS)]
    yield Figure(f"{queue.name}: kills while a sentinel was sent", len(killed))
    yield Figure(f"{queue.name}: kills that missed their point", sum(not k.hit for k in killed), "", 0)
    yield Figure(f"{queue.name}: kills after which the sentinel was there", sum(k.there for k in killed))
    yield Figure(f"{queue.name}: most sentinels of one slot", max(k.most for k in killed), "", 1)
    yield Figure(f"{queue.name}: left behind after the next slot", max(k.left for k in killed), "", 0)


# --- a thousand cycles


async def _cycles(queue: Bullmq | Pgboss) -> tuple[Counter[str], list[int], float]:
    """How they ended, how many ms each sentinel took, and the CPU seconds of this process for all of them."""
    ended: Counter[str] = Counter()
    durations: list[int] = []
    async with Wire() as wire, LagSentinel() as lag:
        runner = Runner(wire, Mask(()), wall, lag)

        async def one_after_another(number: int, cycles: int) -> None:
            probe = canary(queue.system(), name=f"Pipeline {number}")
            prev = None
            for _ in range(cycles):
                slot = Slot(number, max(wall(), (prev or 0) + 1), "local", prev)
                result = (await runner.run(probe, slot, {})).result
                ended[result.reason or str(result.outcome)] += 1
                durations.append(result.duration or 0)
                prev = slot.at

        await one_after_another(SIDE_BY_SIDE, 1)  # loads what is loaded once
        ended.clear()
        durations.clear()
        before = resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.gather(*(one_after_another(n, CYCLES // SIDE_BY_SIDE) for n in range(SIDE_BY_SIDE)))
        after = resource.getrusage(resource.RUSAGE_SELF)
    return ended, durations, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# --- kill -9


@dataclass(frozen=True)
class Killed:
    """What a kill came to."""

    hit: bool
    """The process died at its point, by SIGKILL."""
    there: bool
    """The sentinel had reached the queue."""
    most: int
    """Sentinels of the slot, after the kill or after somebody else sent the same slot again."""
    left: int
    """Sentinels after the next slot."""


def _kill(queue: Bullmq | Pgboss, number: int) -> Killed:
    slot = 1_000_000 * (number + 1)
    limits = {"start_within": "200ms", "finish_within": "1s"}
    probe = canary({**queue.system(), **limits})
    mark = probe.job.system.ref_of(idempotency_key(probe.key, slot))
    point = Point(number % len(Point))
    with Gate(urlsplit(queue.url).port or 0, mark.encode(), point).open() as gate:
        words = [
            sys.executable,
            "-m",
            "benchmarks.canaries",
            json.dumps({**queue.system(gate.port), **limits}),
            str(slot),
        ]
        gate.victim = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        gate.ready.set()
        hit = gate.victim.wait(60) == -9 and gate.hit.wait(5)
    if point is not Point.UNHEARD:
        wait(queue.sentinels)
    there = queue.sentinels()
    again = asyncio.run(_sent_again(queue, slot, limits))
    report = asyncio.run(once(probe, slot + 1, slot))
    sent = report.result.outcome is Outcome.FAIL and report.result.reason == "canary.not_picked_up"
    return Killed(
        hit and sent and there == (point is not Point.UNHEARD), bool(there), max(there, again), queue.sentinels()
    )


async def _sent_again(queue: Bullmq | Pgboss, slot: int, limits: dict[str, str]) -> int:
    probe = canary({**queue.system(), **limits})
    async with Wire() as wire, probe.job.system.canary(Reach(wire, Trace(), "private", 3.0, wall())) as line:
        await line.send(Sentinel(idempotency_key(probe.key, slot), {}, 60_000))
    return queue.sentinels()


class Gate:
    """Passes on what a client and a server say, until the client sends the sentinel."""

    def __init__(self, server: int, mark: bytes, point: Point) -> None:
        self.server, self.mark, self.point = server, mark, point
        self.victim: subprocess.Popen[bytes] | None = None
        self.ready, self.sent, self.hit = threading.Event(), threading.Event(), threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    @contextmanager
    def open(self) -> Iterator[Gate]:
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.server))
                threading.Thread(target=self._carry, args=(client, server, self._out), daemon=True).start()
                threading.Thread(target=self._carry, args=(server, client, self._back), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, passes: Any) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not passes(data):
                    break
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _out(self, data: bytes) -> bool:
        if self.mark in data and not self.sent.is_set():
            self.sent.set()
            if self.point is not Point.UNREAD:
                self._kill()
                return self.point is Point.UNANSWERED
        return True

    def _back(self, data: bytes) -> bool:
        if self.sent.is_set() and self.point is Point.UNREAD:
            self._kill()
            return False
        return True

    def _kill(self) -> None:
        self.ready.wait(10)
        if self.victim:
            self.victim.kill()
            self.victim.wait(10)
            self.hit.set()


if __name__ == "__main__":
    asyncio.run(once(canary(json.loads(sys.argv[1])), int(sys.argv[2])))
