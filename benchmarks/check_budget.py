"""Where the CPU of a check goes: each stage by itself, in CPU ms per check.

The stages run alone and one after the other, in the process of the benchmark. What the whole service needs besides
them is the remainder: the event loop and its sockets, timers, garbage collection, and its other tasks.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvloop

from benchmarks.http_exchange import measure_cost
from benchmarks.measurements import Measurement
from tests.support.store import START_AT, StoreHarness, make_registered_probes
from watchdog.domain.model import ClaimedSlot, Evidence, Outcome, ProbeResult, ResultToRecord
from watchdog.domain.rules import has_bad_finding
from watchdog.net import NetworkAccess
from watchdog.net.http import HttpRequest
from watchdog.net.redact import SecretMask
from watchdog.probes.http import HttpProbe
from watchdog.service.clock import read_wall_clock_ms
from watchdog.service.event_loop_lag import EventLoopLagMonitor
from watchdog.service.runner import RetryingProbeRunner
from watchdog.store.write import recorder

EXCHANGES = 4_000
PROBES, INTERVAL_MS, TICK_MS = 2_000, 4_000, 500
WARM_UP_TICKS, TICKS = 20, 60
RECORD_DELAY_MS = 300


def measure_budget(url: str, total_ms: float) -> Iterator[Measurement]:
    """`total_ms`: CPU of a check in the whole service, in the same run."""
    stages = {**uvloop.run(measure_run_stages(url)), **measure_store_stages()}
    stages["the rest of the service"] = total_ms - sum(stages.values())
    for name, cpu_ms in stages.items():
        yield Measurement(f"HTTP: budget of a check: {name}", cpu_ms, "CPU ms")


async def measure_run_stages(url: str) -> dict[str, float]:
    """The exchange, and what a run adds to it: its context, its deadline, the observation and its masking."""
    probe = HttpProbe.model_validate({"name": "probe", "http": url})
    slot = ClaimedSlot(1, START_AT, "local", None)
    async with NetworkAccess() as network, EventLoopLagMonitor() as lag_monitor:
        runner = RetryingProbeRunner(network, SecretMask([]), read_wall_clock_ms, lag_monitor)
        exchange, _ = await measure_cost(lambda: network.send_http_request(HttpRequest(url)), EXCHANGES)
        run, _ = await measure_cost(lambda: runner.run(probe, slot, {}), EXCHANGES)
    return {"exchange": exchange, "dispatch": run - exchange}


def measure_store_stages() -> dict[str, float]:
    """Claims and results of probes that pass, in batches of half a second, on SQLite."""
    spent_s = dict.fromkeys(("claim", "judge", "record"), 0.0)

    @contextmanager
    def add_to(stage: str) -> Iterator[None]:
        before = time.process_time()
        yield
        spent_s[stage] += time.process_time() - before

    def judge_and_measure(*arguments: Any) -> bool:
        with add_to("judge"):
            return has_bad_finding(*arguments)

    with tempfile.TemporaryDirectory() as folder, replaced(recorder, "has_bad_finding", judge_and_measure):
        harness = StoreHarness(f"sqlite:///{folder}/watchdog.db", make_registered_probes(PROBES, INTERVAL_MS))
        now, count = START_AT + 1, 0
        for tick in range(WARM_UP_TICKS + TICKS):
            if tick == WARM_UP_TICKS:
                spent_s, count = dict.fromkeys(spent_s, 0.0), 0
            now += TICK_MS
            with add_to("claim"):
                slots, _ = harness.slot_claimer.claim_due_slots(now)
            results = [build_passing_result(slot) for slot in slots]
            with add_to("record"):
                harness.recorder.record_results(results, now + RECORD_DELAY_MS)
            count += len(slots)
        harness.close()
    spent_s["record"] -= spent_s["judge"]
    return {stage: seconds * 1000 / count for stage, seconds in spent_s.items()}


@contextmanager
def replaced(owner: Any, name: str, value: Callable[..., Any]) -> Iterator[None]:
    former = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, former)


def build_passing_result(slot: ClaimedSlot) -> ResultToRecord:
    """As a check of the benchmark's target stores it."""
    result = ProbeResult(
        slot.probe,
        slot.slot,
        slot.location,
        Outcome.PASS,
        duration=3,
        phases={"connect": 0.4, "first_byte": 1.2, "body": 0.1},
        measurements={"status": 200, "size": 12, "http_version": "1.1"},
        previous_slot=slot.previous_slot,
    )
    facts = {"status": 200, "elapsed_ms": 3, "address": "127.0.0.1:80"}
    return ResultToRecord(result, Evidence(facts, 'HTTP/1.1 200 OK\nserver: nginx\n\n{"ok": true}'))
