"""500 http probes at 10 s, each on a fresh connection to a local nginx, results on SQLite: lag, CPU, memory.

Watchdog runs in a process of its own, pages included, so that the figures are its alone. Lag: actual start - slot.
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

from benchmarks.table import Figure, percentile
from tests import nginx

if TYPE_CHECKING:
    from watchdog.model import Report, Slot
    from watchdog.probes.base import Probe

PROBES, EVERY = 500, 10
WARM_UP, MEASURED = 20, 120
"""Seconds."""


def prove() -> Iterator[Figure]:
    if nginx.installed() is None:
        raise SystemExit("nginx is missing: apt-get install nginx-light")
    with tempfile.TemporaryDirectory() as folder, nginx.running() as url:
        config = Path(folder, "watchdog.yaml")
        probes = [{"name": f"Probe {n}", "every": f"{EVERY}s", "http": f"{url}/"} for n in range(PROBES)]
        config.write_text(json.dumps({"storage": {"url": f"sqlite:///{folder}/watchdog.db"}, "probes": probes}))
        command = [sys.executable, "-m", "benchmarks.load", str(config)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout)
    runs = len(found["lags"])
    yield Figure(f"runs in {MEASURED} s", runs)
    yield Figure(
        "runs that were due and are not there", max(0, PROBES * MEASURED // EVERY - runs - PROBES // 100), "", 0
    )
    yield Figure("slots missed", found["missed"], "", 0)
    yield Figure("runs that did not pass", found["bad"], "", 0)
    yield Figure("lag p50", percentile(found["lags"], 50), "ms")
    yield Figure("lag p99", percentile(found["lags"], 99), "ms", 100)
    yield Figure("lag, worst", max(found["lags"]), "ms")
    yield Figure("CPU per 1,000 checks, everything included", found["cpu"] / runs * 1000, "s", 1.2)
    yield Figure("RSS, peak", found["rss"], "MiB", 250)


async def _watch(config: Path) -> None:
    from watchdog.app import Server, faces, listen, running
    from watchdog.config import load

    loaded = load(config)
    lags: list[int] = []
    async with running(loaded) as app, Server(faces(app), listen("127.0.0.1", 0)):
        await asyncio.sleep(WARM_UP)
        since, before = app.clock(), resource.getrusage(resource.RUSAGE_SELF)
        runner = app.service.dispatcher.runner
        run = runner.run

        def noted(probe: Probe, slot: Slot, *more: Any) -> Coroutine[Any, Any, Report]:
            lags.append(app.clock() - slot.at)
            return run(probe, slot, *more)

        runner.run = noted  # type: ignore[assignment, method-assign] # watched from outside
        await asyncio.sleep(MEASURED)
        runner.run = run  # type: ignore[method-assign] # put back
        after = resource.getrusage(resource.RUSAGE_SELF)
    with closing(sqlite3.connect(loaded.config.storage.url.removeprefix("sqlite:///"))) as database:
        query = "SELECT outcome, sum(n) FROM results WHERE slot >= ? AND slot < ? GROUP BY outcome"
        outcomes = dict(database.execute(query, (since, since + MEASURED * 1000)))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    missed = outcomes.pop("missed", 0)
    bad = sum(outcomes.values()) - outcomes.get("pass", 0)
    print(json.dumps({"lags": lags, "cpu": cpu, "rss": after.ru_maxrss / 1024, "missed": missed, "bad": bad}))


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_watch(Path(sys.argv[1])))
