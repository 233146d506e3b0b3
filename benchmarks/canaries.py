"""1,000 sentinel jobs through real queues with real workers, ten at a time; and kill -9 while one is sent.

A proxy between the canary and its server recognises the sentinel job and kills the canary's process at one of three
points. The figure is what stays behind.
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

from benchmarks.measurements import Measurement, percentile
from tests.support import postgres, redis_server
from tests.support.polling import wait_until
from tests.support.probe_runs import canary_probe, node_worker_command, run_probe
from tests.support.third_party import ThirdPartyServers, install_third_party_servers
from watchdog.domain.model import ClaimedSlot, Outcome
from watchdog.net import NetworkAccess, PhaseTimer, SecretMask
from watchdog.probes.base import derive_slot_idempotency_key
from watchdog.queues import CanaryJobRequest, QueueConnectContext
from watchdog.service.clock import read_wall_clock_ms
from watchdog.service.event_loop_lag import EventLoopLagMonitor
from watchdog.service.runner import RetryingProbeRunner

CYCLE_COUNT, CONCURRENCY, KILL_COUNT = 1_000, 10, 20
QUEUE_NAME = "mail"


class KillPoint(Enum):
    """When the process is killed."""

    REQUEST_LOST = 0
    """The request was sent, and never reaches the server."""
    REQUEST_DELIVERED = 1
    """The request was sent, and reaches the server after the kill."""
    RESPONSE_LOST = 2
    """The server has responded, and the response never arrives."""


@dataclass
class BullmqBenchmarkQueue:
    """A BullMQ queue on its own server."""

    url: str
    name: ClassVar[str] = "bullmq"
    worker_script: ClassVar[str] = "bullmq_worker.cjs"
    redis_client: Any = field(init=False)

    def __post_init__(self) -> None:
        self.redis_client = redis.Redis.from_url(self.url, decode_responses=True)

    def system_config(self, port: int | None = None) -> dict[str, Any]:
        return {"bullmq": {"redis": f"redis://127.0.0.1:{port or urlsplit(self.url).port}/0", "queue": QUEUE_NAME}}

    @property
    def worker_env(self) -> dict[str, str]:
        return {"REDIS": self.url}

    def count_sentinels(self) -> int:
        """The number of sentinel jobs, in any state."""
        key = f"bull:{QUEUE_NAME}:"
        listed = sum(self.redis_client.llen(key + name) for name in ("wait", "active"))
        listed += sum(self.redis_client.zcard(key + name) for name in ("completed", "failed", "prioritized"))
        return max(int(listed), len(self.redis_client.keys(f"{key}wd-*")))


@dataclass
class PgbossBenchmarkQueue:
    """A pg-boss queue in its own database."""

    url: str
    name: ClassVar[str] = "pgboss"
    worker_script: ClassVar[str] = "pgboss_worker.cjs"

    def system_config(self, port: int | None = None) -> dict[str, Any]:
        here = f"127.0.0.1:{urlsplit(self.url).port}"
        return {
            "pgboss": {"url": self.url.replace(here, f"127.0.0.1:{port}") if port else self.url, "queue": QUEUE_NAME}
        }

    @property
    def worker_env(self) -> dict[str, str]:
        return {"DATABASE": self.url.replace("+psycopg", "")}

    def count_sentinels(self) -> int:
        with psycopg.connect(self.worker_env["DATABASE"]) as connection:
            row = connection.execute("SELECT count(*) FROM pgboss.job WHERE name = %s", [QUEUE_NAME]).fetchone()
            return int(row[0]) if row else 0


def prove() -> Iterator[Measurement]:
    peers = install_third_party_servers()
    with redis_server.running_redis() as broker:
        yield from _benchmark_queue(BullmqBenchmarkQueue(broker.url), peers)
    with postgres.running_postgres() as server, server.temporary_database() as url:
        yield from _benchmark_queue(PgbossBenchmarkQueue(url), peers)


def _benchmark_queue(
    queue: BullmqBenchmarkQueue | PgbossBenchmarkQueue, peers: ThirdPartyServers
) -> Iterator[Measurement]:
    env = {"QUEUE": QUEUE_NAME, "CONCURRENCY": str(CONCURRENCY), **queue.worker_env}
    with redis_server.running_worker(*node_worker_command(peers, queue.worker_script, BEHAVIOR="return", **env)):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcomes, durations, cpu = runner.run(_run_cycles(queue))
        leftover = queue.count_sentinels()
    yield Measurement(f"{queue.name}: cycles, {CONCURRENCY} at a time", outcomes.total())
    yield Measurement(f"{queue.name}: cycles that did not pass", outcomes.total() - outcomes["pass"], "", 0)
    yield Measurement(f"{queue.name}: sentinels left behind", leftover, "", 0)
    yield Measurement(f"{queue.name}: sent to finished, p50", percentile(durations, 50), "ms")
    yield Measurement(f"{queue.name}: CPU per 1,000 cycles", cpu / outcomes.total() * 1_000, "s")
    if other := {name: count for name, count in outcomes.items() if name != "pass"}:
        print(f"  {queue.name}: {other}", flush=True)
    killed = [_kill_while_sending(queue, number) for number in range(KILL_COUNT)]
    yield Measurement(f"{queue.name}: kills while a sentinel was sent", len(killed))
    yield Measurement(f"{queue.name}: kills that missed their point", sum(not k.killed_at_point for k in killed), "", 0)
    yield Measurement(
        f"{queue.name}: kills after which the sentinel was queued", sum(k.sentinel_enqueued for k in killed)
    )
    yield Measurement(f"{queue.name}: sentinels of one slot, maximum", max(k.max_sentinels for k in killed), "", 1)
    yield Measurement(
        f"{queue.name}: left behind after the next slot", max(k.leftover_sentinels for k in killed), "", 0
    )


# --- a thousand cycles


async def _run_cycles(queue: BullmqBenchmarkQueue | PgbossBenchmarkQueue) -> tuple[Counter[str], list[int], float]:
    """Returns their outcomes, the duration of each in ms, and the CPU seconds that this process used for all."""
    outcomes: Counter[str] = Counter()
    durations: list[int] = []
    async with NetworkAccess() as network, EventLoopLagMonitor() as lag_monitor:
        runner = RetryingProbeRunner(network, SecretMask(()), read_wall_clock_ms, lag_monitor)

        async def run_in_sequence(number: int, cycles: int) -> None:
            probe = canary_probe(queue.system_config(), name=f"Pipeline {number}")
            previous_slot = None
            for _ in range(cycles):
                slot = ClaimedSlot(number, max(read_wall_clock_ms(), (previous_slot or 0) + 1), "local", previous_slot)
                result = (await runner.run(probe, slot, {})).result
                outcomes[result.reason or str(result.outcome)] += 1
                durations.append(result.duration or 0)
                previous_slot = slot.slot

        await run_in_sequence(CONCURRENCY, 1)  # warm up
        outcomes.clear()
        durations.clear()
        before = resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.gather(*(run_in_sequence(n, CYCLE_COUNT // CONCURRENCY) for n in range(CONCURRENCY)))
        after = resource.getrusage(resource.RUSAGE_SELF)
    return outcomes, durations, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# --- kill -9


@dataclass(frozen=True)
class SentinelKillResult:
    """The effect of a kill."""

    killed_at_point: bool
    """The process was killed at its point."""
    sentinel_enqueued: bool
    """The sentinel job was in the queue."""
    max_sentinels: int
    """Sentinel jobs of the slot, after the kill and after another process sent the same slot again."""
    leftover_sentinels: int
    """Sentinel jobs after the next slot."""


def _kill_while_sending(queue: BullmqBenchmarkQueue | PgbossBenchmarkQueue, number: int) -> SentinelKillResult:
    slot = 1_000_000 * (number + 1)
    limits = {"start_within": "200ms", "finish_within": "1s"}
    probe = canary_probe({**queue.system_config(), **limits})
    marker = probe.canary.queue_driver.derive_job_id(derive_slot_idempotency_key(probe.id, slot))
    point = KillPoint(number % len(KillPoint))
    with KillingProxy(urlsplit(queue.url).port or 0, marker.encode(), point).running() as proxy:
        command = [
            sys.executable,
            "-m",
            "benchmarks.canaries",
            json.dumps({**queue.system_config(proxy.port), **limits}),
            str(slot),
        ]
        proxy.client_process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        proxy.client_started.set()
        killed = proxy.client_process.wait(60) == -9 and proxy.client_killed.wait(5)
    if point is not KillPoint.REQUEST_LOST:
        wait_until(queue.count_sentinels)
    queued = queue.count_sentinels()
    after_resend = asyncio.run(_resend_sentinel(queue, slot, limits))
    next_run = asyncio.run(run_probe(probe, slot + 1, slot))
    reported = next_run.result.outcome is Outcome.FAIL and next_run.result.reason == "canary.not_picked_up"
    return SentinelKillResult(
        killed and reported and queued == (point is not KillPoint.REQUEST_LOST),
        bool(queued),
        max(queued, after_resend),
        queue.count_sentinels(),
    )


async def _resend_sentinel(
    queue: BullmqBenchmarkQueue | PgbossBenchmarkQueue, slot: int, limits: dict[str, str]
) -> int:
    probe = canary_probe({**queue.system_config(), **limits})
    async with (
        NetworkAccess() as network,
        probe.canary.queue_driver.connect(
            QueueConnectContext(network, PhaseTimer(), True, 3.0, read_wall_clock_ms())
        ) as connection,
    ):
        await connection.send(CanaryJobRequest(derive_slot_idempotency_key(probe.id, slot), {}, 60_000, 3.0))
    return queue.count_sentinels()


class KillingProxy:
    """Forwards what a client and a server send, until the client sends the sentinel job."""

    def __init__(self, server_port: int, sentinel_marker: bytes, kill_point: KillPoint) -> None:
        self.server_port, self.sentinel_marker, self.kill_point = server_port, sentinel_marker, kill_point
        self.client_process: subprocess.Popen[bytes] | None = None
        self.client_started, self.sentinel_sent, self.client_killed = (
            threading.Event(),
            threading.Event(),
            threading.Event(),
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    @contextmanager
    def running(self) -> Iterator[KillingProxy]:
        threading.Thread(target=self._accept_connections, daemon=True).start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def _accept_connections(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.server_port))
                threading.Thread(target=self._forward, args=(client, server, self._on_client_data), daemon=True).start()
                threading.Thread(target=self._forward, args=(server, client, self._on_server_data), daemon=True).start()

    def _forward(self, source: socket.socket, destination: socket.socket, should_forward: Any) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not should_forward(data):
                    break
                destination.sendall(data)
        with suppress(OSError):
            destination.shutdown(socket.SHUT_WR)

    def _on_client_data(self, data: bytes) -> bool:
        if self.sentinel_marker in data and not self.sentinel_sent.is_set():
            self.sentinel_sent.set()
            if self.kill_point is not KillPoint.RESPONSE_LOST:
                self._kill_client()
                return self.kill_point is KillPoint.REQUEST_DELIVERED
        return True

    def _on_server_data(self, data: bytes) -> bool:
        if self.sentinel_sent.is_set() and self.kill_point is KillPoint.RESPONSE_LOST:
            self._kill_client()
            return False
        return True

    def _kill_client(self) -> None:
        self.client_started.wait(10)
        if self.client_process:
            self.client_process.kill()
            self.client_process.wait(10)
            self.client_killed.set()


if __name__ == "__main__":
    asyncio.run(run_probe(canary_probe(json.loads(sys.argv[1])), int(sys.argv[2])))
