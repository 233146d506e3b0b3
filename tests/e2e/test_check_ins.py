"""Jobs check in with a real Watchdog: what it said yes to outlives a kill, and what goes wrong is told at once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from tests.support.end_to_end import RunningWatchdog
from tests.support.polling import wait_until, wait_until_async
from watchdog.app import create_asgi_app, run_app
from watchdog.config.load import load_config
from watchdog.server import WebServer, open_listen_socket
from watchdog.store.tables import check_ins

KEYS = {f"Job {n}": f"0123456789abcdef-{n}" for n in range(4)}


def config(folder: Path, url: str, port: int = 0, **more: Any) -> Path:
    probes = [{"name": name, "heartbeat": {"token": key, "every": "1h", **more}} for name, key in KEYS.items()]
    spool = str(folder / "check-ins")
    told = {"storage": {"url": url, "check_in_log": spool}, "server": {"listen": f"127.0.0.1:{port}"}, "probes": probes}
    file = folder / "watchdog.yaml"
    file.write_text(json.dumps(told))
    return file


@asynccontextmanager
async def watched(file: Path) -> AsyncIterator[tuple[RunningWatchdog, httpx.AsyncClient]]:
    loaded = load_config(file, env={})
    with open_listen_socket("127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with (
            run_app(loaded) as app,
            WebServer(create_asgi_app(app), listening),
            httpx.AsyncClient(base_url=url) as client,
        ):
            yield RunningWatchdog(app), client


def runs(watched: RunningWatchdog) -> list[str]:
    found: list[str] = watched.query_store(lambda c: c.execute(sa.select(check_ins.c.run_id)).scalars().all())
    return found


@contextmanager
def child(file: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`watchdog run` in a process of its own, and its address."""
    command = [sys.executable, "-m", "watchdog.cli", "run", "-c", str(file)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stderr
    try:
        for line in process.stderr:
            if (event := json.loads(line)).get("event") == "started":
                break
        yield process, event["url"]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def told_until_killed(file: Path, numbers: Iterator[int], enough: int) -> set[str]:
    """The runs that were answered with 2xx before the process was killed in the midst of many more."""
    yes: set[str] = set()
    over = Event()
    with child(file) as (process, url), ThreadPoolExecutor(8) as pool:

        def tell(key: str) -> None:
            with httpx.Client(base_url=url) as client:
                while not over.is_set():
                    run = str(next(numbers))
                    try:
                        if client.post(f"in/{key}", params={"rid": run}, content=b"x" * 2_000).is_success:
                            yes.add(run)
                    except httpx.HTTPError:
                        return

        for key in [*KEYS.values()] * 2:
            pool.submit(tell, key)
        wait_until(lambda: len(yes) >= enough)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        over.set()
    return yes


async def test_nothing_is_lost_that_was_answered_before_a_kill(database_url: str, tmp_path: Path) -> None:
    file, numbers, yes = config(tmp_path, database_url), count(), set[str]()
    for enough in (1, 60, 200):
        yes |= await asyncio.to_thread(told_until_killed, file, numbers, enough)
    async with watched(file) as (watchdog, _):
        await wait_until_async(lambda: yes <= set(runs(watchdog)))
        assert len(runs(watchdog)) == len(set(runs(watchdog)))


async def test_a_failure_is_told_within_seconds_and_so_is_its_end(database_url: str, tmp_path: Path) -> None:
    async with watched(config(tmp_path, database_url)) as (watchdog, client):
        key = KEYS["Job 2"]
        assert (await client.post(f"/in/{key}/3", content="rsync: no space left")).text == "ok\n"
        await wait_until_async(lambda: [i for i in watchdog.list_incidents() if i.state == "open"])
        (incident,) = watchdog.list_incidents()
        assert (incident.rule, incident.subject, incident.reason) == ("job", "Job 2", "job.failed")
        assert incident.message == "Job 2 failed: exit code 3: rsync: no space left"
        await client.get(f"/in/{key}")
        await wait_until_async(lambda: watchdog.list_incidents()[0].state == "resolved")
        page = await client.get("/", headers={"host": "localhost"})
        assert page.status_code == 200
        assert key not in page.text


async def test_a_job_that_stays_away_is_told_of(database_url: str, tmp_path: Path) -> None:
    file = config(tmp_path, database_url)
    told = json.loads(file.read_text())
    for probe in told["probes"]:
        probe |= {"every": "1s"}
        probe["heartbeat"] |= {"every": "2s", "grace": "3s"}
    file.write_text(json.dumps(told))
    async with watched(file) as (watchdog, client):
        await client.get(f"/in/{KEYS['Job 1']}")
        await wait_until_async(lambda: len(watchdog.list_incidents()) == len(KEYS))
        reasons = {i.subject: i.reason for i in watchdog.list_incidents()}
        assert reasons == {**dict.fromkeys(KEYS, "job.never_ran"), "Job 1": "job.overdue"}
        await client.get(f"/in/{KEYS['Job 0']}")
        await wait_until_async(
            lambda: any(i.subject == "Job 0" and i.state == "resolved" for i in watchdog.list_incidents())
        )


def spooled(folder: Path) -> list[Path]:
    return list(folder.glob("*check-ins*"))


@pytest.mark.parametrize("path", ["/in/whatever", "/in/"])
async def test_without_heartbeats_nobody_checks_in(tmp_path: Path, path: str) -> None:
    file = tmp_path / "watchdog.yaml"
    file.write_text(json.dumps({"storage": {"url": f"sqlite:///{tmp_path}/w.db"}, "probes": []}))
    async with watched(file) as (_, client):
        assert (await client.get(path, headers={"host": "localhost"})).status_code == 404
    assert spooled(tmp_path) == []
