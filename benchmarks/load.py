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
import time
from array import array
from collections.abc import Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.measurements import Measurement, percentile
from tests.support import nginx

if TYPE_CHECKING:
    from watchdog.domain.model import ClaimedSlot, ResultToRecord
    from watchdog.probes.base import Probe

PROBE_COUNT, PROBE_INTERVAL_S = 500, 10
WARM_UP_S, MEASUREMENT_S = 20, 120


class Load(NamedTuple):
    """Probes to run, and for how long."""

    probe_count: int
    interval_s: int
    warm_up_s: int
    measurement_s: int


class LoadFigures(NamedTuple):
    """What a process measured of itself."""

    lags: list[int]
    """Start minus slot of each run, in ms."""
    cpu: float
    """CPU seconds."""
    rss: float
    """Peak memory in MiB."""
    missed: int
    bad: int
    """Runs that did not pass."""
    first_result_s: float
    """From the start of the process to the first result that is stored."""

    def list_measurements(self, load: Load, max_lag_p99_ms: float | None, max_rss_mib: float) -> Iterator[Measurement]:
        runs, due = len(self.lags), load.probe_count * load.measurement_s // load.interval_s
        yield Measurement(f"runs in {load.measurement_s} s", runs)
        missing = max(0, due - runs - load.probe_count // 100)
        yield Measurement("runs that were due and are missing", missing, "", 0)
        yield Measurement("slots missed", self.missed, "", 0)
        yield Measurement("runs that did not pass", self.bad, "", 0)
        yield Measurement("lag p50", percentile(self.lags, 50), "ms")
        yield Measurement("lag p99", percentile(self.lags, 99), "ms", max_lag_p99_ms)
        yield Measurement("lag, maximum", max(self.lags), "ms")
        yield Measurement("CPU per 1,000 runs, everything included", self.cpu / runs * 1000, "s", 1.2)
        yield Measurement("peak memory (RSS)", self.rss, "MiB", max_rss_mib)


def prove() -> Iterator[Measurement]:
    load = Load(PROBE_COUNT, PROBE_INTERVAL_S, WARM_UP_S, MEASUREMENT_S)
    yield from measure_load(load).list_measurements(load, 100, 250)


def measure_load(load: Load) -> LoadFigures:
    """Runs the probes in a process of their own, against a local nginx."""
    if nginx.find_nginx() is None:
        raise SystemExit("nginx is missing: apt-get install nginx-light")
    with tempfile.TemporaryDirectory() as folder, nginx.running_nginx() as url:
        config = Path(folder, "watchdog.yaml")
        probes = [
            {"name": f"Probe {n}", "every": f"{load.interval_s}s", "http": f"{url}/"} for n in range(load.probe_count)
        ]
        config.write_text(json.dumps({"storage": {"url": f"sqlite:///{folder}/watchdog.db"}, "probes": probes}))
        words = map(str, (config, load.warm_up_s, load.measurement_s))
        ran = subprocess.run([sys.executable, "-m", "benchmarks.load", *words], stdout=subprocess.PIPE, check=True)
    return LoadFigures(**json.loads(ran.stdout))


async def _run_and_measure(config: Path, warm_up_s: float, measurement_s: float) -> None:
    from watchdog.cli.logs import configure_logging, do_without_rich_and_pygments

    do_without_rich_and_pygments()
    from watchdog.app import create_asgi_app, start_watchdog_service_and_stop_on_exit
    from watchdog.cli.common import freeze_heap_and_enable_gc
    from watchdog.config.load import load_config
    from watchdog.server import WebServer, open_listen_socket
    from watchdog.service.process_resources import (
        keep_heap_small,
        limit_heap_fragmentation,
        raise_file_descriptor_limit,
    )

    # all of this as in `watchdog run`
    started_s = time.monotonic() - time.process_time()  # loading the modules takes CPU alone
    loaded = load_config(config)
    configure_logging(loaded.mask, quiet=True)
    raise_file_descriptor_limit()
    limit_heap_fragmentation()
    freeze_heap_and_enable_gc()
    lags = array("i")
    async with (
        start_watchdog_service_and_stop_on_exit(loaded) as app,
        WebServer(create_asgi_app(app), open_listen_socket("127.0.0.1", 0)),
    ):
        heap_task = asyncio.create_task(keep_heap_small())
        while not app.service.last_recorded_at:
            await asyncio.sleep(0.05)
        first_result_s = time.monotonic() - started_s
        await asyncio.sleep(warm_up_s)
        since, before = app.clock(), resource.getrusage(resource.RUSAGE_SELF)
        runner = app.service.run_executor.runner
        run = runner.run

        def run_and_record_lag(probe: Probe, slot: ClaimedSlot, *more: Any) -> Coroutine[Any, Any, ResultToRecord]:
            lags.append(app.clock() - slot.slot)
            return run(probe, slot, *more)

        runner.run = run_and_record_lag  # type: ignore[assignment, method-assign] # observed from outside
        await asyncio.sleep(measurement_s)
        runner.run = run  # type: ignore[method-assign] # restore
        after = resource.getrusage(resource.RUSAGE_SELF)
        heap_task.cancel()
    with closing(sqlite3.connect(loaded.config.storage.url.removeprefix("sqlite:///"))) as database:
        query = "SELECT outcome, sum(slot_count) FROM results WHERE slot >= ? AND slot < ? GROUP BY outcome"
        outcomes = dict(database.execute(query, (since, since + measurement_s * 1000)))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    missed = outcomes.pop("missed", 0)
    bad = sum(outcomes.values()) - outcomes.get("pass", 0)
    print(json.dumps(LoadFigures(lags.tolist(), cpu, after.ru_maxrss / 1024, missed, bad, first_result_s)._asdict()))


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run_and_measure(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
