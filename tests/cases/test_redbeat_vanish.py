"""All schedules of Celery beat are lost, as after a restart of a Redis without persistence."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import redis
from celery import Celery
from celery.schedules import schedule
from redbeat import RedBeatSchedulerEntry

from tests.support.command_line import CommandResult, run_command
from tests.support.polling import wait_until
from tests.support.redis_server import RedisServer
from tests.support.watchdog_process import run_watchdog

CONFIG = """\
version: 1
server: {{listen: "127.0.0.1:0"}}
storage: {{url: "sqlite:///vanish.db"}}
defaults: {{every: 2s, alert: {{failure_threshold: 1, success_threshold: 1}}}}
probes:
  - {{name: Beat, jobs: {{grace: 2s, celery: {{redbeat: "{url}"}}}}}}
receivers: {{journal: {{log: {{}}}}}}
"""


def save_schedules(url: str) -> None:
    app = Celery("t", broker=url, set_as_current=False)
    app.conf.update(redbeat_redis_url=url)
    for number in range(3):
        RedBeatSchedulerEntry(f"report-{number}", "t.x", schedule(timedelta(seconds=20)), app=app).save()
    app.redbeat_redis.close()


def test_schedules_that_vanish_are_one_incident_and_nothing_recovers(tmp_path: Path, redis_server: RedisServer) -> None:
    config = tmp_path / "vanish.yaml"
    config.write_text(CONFIG.format(url=redis_server.url))

    def run(*arguments: str) -> CommandResult:
        return run_command(*arguments, "-c", config, cwd=tmp_path)

    def open_messages() -> set[str]:
        incidents = running.get("api/v1/incidents").json()["items"]
        return {incident["message"] for incident in incidents if incident["resolved_at"] is None}

    def state() -> str:
        return str(run("status", "-o", "json").json[0]["state"])

    with redis.Redis.from_url(redis_server.url) as client:
        client.flushdb()
        save_schedules(redis_server.url)
        with run_watchdog(config) as running:
            wait_until(open_messages)
            [dead] = open_messages()
            assert dead.startswith("no Celery beat is running: report-")
            client.flushdb()
            wait_until(lambda: len(open_messages()) == 2)
            [vanished] = open_messages() - {dead}
            assert vanished.endswith("; none of its 3 jobs is listed any more: report-0, report-1, report-2")
            assert state() == "down"
            ended = run("jobs", "forget", "Beat")
            assert (
                ended.stdout == "No longer expected, starting with the next run of Beat: report-0, report-1, report-2\n"
            )
            wait_until(lambda: vanished not in open_messages())
            assert run("jobs", "forget", "Beat", "report-0").exit_code == 2
            save_schedules(redis_server.url)
            wait_until(lambda: not open_messages())
            assert state() == "unknown", "none of the schedules has run yet"
