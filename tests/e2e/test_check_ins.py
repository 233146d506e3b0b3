"""Jobs check in with a real Watchdog: an acknowledged check-in survives a kill, and failures are reported at once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from tests.support.end_to_end import RunningWatchdog
from tests.support.polling import wait_until, wait_until_async
from tests.support.watchdog_process import run_watchdog
from watchdog.app import create_asgi_app, start_watchdog_service_and_stop_on_exit
from watchdog.config.load import load_config
from watchdog.server import WebServer, open_listen_socket
from watchdog.store.tables import check_ins

TOKENS = {f"Job {n}": f"0123456789abcdef-{n}" for n in range(4)}


def write_config(folder: Path, url: str, **probe_fields: Any) -> Path:
    """`probe_fields`: of each probe; `heartbeat` adds to its heartbeat."""
    heartbeat = {"every": "1h", **probe_fields.pop("heartbeat", {})}
    config = {
        "storage": {"url": url, "check_in_log": str(folder / "check-ins")},
        "server": {"listen": "127.0.0.1:0"},
        "probes": [
            {"name": name, "heartbeat": {"token": token, **heartbeat}, **probe_fields} for name, token in TOKENS.items()
        ],
    }
    file = folder / "watchdog.yaml"
    file.write_text(json.dumps(config))
    return file


@asynccontextmanager
async def running_watchdog(file: Path) -> AsyncIterator[tuple[RunningWatchdog, httpx.AsyncClient]]:
    """Watchdog in this process, and a client for its pages."""
    loaded = load_config(file, env={})
    with open_listen_socket("127.0.0.1", 0) as listen_socket:
        url = f"http://127.0.0.1:{listen_socket.getsockname()[1]}"
        async with (
            start_watchdog_service_and_stop_on_exit(loaded) as app,
            WebServer(create_asgi_app(app), listen_socket),
            httpx.AsyncClient(base_url=url, timeout=60) as client,
        ):
            yield RunningWatchdog(app), client


def stored_run_ids(watchdog: RunningWatchdog) -> list[str]:
    query = sa.select(check_ins.c.run_id)
    run_ids: list[str] = watchdog.query_store(lambda connection: connection.execute(query).scalars().all())
    return run_ids


def check_in_until_killed(file: Path, numbers: Iterator[int], count_before_kill: int) -> set[str]:
    """The ids of the runs whose check-in got a 2xx before the process was killed, with more of them in transit."""
    acknowledged: set[str] = set()
    is_killed = Event()
    with run_watchdog(file) as watchdog, ThreadPoolExecutor(8) as pool:

        def check_in(token: str) -> None:
            with httpx.Client(base_url=watchdog.base_url, timeout=60) as client:
                while not is_killed.is_set():
                    run_id = str(next(numbers))
                    try:
                        if client.post(f"in/{token}", params={"rid": run_id}, content=b"x" * 2_000).is_success:
                            acknowledged.add(run_id)
                    except httpx.HTTPError:
                        return

        for token in [*TOKENS.values()] * 2:
            pool.submit(check_in, token)
        wait_until(lambda: len(acknowledged) >= count_before_kill)
        os.kill(watchdog.process.pid, signal.SIGKILL)
        watchdog.process.wait()
        is_killed.set()
    return acknowledged


async def test_an_acknowledged_check_in_survives_a_kill(database_url: str, tmp_path: Path) -> None:
    file, numbers, acknowledged = write_config(tmp_path, database_url), count(), set[str]()
    for count_before_kill in (1, 60, 200):
        acknowledged |= await asyncio.to_thread(check_in_until_killed, file, numbers, count_before_kill)
    async with running_watchdog(file) as (watchdog, _):
        await wait_until_async(lambda: acknowledged <= set(stored_run_ids(watchdog)))
        assert len(stored_run_ids(watchdog)) == len(set(stored_run_ids(watchdog)))


async def test_a_failure_and_its_recovery_are_reported_within_seconds(database_url: str, tmp_path: Path) -> None:
    async with running_watchdog(write_config(tmp_path, database_url)) as (watchdog, client):
        token = TOKENS["Job 2"]
        assert (await client.post(f"/in/{token}/3", content="rsync: no space left")).text == "ok\n"
        await wait_until_async(lambda: any(incident.state == "open" for incident in watchdog.list_incidents()))
        (incident,) = watchdog.list_incidents()
        assert (incident.rule, incident.subject, incident.reason) == ("job", "Job 2", "job.failed")
        assert incident.message == "Job 2 failed: exit code 3: rsync: no space left"
        await client.get(f"/in/{token}")
        await wait_until_async(lambda: watchdog.list_incidents()[0].state == "resolved")
        page = await client.get("/", headers={"host": "localhost"})
        assert page.status_code == 200
        assert token not in page.text


async def test_a_job_that_does_not_check_in_is_reported(database_url: str, tmp_path: Path) -> None:
    file = write_config(tmp_path, database_url, every="1s", heartbeat={"every": "2s", "grace": "3s"})
    async with running_watchdog(file) as (watchdog, client):
        await client.get(f"/in/{TOKENS['Job 1']}")
        await wait_until_async(lambda: len(watchdog.list_incidents()) == len(TOKENS))
        reasons = {incident.subject: incident.reason for incident in watchdog.list_incidents()}
        assert reasons == {**dict.fromkeys(TOKENS, "job.never_ran"), "Job 1": "job.overdue"}
        await client.get(f"/in/{TOKENS['Job 0']}")
        await wait_until_async(
            lambda: any(
                incident.subject == "Job 0" and incident.state == "resolved" for incident in watchdog.list_incidents()
            )
        )


async def test_deadlines_are_met_when_they_are_due(database_url: str, tmp_path: Path) -> None:
    """Although the probe itself runs once an hour."""
    file = write_config(
        tmp_path, database_url, every="1h", heartbeat={"every": "2s", "grace": "3s", "max_runtime": "1s"}
    )
    async with running_watchdog(file) as (watchdog, client):
        await client.get(f"/in/{TOKENS['Job 1']}")
        await client.get(f"/in/{TOKENS['Job 2']}/start")
        await wait_until_async(lambda: len(watchdog.list_incidents()) == 2)
        reasons = {incident.subject: incident.reason for incident in watchdog.list_incidents()}
        assert reasons == {"Job 1": "job.overdue", "Job 2": "job.stuck"}


async def test_a_run_that_never_ends_is_lost_at_the_next_start(database_url: str, tmp_path: Path) -> None:
    async with running_watchdog(write_config(tmp_path, database_url, every="1h")) as (watchdog, client):
        token = TOKENS["Job 3"]
        await client.get(f"/in/{token}/start")
        await client.get(f"/in/{token}/start")
        await wait_until_async(lambda: [incident.reason for incident in watchdog.list_incidents()] == ["job.lost"])
        await client.get(f"/in/{token}")
        await wait_until_async(lambda: watchdog.list_incidents()[0].state == "resolved")


def check_in_log_files(folder: Path) -> list[Path]:
    return list(folder.glob("*check-ins*.[01]"))


@pytest.mark.parametrize("path", ["/in/unknown", "/in/"])
async def test_without_heartbeats_there_is_no_check_in_address(tmp_path: Path, path: str) -> None:
    file = tmp_path / "watchdog.yaml"
    file.write_text(json.dumps({"storage": {"url": f"sqlite:///{tmp_path}/w.db"}, "probes": []}))
    async with running_watchdog(file) as (_, client):
        assert (await client.get(path, headers={"host": "localhost"})).status_code == 404
    assert check_in_log_files(tmp_path) == []
