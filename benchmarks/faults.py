"""How soon a canary names a worker that was killed, and a broker that hangs or is down: with every queue system."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from benchmarks.table import Measurement
from tests.support import postgres, redis_server
from tests.support.queue_lab import QueueLab, suspended_process
from tests.support.queue_labs import QUEUE_LABS
from tests.support.third_party import find_free_port, install_third_party_servers
from watchdog.domain.model import RecordedResult

REPETITIONS = 5
"""Of which the slowest counts."""


def prove() -> Iterator[Measurement]:
    peers = install_third_party_servers()
    with redis_server.running_redis() as broker, postgres.running_postgres() as database:
        servers = {"redis_server": broker, "postgres": database}
        for kind in QUEUE_LABS:
            with kind.prepared_broker(servers[kind.server_fixture], peers) as url:
                yield from _measure_detection(kind(url, peers))


def _measure_detection(lab: QueueLab) -> Iterator[Measurement]:
    patient, brief = lab.build_probe(), lab.build_probe(**lab.short_limits).settings
    limit = brief.start_within or brief.finish_within
    late = [_time_to_detect_killed_worker(lab) - limit for _ in range(REPETITIONS)]
    yield Measurement(f"{lab.kind}: a killed worker is named after its limit by", max(late), "ms", 1_000)
    with suspended_process(lab.broker_pid()):
        hangs = [_time_until_reason("broker.unreachable", lab.run_probe) for _ in range(REPETITIONS)]
    yield Measurement(f"{lab.kind}: a broker that hangs is named in", max(hangs), "ms", patient.deadline_ms)
    mute = [_time_to_detect_stalled_broker(lab) for _ in range(REPETITIONS)]
    yield Measurement(f"{lab.kind}: a broker that stops answering is named in", max(mute), "ms", patient.deadline_ms)
    lab.probed_url = re.sub(r":\d+/", f":{find_free_port()}/", lab.probed_url)
    down = [_time_until_reason("broker.unreachable", lab.run_probe) for _ in range(REPETITIONS)]
    yield Measurement(f"{lab.kind}: a broker that is down is named in", max(down), "ms", patient.deadline_ms)


def _time_to_detect_killed_worker(lab: QueueLab) -> float:
    with lab.running_worker() as worker:
        _time_until_reason("", lab.run_probe)
        worker.kill()
        lab.expire_killed_worker()
        return _time_until_reason(lab.no_worker_failure[0], lambda: lab.run_probe(**lab.short_limits))


def _time_to_detect_stalled_broker(lab: QueueLab) -> float:
    """Its process stands still from when the sentinel is there; that stays behind, in a queue of its own."""
    lab = type(lab)(lab.broker_url, lab.peers)
    lab.create_queue()
    with ExitStack() as stopped:
        return _time_until_reason(
            "broker.unreachable",
            lambda: lab.run_probe_and_trigger(
                lab.count_waiting, lambda: stopped.enter_context(suspended_process(lab.connection_pid()))
            ),
        )


def _time_until_reason(reason: str, run: Callable[[], RecordedResult]) -> float:
    """Milliseconds until a run says so; without end where it says something else."""
    since = time.monotonic()
    said = run().result
    if said.reason != reason:
        print(f"  {said.reason or said.outcome}, not {reason}: {said.message}", flush=True)
        return math.inf
    return (time.monotonic() - since) * 1_000
