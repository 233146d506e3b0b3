"""Each file of examples/systems against a real system: no incident while it is healthy; when it fails, the incident
names the task, job or stage; when it is repaired, the incident is resolved."""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from datetime import datetime, timedelta
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
from tests.support.ports import find_free_port
from tests.support.postgres import PostgresServer
from tests.support.redis_server import RedisServer
from tests.support.third_party import ThirdPartyServers
from watchdog.app import create_asgi_app, start_watchdog_service_and_stop_on_exit
from watchdog.server import WebServer, open_listen_socket
from watchdog.service.clock import read_wall_clock_ms
from watchdog.store.read.status import list_probe_statuses
from watchdog.store.write import watermark


@pytest.mark.parametrize("file", sorted(EXAMPLE_SYSTEMS_DIR.iterdir()), ids=lambda file: file.stem)
def test_no_file_is_longer_than_ten_lines(file: Path) -> None:
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    assert len(lines) <= 10


@pytest.fixture
def application(redis_server: RedisServer, peers: ThirdPartyServers) -> Iterator[BullmqApplication]:
    running = BullmqApplication(redis_server, peers)
    running.redis.flushall()
    with running.running_server():
        yield running
    running.redis.close()


# --- jobs behind tools of an MCP server


async def test_the_incident_names_the_stage_that_a_job_did_not_reach(
    application: BullmqApplication, tmp_path: Path
) -> None:
    url = application.url
    async with (
        running_example("export", tmp_path, APP_URL=url) as export,
        running_example("self-test", tmp_path, APP_URL=url) as self_test,
    ):

        async def run_both() -> list[OpenIncidentSummary]:
            """The incident for each behavior."""
            return [incident for (incident,) in await asyncio.gather(export.run_slots(), self_test.run_slots())]

        async def recover() -> None:
            with application.running_worker("return"):
                await wait_until_async(lambda: application.is_idle)
                assert not any(await asyncio.gather(export.run_slots(2), self_test.run_slots(2)))

        await recover()
        assert await run_both() == [
            OpenIncidentSummary("availability", "", "canary.not_picked_up", "canary job not picked up within 3 s"),
            OpenIncidentSummary("availability", "", "canary.not_finished", "canary job not finished within 3 s"),
        ]

        await recover()
        with application.running_worker("stall", CONCURRENCY="2"):
            incidents = await run_both()
        assert {incident.reason for incident in incidents} == {"canary.progress_stalled"}
        assert all(re.match(r"progress is unchanged at 40 of 100 for \d", incident.message) for incident in incidents)
        application.delete_keys(f"bull:{QUEUE_NAME}:*")

        await recover()
        with application.running_worker("throw"):
            assert await run_both() == [
                OpenIncidentSummary("availability", "", "job.failed", "the job failed: no template for export"),
                OpenIncidentSummary("availability", "", "job.failed", "the job failed: no template for health"),
            ]


# --- scheduled tasks inside an MCP server


async def test_the_incident_names_each_task_with_a_problem(application: BullmqApplication, tmp_path: Path) -> None:
    def succeeded(ago_ms: int) -> dict[str, Any]:
        return {"ok": True, "last_run_at": read_wall_clock_ms() - ago_ms, "last_run_status": "success"}

    healthy = {
        "registry_sync": succeeded(0),
        "cleanup": succeeded(HOUR_MS),
        "mail": succeeded(0),
        "monthly_report": succeeded(9 * DAY_MS),
    }
    never_ran = {"ok": True, "last_run_at": None, "last_run_status": "never"}
    async with running_example("tasks", tmp_path, APP_URL=application.url) as example:
        application.set_task_results(**healthy, backfill=never_ran)
        assert await example.run_slots(3) == []

        failed = {"ok": False, "last_run_at": read_wall_clock_ms(), "last_run_error": "the mail server returned 451"}
        results = {**healthy, "mail": failed, "registry_sync": succeeded(HOUR_MS), "backfill": never_ran}
        application.set_task_results(**results)
        backfill, mail, registry_sync = await example.run_slots(3, delay_ms=27 * HOUR_MS)
        assert backfill[:3] == ("task", "backfill", "task.never_ran")
        assert backfill.message.startswith("task backfill has never run: first listed ")
        assert mail == ("task", "mail", "task.failed", "task mail failed: the mail server returned 451")
        assert registry_sync[:3] == ("task", "registry_sync", "task.stale")
        assert re.fullmatch(r"task registry_sync is stale: last run .*UTC, limit 15 min", registry_sync.message)

        application.set_task_results(**healthy, backfill=succeeded(0))
        assert await example.run_slots(2) == []


