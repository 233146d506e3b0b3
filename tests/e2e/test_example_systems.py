"""The systems of examples/systems, each a real one: it is well and nobody is told, it breaks and the incident names the
task, the job or the stage, it is mended and the incident ends."""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import redis.asyncio
import sqlalchemy as sa
from bullmq import Queue

from tests.support.bullmq_application import QUEUE_NAME, BullmqApplication
from tests.support.end_to_end import RunningWatchdog
from tests.support.example_systems import (
    DAY_MS,
    EXAMPLE_SYSTEMS_DIR,
    HOUR_MS,
    OpenIncidentSummary,
    load_example,
    running_example,
    summarize_open_incidents,
)
from tests.support.polling import wait_until_async
from tests.support.postgres import PostgresServer
from tests.support.redis_server import RedisServer
from tests.support.third_party import ThirdPartyServers, find_free_port
from watchdog.app import create_asgi_app, run_app
from watchdog.server import WebServer, open_listen_socket
from watchdog.service.clock import wall_clock_ms
from watchdog.store.read.status import list_probe_statuses
from watchdog.store.write import watermark


@pytest.mark.parametrize("file", sorted(EXAMPLE_SYSTEMS_DIR.iterdir()), ids=lambda file: file.stem)
def test_ten_lines_are_enough(file: Path) -> None:
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    assert len(lines) <= 10


@pytest.fixture
def application(redis_server: RedisServer, peers: ThirdPartyServers) -> Iterator[BullmqApplication]:
    made = BullmqApplication(redis_server, peers)
    made.redis.flushall()
    with made.running_server():
        yield made
    made.redis.close()


# --- jobs behind tools of an MCP server


async def test_the_stage_that_a_job_did_not_reach_is_named(application: BullmqApplication, tmp_path: Path) -> None:
    url = application.url
    async with (
        running_example("export", tmp_path, APP_URL=url) as export,
        running_example("self-test", tmp_path, APP_URL=url) as own,
    ):

        async def look() -> list[OpenIncidentSummary]:
            return [found for (found,) in await asyncio.gather(export.run_slots(), own.run_slots())]

        async def mended() -> None:
            with application.running_worker("return"):
                await wait_until_async(lambda: application.is_idle)
                assert not any(await asyncio.gather(export.run_slots(2), own.run_slots(2)))

        await mended()
        assert await look() == [
            OpenIncidentSummary("availability", "", "canary.not_picked_up", "not picked up within 3 s"),
            OpenIncidentSummary("availability", "", "canary.not_finished", "not finished within 3 s"),
        ]

        await mended()
        with application.running_worker("stall", CONCURRENCY="2"):
            found = await look()
        assert {incident.reason for incident in found} == {"canary.progress_stalled"}
        assert all(re.match(r"progress is unchanged at 40 of 100 for \d", incident.message) for incident in found)
        application.delete_keys(f"bull:{QUEUE_NAME}:*")

        await mended()
        with application.running_worker("throw"):
            assert await look() == [
                OpenIncidentSummary("availability", "", "job.failed", "the job failed: no template for export"),
                OpenIncidentSummary("availability", "", "job.failed", "the job failed: no template for health"),
            ]


# --- scheduled tasks inside an MCP server


async def test_each_task_that_is_not_right_is_named(application: BullmqApplication, tmp_path: Path) -> None:
    def ran(ago: int) -> dict[str, Any]:
        return {"ok": True, "last_run_at": wall_clock_ms() - ago, "last_run_status": "success"}

    well = {"registry_sync": ran(0), "cleanup": ran(HOUR_MS), "mail": ran(0), "monthly_report": ran(9 * DAY_MS)}
    never = {"ok": True, "last_run_at": None, "last_run_status": "never"}
    async with running_example("tasks", tmp_path, APP_URL=application.url) as watch:
        application.set_task_results(**well, backfill=never)
        assert await watch.run_slots(3) == []

        failed = {"ok": False, "last_run_at": wall_clock_ms(), "last_run_error": "the mail server said 451"}
        application.set_task_results(**{**well, "mail": failed, "registry_sync": ran(HOUR_MS)}, backfill=never)
        never_ran, *others = await watch.run_slots(3, delay_ms=27 * HOUR_MS)
        assert never_ran[:3] == ("task", "backfill", "task.never_ran")
        assert never_ran.message.startswith("task backfill has never run: first listed ")
        mail, registry = others
        assert mail == ("task", "mail", "task.failed", "task mail failed: the mail server said 451")
        assert registry[:3] == ("task", "registry_sync", "task.stale")
        assert re.fullmatch(r"task registry_sync is stale: last run .*UTC, limit 15 min", registry.message)

        application.set_task_results(**well, backfill=ran(0))
        assert await watch.run_slots(2) == []


