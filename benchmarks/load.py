"""500 http probes every 10 s, on fresh connections to a local nginx, with results on SQLite: lag, CPU, memory.

Watchdog runs in its own process, with its pages, so that the figures contain nothing else. Lag is start minus slot.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measurements import Measurement, percentile
from tests.support import nginx

if TYPE_CHECKING:
    from watchdog.domain.model import ClaimedSlot, ResultToRecord
    from watchdog.probes.base import Probe

PROBE_COUNT, PROBE_INTERVAL_S = 500, 10
WARM_UP_S, MEASUREMENT_S = 20, 120


def prove() -> Iterator[Measurement]:
    if nginx.find_nginx() is None:
        raise SystemExit("nginx is missing: apt-get install nginx-light")
    with tempfile.TemporaryDirectory() as folder, nginx.running_nginx() as url:
        config = Path(folder, "watchdog.yaml")
        probes = [
            {"name": f"Probe {n}", "every": f"{PROBE_INTERVAL_S}s", "http": f"{url}/"} for n in range(PROBE_COUNT)
        ]
        config.write_text(json.dumps({"storage": {"url": f"sqlite:///{folder}/watchdog.db"}, "probes": probes}))
        command = [sys.executable, "-m", "benchmarks.load", str(config)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = json.loads(ran.stdout)
    runs = len(figures["lags"])
    yield Measurement(f"runs in {MEASUREMENT_S} s", runs)
    yield Measurement(
        "runs that were due and are missing",
        max(0, PROBE_COUNT * MEASUREMENT_S // PROBE_INTERVAL_S - runs - PROBE_COUNT // 100),
        "",
        0,
    )
    yield Measurement("slots missed", figures["missed"], "", 0)
    yield Measurement("runs that did not pass", figures["bad"], "", 0)
    yield Measurement("lag p50", percentile(figures["lags"], 50), "ms")
    yield Measurement("lag p99", percentile(figures["lags"], 99), "ms", 100)
    yield Measurement("lag, maximum", max(figures["lags"]), "ms")
    yield Measurement("CPU per 1,000 runs, everything included", figures["cpu"] / runs * 1000, "s", 1.2)
    yield Measurement("peak memory (RSS)", figures["rss"], "MiB", 250)


async def _run_and_measure(config: Path) -> None:
    from watchdog.app import create_asgi_app, start_watchdog_service_and_stop_on_exit
    from watchdog.config.load import load_config
    from watchdog.server import WebServer, open_listen_socket

    loaded = load_config(config)
    lags: list[int] = []
    async with (
        start_watchdog_service_and_stop_on_exit(loaded) as app,
        WebServer(create_asgi_app(app), open_listen_socket("127.0.0.1", 0)),
    ):
        await asyncio.sleep(WARM_UP_S)
        since, before = app.clock(), resource.getrusage(resource.RUSAGE_SELF)
        runner = app.service.run_executor.runner
        run = runner.run

        def run_and_record_lag(probe: Probe, slot: ClaimedSlot, *more: Any) -> Coroutine[Any, Any, ResultToRecord]:
            lags.append(app.clock() - slot.slot)
            return run(probe, slot, *more)

        runner.run = run_and_record_lag  # type: ignore[assignment, method-assign] # observed from outside
        await asyncio.sleep(MEASUREMENT_S)
        runner.run = run  # type: ignore[method-assign] # restore
        after = resource.getrusage(resource.RUSAGE_SELF)
    with closing(sqlite3.connect(loaded.config.storage.url.removeprefix("sqlite:///"))) as database:
        query = "SELECT outcome, sum(slot_count) FROM results WHERE slot >= ? AND slot < ? GROUP BY outcome"
        outcomes = dict(database.execute(query, (since, since + MEASUREMENT_S * 1000)))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    missed = outcomes.pop("missed", 0)
    bad = sum(outcomes.values()) - outcomes.get("pass", 0)
    print(json.dumps({"lags": lags, "cpu": cpu, "rss": after.ru_maxrss / 1024, "missed": missed, "bad": bad}))


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run_and_measure(Path(sys.argv[1])))
