"""A request of Slack is accepted once in all processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa

from watchdog.store.act_tables import slack_requests
from watchdog.store.database import Database
from watchdog.store.write.slack_requests import store_accepted_slack_request

NOW = 1_700_000_040_000


def test_one_of_several_processes_accepts_a_request(database: Database) -> None:
    url = database.writer.url.render_as_string(hide_password=False)
    processes = [Database(url) for _ in range(4)]
    try:
        with ThreadPoolExecutor(len(processes)) as threads:
            for number in range(5):
                signature = f"v0={number}"

                def accept(process: Database, signature: str = signature) -> bool:
                    return store_accepted_slack_request(process, signature, NOW + 600_000, NOW)

                assert sorted(threads.map(accept, processes)) == [False, False, False, True]
    finally:
        for process in processes:
            process.close()
    with database.open_read_transaction() as connection:
        assert len(connection.execute(sa.select(slack_requests)).all()) == 5