# --- an endpoint that counts its queue


async def test_the_count_that_is_too_high_is_named(application: BullmqApplication, tmp_path: Path) -> None:
    async def enqueue(n: int) -> None:
        connection = redis.asyncio.Redis.from_url(application.broker.url, decode_responses=True)
        queue = Queue(QUEUE_NAME, {"connection": connection})
        await queue.addBulk([{"name": "export", "data": {}} for _ in range(n)])
        await queue.close()

    async with running_example("health", tmp_path, APP_URL=application.url) as watch:
        await enqueue(200)
        assert await watch.run_slots(3) == []
        await enqueue(1)
        (found,) = await watch.run_slots(3)
        assert found[:3] == ("availability", "", "expectation.failed")
        assert found.message == "HTTP 503: body.queue.waiting is 201, expected <= 200"

        with application.running_worker("return", CONCURRENCY="20"):
            await wait_until_async(lambda: application.is_idle)
            assert await watch.run_slots(2) == []

        with application.running_worker("throw", CONCURRENCY="20"):
            await enqueue(51)
            await wait_until_async(lambda: application.redis.zcard(f"bull:{QUEUE_NAME}:failed") == 51)
        (found,) = await watch.run_slots(3)
        assert found.message == "HTTP 503: body.queue.failed is 51, expected <= 50"


# --- jobs that nobody instrumented


async def test_repeatable_jobs_are_named_when_their_worker_stops(
    application: BullmqApplication, tmp_path: Path
) -> None:
    def worker(does: str) -> Any:
        return application.running_worker(does, "bullmq_schedulers.cjs", QUEUE="digests", KEEP="yes")

    def due() -> float:
        return float(application.redis.zscore("bull:digests:repeat", "digest"))

    async with running_example("repeatable", tmp_path, REDIS_URL=application.broker.url) as watch:
        with worker("return"):
            assert await watch.run_slots() == []
        await wait_until_async(lambda: wall_clock_ms() - due() > 4_100)
        (found,) = await watch.run_slots()
        assert found[:3] == ("job", "digest", "job.overdue")
        assert found.message.startswith("digest is overdue: ")

        with worker("hang") as working:
            await wait_until_async(lambda: application.redis.llen("bull:digests:active"))
            assert await watch.run_slots() == []
            working.kill()
        application.delete_keys("bull:digests:*:lock")  # which a worker that is gone does not renew
        (found,) = await watch.run_slots()
        assert found[:3] == ("job", "digest", "job.stalled")
        assert found.message.endswith("and its worker is gone")


JOBS = """
    CREATE TABLE scheduled_jobs (
        id SERIAL, job_type TEXT, status TEXT, instance_id TEXT,
        scheduled_at TIMESTAMPTZ, started_at TIMESTAMPTZ, completed_at TIMESTAMPTZ);
    INSERT INTO scheduled_jobs (job_type, status, instance_id, scheduled_at, started_at, completed_at) VALUES
        ('daily-report', 'completed', 'app-1', now() - interval '9 h', now() - interval '9 h', now() - interval '8 h'),
        ('daily-report', 'pending', NULL, now() + interval '15 h', NULL, NULL),
        ('usage-rollup', 'completed', 'app-2', now(), now() - interval '5 min', now()),
        ('reconcile-ledger', 'running', 'app-3', now(), now() - interval '5 min', NULL);
"""


