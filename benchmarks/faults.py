"""How soon a canary names a worker that was killed, and a broker that hangs or is down: with every queue system."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from benchmarks.table import Figure
from tests import postgres, redis_server
from tests.mcp_peers import free_port, install
from tests.queues.lab import Lab, standing_still
from tests.queues.labs import LABS
from watchdog.model import Report

TIMES = 5
"""Of which the slowest counts."""


def prove() -> Iterator[Figure]:
    peers = install()
    with redis_server.running() as broker, postgres.running() as database:
        servers = {"redis_server": broker, "postgres": database}
        for kind in LABS:
            with kind.furnished(servers[kind.server], peers) as url:
                yield from _named(kind(url, peers))


def _named(lab: Lab) -> Iterator[Figure]:
    patient, brief = lab.probe(), lab.probe(**lab.brief).job
    limit = brief.start_within or brief.finish_within
    late = [_after_a_kill(lab) - limit for _ in range(TIMES)]
    yield Figure(f"{lab.kind}: a killed worker is named after its limit by", max(late), "ms", 1_000)
    with standing_still(lab.pid()):
        hangs = [_until("broker.unreachable", lab.once) for _ in range(TIMES)]
    yield Figure(f"{lab.kind}: a broker that hangs is named in", max(hangs), "ms", patient.deadline)
    mute = [_stopped_under_way(lab) for _ in range(TIMES)]
    yield Figure(f"{lab.kind}: a broker that stops answering is named in", max(mute), "ms", patient.deadline)
    lab.url = re.sub(r":\d+/", f":{free_port()}/", lab.url)
    down = [_until("broker.unreachable", lab.once) for _ in range(TIMES)]
    yield Figure(f"{lab.kind}: a broker that is down is named in", max(down), "ms", patient.deadline)


def _after_a_kill(lab: Lab) -> float:
    with lab.worker() as worker:
        _until("", lab.once)
        worker.kill()
        lab.worker_is_gone()
        return _until(lab.idle[0], lambda: lab.once(**lab.brief))


def _stopped_under_way(lab: Lab) -> float:
    """Its process stands still from when the sentinel is there; that stays behind, in a queue of its own."""
    lab = type(lab)(lab.home, lab.peers)
    lab.make()
    with ExitStack() as stopped:
        return _until(
            "broker.unreachable",
            lambda: lab.once_when(lab.waiting, lambda: stopped.enter_context(standing_still(lab.pid_under_way()))),
        )


def _until(reason: str, run: Callable[[], Report]) -> float:
    """Milliseconds until a run says so; without end where it says something else."""
    since = time.monotonic()
    said = run().result
    if said.reason != reason:
        print(f"  {said.reason or said.outcome}, not {reason}: {said.message}", flush=True)
        return math.inf
    return (time.monotonic() - since) * 1_000