# --- an endpoint that reports its queue


async def test_the_incident_names_the_queue_metric_over_its_limit(
    application: BullmqApplication, tmp_path: Path
) -> None:
    async def enqueue(count: int) -> None:
        connection = redis.asyncio.Redis.from_url(application.broker.url, decode_responses=True)
        queue = Queue(QUEUE_NAME, {"connection": connection})
        await queue.addBulk([{"name": "export", "data": {}} for _ in range(count)])
        await queue.close()

    async with running_example("health", tmp_path, APP_URL=application.url) as example:
        await enqueue(200)
        assert await example.run_slots(3) == []
        await enqueue(1)
        (incident,) = await example.run_slots(3)
        assert incident[:3] == ("availability", "", "expectation.failed")
        assert incident.message == "body.queue.waiting is 201, expected <= 200; HTTP 503, expected 200"

        with application.running_worker("return", CONCURRENCY="20"):
            await wait_until_async(lambda: application.is_idle)
            assert await example.run_slots(2) == []

        with application.running_worker("throw", CONCURRENCY="20"):
            await enqueue(51)
            await wait_until_async(lambda: application.redis.zcard(f"bull:{QUEUE_NAME}:failed") == 51)
        (incident,) = await example.run_slots(3)
        assert incident.message == "body.queue.failed is 51, expected <= 50; HTTP 503, expected 200"


# --- jobs without any instrumentation


async def test_the_incident_names_repeatable_jobs_when_their_worker_stops(
    application: BullmqApplication, tmp_path: Path
) -> None:
    def worker(behavior: str) -> Any:
        return application.running_worker(behavior, "bullmq_schedulers.cjs", QUEUE="digests", KEEP="yes")

    def next_due() -> float:
        return float(application.redis.zscore("bull:digests:repeat", "digest"))

    async with running_example("repeatable", tmp_path, REDIS_URL=application.broker.url) as example:
        with worker("return"):
            assert await example.run_slots() == []
        await wait_until_async(lambda: read_wall_clock_ms() - next_due() > 4_100)
        (incident,) = await example.run_slots()
        assert incident[:3] == ("job", "digest", "job.overdue")
        assert incident.message.startswith("digest is overdue: ")

        with worker("hang") as hanging:
            await wait_until_async(lambda: application.redis.llen("bull:digests:active"))
            assert await example.run_slots() == []
            hanging.kill()
        application.delete_keys("bull:digests:*:lock")  # a dead worker does not renew it
        (incident,) = await example.run_slots()
        assert incident[:3] == ("job", "digest", "job.stalled")
        assert incident.message.endswith("and its worker is gone")


JOB_TABLE_SQL = """
    CREATE TABLE scheduled_jobs (
        id SERIAL, job_type TEXT, status TEXT, instance_id TEXT,
        scheduled_at TIMESTAMPTZ, started_at TIMESTAMPTZ, completed_at TIMESTAMPTZ);
    INSERT INTO scheduled_jobs (job_type, status, instance_id, scheduled_at, started_at, completed_at) VALUES
        ('daily-report', 'completed', 'app-1', now() - interval '9 h', now() - interval '9 h', now() - interval '8 h'),
        ('daily-report', 'pending', NULL, now() + interval '15 h', NULL, NULL),
        ('usage-rollup', 'completed', 'app-2', now(), now() - interval '5 min', now()),
        ('reconcile-ledger', 'running', 'app-3', now(), now() - interval '5 min', NULL);
"""


