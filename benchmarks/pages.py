"""How long pages take with 1,000 probes and 90 days of roll-ups, and how large pages are with 5,000 probes.

The web server runs in a process of its own, over a real database file. The requests come one after the other.
"""

from __future__ import annotations

import http.client
import itertools
import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
import uvicorn

from benchmarks.measurements import Measurement, percentile
from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.web import create_test_app, filled_database
from watchdog.cli.common import freeze_heap_and_enable_gc
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS
from watchdog.store.database import Database
from watchdog.web import StatusPageConfig
from watchdog.web.routes.public import STATUS_PAGE_CACHE_MS

PROBE_COUNT, LARGE_PROBE_COUNT, GROUP_COUNT, DOWN_PROBE_COUNT = 1_000, 5_000, 20, 10
ROLLUP_DAYS, RESULT_DAYS = 90, 30
REQUEST_COUNT = 200
MAX_UNCACHED_MS, MAX_CACHED_MS, MAX_LIST_MS, MAX_CHART_MS = 50.0, 2.0, 100.0, 100.0
MAX_COMPRESSED_KB = 300.0
START_TIMEOUT_S = 60.0
PAGES = ("/", "/?group=Group+1", "/probes", "/probes?page=2", "/probes/probe-1", "/incidents", "/jobs", "/undelivered",
         "/silences")  # fmt: skip
INSERT_ROLLUPS = """
WITH RECURSIVE hours(hour) AS (SELECT {first} UNION ALL SELECT hour + {step} FROM hours WHERE hour + {step} < {end})
INSERT INTO rollups (probe, hour, location, passed, failed, errors, missed, duration_sum, duration_max)
SELECT probes.id, hours.hour, 'local', 59, 1, 0, 0, 10800, 300 FROM probes, hours
"""
INSERT_QUEUE_RESULTS = """
WITH RECURSIVE slots(slot) AS (SELECT {first} UNION ALL SELECT slot + {step} FROM slots WHERE slot + {step} < {end})
INSERT INTO results (probe, slot, location, outcome, reason, message, duration, phases, measurements, slot_count, late,
    recorded_at)
SELECT {probe}, slot, 'local', 'pass', '', '', 5, '{{"read": 5}}',
    '{{"waiting": 3, "active": 4, "delayed": 1240, "failed": 12, "consumers": 2, "oldest": 1320000}}', 1, 0, slot
FROM slots
"""


class MeasuredWebServer(NamedTuple):
    port: int
    pid: int


def prove() -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory() as folder:
        url = fill_database(Path(folder), PROBE_COUNT)
        with serving(url, expires_at_once=True) as server:
            yield from measure("public page, not cached", server, "/", MAX_UNCACHED_MS)
            yield from measure("operators' list of probes", server, "/probes", MAX_LIST_MS)
            yield from measure("probe with its newest runs", server, "/probes/probe-1", MAX_CHART_MS)
            yield from measure("probe with its chart of 90 days", server, "/probes/probe-1?range=90d", MAX_CHART_MS)
            yield from measure("queue with its charts of 30 days", server, "/probes/queue?range=30d")
        with serving(url, expires_at_once=False) as server:
            yield from measure("public page, cached", server, "/", MAX_CACHED_MS)
    with tempfile.TemporaryDirectory() as folder:
        url = fill_database(Path(folder), LARGE_PROBE_COUNT, with_rollups=False)
        with serving(url, expires_at_once=False) as server, connected_client(server.port) as client:
            for path in PAGES:
                kilobytes = len(get(client, path)) / 1000
                name = f"{LARGE_PROBE_COUNT:,} probes, compressed: {path}"
                yield Measurement(name, kilobytes, "kB", MAX_COMPRESSED_KB)


def measure(name: str, server: MeasuredWebServer, path: str, max_ms: float | None = None) -> Iterator[Measurement]:
    """The time of a request includes the time in which a busy machine runs other programs; the CPU does not."""
    with connected_client(server.port) as client:
        get(client, path)
        cpu_ms = read_cpu_ms(server.pid)
        times_ms = [time_request(client, path) for _ in range(REQUEST_COUNT)]
        cpu_ms = (read_cpu_ms(server.pid) - cpu_ms) / REQUEST_COUNT
    yield Measurement(f"{name}: p99", percentile(times_ms, 99), "ms", max_ms)
    yield Measurement(f"{name}: CPU of the server, mean", cpu_ms, "ms")


def read_cpu_ms(pid: int) -> float:
    """The user and system time of a process, on Linux."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def time_request(client: http.client.HTTPConnection, path: str) -> float:
    started = time.perf_counter()
    get(client, path)
    return (time.perf_counter() - started) * 1000


def get(client: http.client.HTTPConnection, path: str) -> bytes:
    client.request("GET", path, headers={"Accept-Encoding": "gzip"})
    response = client.getresponse()
    body = response.read()
    if response.status != 200:
        raise RuntimeError(f"{path} returned {response.status}")
    return body


def fill_database(folder: Path, probe_count: int, *, with_rollups: bool = True) -> str:
    """Probes in groups, some of them down, each with an hour of results. Returns the URL of the database.

    `with_rollups`: also with a queue that has a result for each minute of RESULT_DAYS.
    """
    rows = FixtureRows()
    rows.add_watermark(NOW)
    for number in range(1, probe_count + 1):
        probe = rows.add_probe(f"Probe {number}", group=f"Group {number % GROUP_COUNT}")
        rows.add_passing_results(probe, count=60)
        if number <= DOWN_PROBE_COUNT:
            rows.add_incident(probe, "availability", "HTTP 503, expected 2xx", NOW - 10 * MINUTE_MS, reason="http.503")
    queue = rows.add_probe("Queue", "queue") if with_rollups else None
    url = f"sqlite:///{folder / 'watchdog.db'}"
    with filled_database(url, rows) as database, database.open_write_transaction() as connection:
        if with_rollups:
            first = NOW // DAY_MS * DAY_MS - ROLLUP_DAYS * DAY_MS
            statement = INSERT_ROLLUPS.format(first=first, step=HOUR_MS, end=NOW // HOUR_MS * HOUR_MS)
            connection.execute(sa.text(statement))
            first = NOW - RESULT_DAYS * DAY_MS
            statement = INSERT_QUEUE_RESULTS.format(probe=queue, first=first, step=MINUTE_MS, end=NOW)
            connection.exec_driver_sql(statement)
    return url


@contextmanager
def serving(url: str, *, expires_at_once: bool) -> Iterator[MeasuredWebServer]:
    """A web server in a process of its own. `expires_at_once`: cached pages are outdated at the next
    request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        process = multiprocessing.get_context("fork").Process(target=serve, args=(url, listener, expires_at_once))
        process.start()
    try:
        assert process.pid is not None
        yield MeasuredWebServer(port, process.pid)
    finally:
        process.terminate()
        process.join()


def serve(url: str, listener: socket.socket, expires_at_once: bool) -> None:
    """Garbage is collected as in `watchdog run`."""
    step_ms = STATUS_PAGE_CACHE_MS if expires_at_once else 0
    clock = itertools.count(NOW, step_ms) if step_ms else itertools.repeat(NOW)
    app = create_test_app(Database(url), clock=lambda: next(clock), status_page=StatusPageConfig("Acme"))
    config = uvicorn.Config(app, log_level="error", access_log=False)
    freeze_heap_and_enable_gc()
    uvicorn.Server(config).run([listener])


@contextmanager
def connected_client(port: int) -> Iterator[http.client.HTTPConnection]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=START_TIMEOUT_S)
    try:
        yield client
    finally:
        client.close()
