"""A remediation during which Watchdog is killed is never repeated; its outcome is unknown."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from tests.support.fakes import CannedResponse, FakeHttpReceiver
from tests.support.polling import wait_until
from tests.support.third_party import find_free_port
from watchdog.store.database import Database
from watchdog.store.tables import remediations, results


@contextmanager
def watchdog(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "watchdog.cli", "run", "-c", str(folder / "watchdog.yaml")]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_what_was_begun_is_not_done_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'watchdog.db'}"
    database = Database(url)
    never = threading.Event()

    def hang() -> CannedResponse:
        never.wait()
        return CannedResponse()

    with FakeHttpReceiver() as ops:
        ops.canned_responses.append(hang)
        probe = {
            "name": "API",
            "http": f"http://127.0.0.1:{find_free_port()}/",
            "every": "1s",
            "alert": {"failure_threshold": 1},
            "remediation": {"on": "connection.refused", "http": ops.url, "max_runs": 1000},
        }
        config = {"storage": {"url": url}, "server": {"listen": "127.0.0.1:0"}, "probes": [probe]}
        (tmp_path / "watchdog.yaml").write_text(json.dumps(config))
        with watchdog(tmp_path) as first:
            wait_until(lambda: ops.received)
            first.kill()
            first.wait()

        def stored() -> int:
            with database.read_transaction() as connection:
                return connection.execute(sa.select(sa.func.count()).select_from(results)).scalar_one()

        before = stored()
        with watchdog(tmp_path):
            wait_until(lambda: stored() >= before + 5)
        never.set()
        assert len(ops.received) == 1
    with database.read_transaction() as connection:
        assert [row.state for row in connection.execute(sa.select(remediations))] == ["started"]
    database.close()