async def test_jobs_of_a_table_are_named_when_late_or_stuck_and_put_back_by_a_remedy(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with postgres.temporary_database() as url:
        engine = sa.create_engine(url, poolclass=sa.NullPool)

        def do(*statements: str) -> None:
            with engine.begin() as connection:
                for statement in statements:
                    connection.execute(sa.text(statement))

        do(JOBS)
        app_db = url.replace("+psycopg", "")
        async with running_example(
            "scheduled-jobs", tmp_path, APP_DB_URL=app_db, APP_DB_REMEDIATION_URL=app_db
        ) as watch:
            assert await watch.run_slots() == []

            do(
                "UPDATE scheduled_jobs SET scheduled_at = now() - interval '26 hours' WHERE status = 'pending'",
                "UPDATE scheduled_jobs SET started_at = now() - interval '2 hours' WHERE status = 'running'",
            )
            late, stuck = await watch.run_slots()
            assert late[:3] == ("job", "daily-report", "job.overdue")
            assert late.message.startswith("daily-report is overdue: due ")
            assert stuck[:3] == ("job", "reconcile-ledger", "job.stuck")
            assert re.fullmatch(r"reconcile-ledger is stuck: running since .*UTC on app-3, limit 1 h", stuck.message)

            await watch.service.tasks["remediate"].run()
            assert [one.subject for one in await watch.run_slots()] == ["daily-report"], "it is put back, and no other"

            do("UPDATE scheduled_jobs SET status = 'completed', started_at = now(), completed_at = now()")
            assert await watch.run_slots() == []


# --- jobs of cron


async def test_jobs_of_cron_that_fail_or_stay_away_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"BACKUP_CHECKIN_TOKEN": "0123456789abcdef0123", "LEDGER_CHECKIN_TOKEN": "3210fedcba9876543210"}
    for name, value in {**env, "XDG_STATE_HOME": str(tmp_path / "state")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(watermark, "MIN_GAP_MS", 100 * HOUR_MS)  # time is made to pass: we were not away meanwhile
    port = find_free_port()
    given = load_example("cron", tmp_path, env, server={"listen": f"127.0.0.1:{port}"}, defaults={"every": "10s"})
    noon = datetime.now(ZoneInfo("Europe/Berlin")).replace(day=15, hour=12, minute=0, second=0)
    ahead = [round(noon.timestamp() * 1000) - wall_clock_ms()]

    async def backup(code: int) -> None:
        """As cron runs it."""
        words = [sys.executable, "-m", "watchdog.cli", "exec", "Nightly backup", "-c", str(tmp_path / "cron.yaml")]
        script = f"print('no space left'); raise SystemExit({code})"
        ran = await asyncio.create_subprocess_exec(*words, "--", sys.executable, "-c", script, stdout=PIPE, stderr=PIPE)
        assert await ran.communicate() == (b"no space left\n", b"")
        assert ran.returncode == code

    with open_listen_socket("127.0.0.1", port) as listening:
        async with (
            run_app(given, lambda: wall_clock_ms() + ahead[0]) as app,
            WebServer(create_asgi_app(app), listening),
        ):
            watched = RunningWatchdog(app)

            async def told(*expected: OpenIncidentSummary) -> None:
                """So much of each message as is given."""
                await wait_until_async(
                    lambda: (
                        [one[:3] for one in summarize_open_incidents(watched.list_incidents())]
                        == [one[:3] for one in expected]
                    )
                )
                pairs = zip(summarize_open_incidents(watched.list_incidents()), expected, strict=True)
                assert all(found.message.startswith(one.message) for found, one in pairs)

            ahead[0] += 10_000
            await wait_until_async(
                lambda: all(probe.latest_result for probe in watched.query_store(list_probe_statuses))
            )
            await backup(3)
            failed = "Nightly backup failed: exit code 3: no space left"
            await told(OpenIncidentSummary("job", "Nightly backup", "job.failed", failed))
            await backup(0)
            await told()

            ahead[0] += 27 * HOUR_MS
            due = noon.astimezone(UTC) + timedelta(hours=15)
            late = f"Nightly backup is overdue: due {due:%H:%M} UTC"
            never = f"Ledger export has never run: due {due + timedelta(hours=1):%H:%M} UTC"
            never_ran = OpenIncidentSummary("job", "Ledger export", "job.never_ran", never)
            await told(never_ran, OpenIncidentSummary("job", "Nightly backup", "job.overdue", late))
            await backup(0)
            await told(never_ran)