async def test_incidents_name_late_and_stuck_jobs_of_a_table_and_the_stuck_job_is_reset(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with postgres.temporary_database() as url:
        engine = sa.create_engine(url, poolclass=sa.NullPool)

        def execute(*statements: str) -> None:
            with engine.begin() as connection:
                for statement in statements:
                    connection.execute(sa.text(statement))

        execute(JOB_TABLE_SQL)
        app_db = url.replace("+psycopg", "")
        env = {"APP_DB_URL": app_db, "APP_DB_REMEDIATION_URL": app_db}
        async with running_example("scheduled-jobs", tmp_path, **env) as example:
            assert await example.run_slots() == []

            execute(
                "UPDATE scheduled_jobs SET scheduled_at = now() - interval '26 hours' WHERE status = 'pending'",
                "UPDATE scheduled_jobs SET started_at = now() - interval '2 hours' WHERE status = 'running'",
            )
            late, stuck = await example.run_slots()
            assert late[:3] == ("job", "daily-report", "job.overdue")
            assert late.message.startswith("daily-report is overdue: due ")
            assert stuck[:3] == ("job", "reconcile-ledger", "job.stuck")
            assert re.fullmatch(r"reconcile-ledger is stuck: running since .*UTC on app-3, limit 1 h", stuck.message)

            await example.service.tasks["remediate"].run()
            incidents = await example.run_slots()
            assert [incident.subject for incident in incidents] == ["daily-report"], "only the stuck job is reset"

            execute("UPDATE scheduled_jobs SET status = 'completed', started_at = now(), completed_at = now()")
            assert await example.run_slots() == []


# --- jobs of cron


async def test_incidents_name_cron_jobs_that_fail_or_do_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {"BACKUP_CHECKIN_TOKEN": "0123456789abcdef0123", "LEDGER_CHECKIN_TOKEN": "3210fedcba9876543210"}
    for name, value in {**env, "XDG_STATE_HOME": str(tmp_path / "state")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(watermark, "MIN_DOWNTIME_GAP_MS", 100 * HOUR_MS)  # the clock jumps, but that is no downtime
    port = find_free_port()
    loaded = load_example("cron", tmp_path, env, server={"listen": f"127.0.0.1:{port}"}, defaults={"every": "10s"})
    noon = datetime.now(ZoneInfo("Europe/Berlin")).replace(day=15, hour=12, minute=0, second=0)
    clock_offset_ms = round(noon.timestamp() * 1000) - read_wall_clock_ms()

    def clock() -> int:
        return read_wall_clock_ms() + clock_offset_ms

    async def run_backup(exit_code: int) -> None:
        """Run the job as cron does."""
        command = [sys.executable, "-m", "watchdog.cli", "exec", "Nightly backup", "-c", str(tmp_path / "cron.yaml")]
        script = f"print('no space left'); raise SystemExit({exit_code})"
        command += ["--", sys.executable, "-c", script]
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
        assert await process.communicate() == (b"no space left\n", b"")
        assert process.returncode == exit_code

    with open_listen_socket("127.0.0.1", port) as listen_socket:
        async with (
            start_watchdog_service_and_stop_on_exit(loaded, clock, clock) as app,
            WebServer(create_asgi_app(app), listen_socket),
        ):
            watchdog = RunningWatchdog(app)

            async def wait_for_incidents(*expected: OpenIncidentSummary) -> None:
                """Wait for exactly these open incidents; the start of each message is compared."""

                def incidents() -> list[OpenIncidentSummary]:
                    return summarize_open_incidents(watchdog.list_incidents())

                await wait_until_async(lambda: [i[:3] for i in incidents()] == [i[:3] for i in expected])
                for incident, expected_incident in zip(incidents(), expected, strict=True):
                    assert incident.message.startswith(expected_incident.message)

            clock_offset_ms += 10_000
            await wait_until_async(
                lambda: all(status.latest_result for status in watchdog.query_store(list_probe_statuses))
            )
            await run_backup(3)
            failed = "Nightly backup failed: exit code 3: no space left"
            await wait_for_incidents(OpenIncidentSummary("job", "Nightly backup", "job.failed", failed))
            await run_backup(0)
            await wait_for_incidents()

            clock_offset_ms += 27 * HOUR_MS
            due = noon + timedelta(hours=15)
            overdue = f"Nightly backup is overdue: due {due:%H:%M} {due.tzname()}"
            never = f"Ledger export has never run: due {due + timedelta(hours=1):%H:%M} {due.tzname()}"
            never_ran = OpenIncidentSummary("job", "Ledger export", "job.never_ran", never)
            await wait_for_incidents(never_ran, OpenIncidentSummary("job", "Nightly backup", "job.overdue", overdue))
            await run_backup(0)
            await wait_for_incidents(never_ran)
