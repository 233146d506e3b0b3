"""A remediation during which Watchdog is killed is never repeated; its result is unknown."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import sqlalchemy as sa

from tests.support.fakes import CannedResponse, FakeHttpReceiver
from tests.support.polling import wait_until
from tests.support.ports import find_free_port
from tests.support.watchdog_process import run_watchdog
from watchdog.store.database import Database
from watchdog.store.tables import remediations, results


def test_an_interrupted_remediation_is_not_repeated(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'watchdog.db'}"
    database = Database(url)
    may_respond = threading.Event()

    def hang() -> CannedResponse:
        may_respond.wait()
        return CannedResponse()

    def count_results() -> int:
        with database.open_read_transaction() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(results)).scalar_one()

    with FakeHttpReceiver() as receiver:
        receiver.canned_responses.append(hang)
        probe = {
            "name": "API",
            "http": f"http://127.0.0.1:{find_free_port()}/",
            "every": "1s",
            "alert": {"failure_threshold": 1},
            "remediation": {"on": "connection.refused", "http": receiver.url, "max_runs": 1000},
        }
        config = {"storage": {"url": url}, "server": {"listen": "127.0.0.1:0"}, "probes": [probe]}
        file = tmp_path / "watchdog.yaml"
        file.write_text(json.dumps(config))
        with run_watchdog(file) as watchdog:
            wait_until(lambda: receiver.received)
            watchdog.process.kill()
            watchdog.process.wait()
        count_before = count_results()
        with run_watchdog(file):
            wait_until(lambda: count_results() >= count_before + 5)
        may_respond.set()
        assert len(receiver.received) == 1
    with database.open_read_transaction() as connection:
        assert [row.state for row in connection.execute(sa.select(remediations))] == ["started"]
    database.close()
