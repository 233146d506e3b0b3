"""How soon a canary reports a killed worker, and a broker that hangs or is down, with every queue system."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from benchmarks.measurements import Measurement
from tests.support import postgres, redis_server
from tests.support.ports import find_free_port
from tests.support.queue_harness import QueueHarness, suspended_process
from tests.support.queue_harnesses import QUEUE_HARNESSES
from tests.support.third_party import install_third_party_servers
from watchdog.domain.model import ResultToRecord
from watchdog.probes.canary import MIN_CANARY_RUN_MARGIN_MS

REPETITIONS = 5
"""The slowest one counts."""


def prove() -> Iterator[Measurement]:
    peers = install_third_party_servers()
    with redis_server.running_redis() as broker, postgres.running_postgres() as database:
        servers = {"redis_server": broker, "postgres": database}
        for kind in QUEUE_HARNESSES:
            with kind.prepared_broker(servers[kind.server_fixture], peers) as url:
                yield from _measure_detection(kind(url, peers))


def _measure_detection(harness: QueueHarness) -> Iterator[Measurement]:
    deadline_ms = harness.build_probe().canary.finish_within + MIN_CANARY_RUN_MARGIN_MS
    settings = harness.build_probe(**harness.short_limits).canary
    limit = settings.start_within or settings.finish_within
    delays = [_time_to_detect_killed_worker(harness) - limit for _ in range(REPETITIONS)]
    yield Measurement(f"{harness.kind}: a killed worker is reported, after its limit", max(delays), "ms", 1_000)
    with suspended_process(harness.broker_pid()):
        hangs = [_time_until_reason("broker.unreachable", harness.run_probe) for _ in range(REPETITIONS)]
    yield Measurement(f"{harness.kind}: a broker that hangs is reported", max(hangs), "ms", deadline_ms)
    stalled = [_time_to_detect_stalled_broker(harness) for _ in range(REPETITIONS)]
    yield Measurement(f"{harness.kind}: a broker that stops answering is reported", max(stalled), "ms", deadline_ms)
    harness.probed_url = re.sub(r":\d+/", f":{find_free_port()}/", harness.probed_url)
    down = [_time_until_reason("broker.unreachable", harness.run_probe) for _ in range(REPETITIONS)]
    yield Measurement(f"{harness.kind}: a broker that is down is reported", max(down), "ms", deadline_ms)


def _time_to_detect_killed_worker(harness: QueueHarness) -> float:
    with harness.running_worker() as worker:
        _time_until_reason("", harness.run_probe)
        worker.kill()
        harness.expire_killed_worker()
        return _time_until_reason(harness.no_worker_failure[0], lambda: harness.run_probe(**harness.short_limits))


def _time_to_detect_stalled_broker(harness: QueueHarness) -> float:
    """The broker is suspended once the sentinel job is queued. The job stays behind, so it gets its own queue."""
    harness = type(harness)(harness.broker_url, harness.peers)
    harness.create_queue()
    with ExitStack() as suspended:
        return _time_until_reason(
            "broker.unreachable",
            lambda: harness.run_probe_and_trigger(
                harness.count_waiting, lambda: suspended.enter_context(suspended_process(harness.connection_pid()))
            ),
        )


def _time_until_reason(reason: str, run: Callable[[], ResultToRecord]) -> float:
    """Ms until a run reports this reason; infinite if it reports another one."""
    since = time.monotonic()
    result = run().result
    if result.reason != reason:
        print(f"  {result.reason or result.outcome}, not {reason}: {result.message}", flush=True)
        return math.inf
    return (time.monotonic() - since) * 1_000
