"""Words of a sender that are not understood are not recorded as success, and are not lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.test_check_ins import TOKENS, running_watchdog, write_config
from tests.support.polling import wait_until_async

TOKEN = TOKENS["Job 1"]


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'watchdog.db'}"


async def test_the_push_address_of_another_product(sqlite_url: str, tmp_path: Path) -> None:
    """A failure, or 400; it was recorded as a success. The attempt is shown on the probe's page."""
    async with running_watchdog(write_config(tmp_path, sqlite_url)) as (watchdog, client):
        response = await client.get(f"/in/{TOKEN}?status=down&msg=disk+full&ping=")
        assert (response.status_code, response.text) == (400, "status: expected only the parameters rid and ago\n")
        local = {"host": "localhost"}

        async def page() -> str:
            return (await client.get("/probes/job-1", headers=local)).text

        for _ in range(200):
            if "Rejected" in await page():
                break
        text = await page()
        assert "Rejected" in text
        assert "GET ?status=down&amp;msg=disk+full&amp;ping=: status: expected only the parameters rid and ago" in text
        assert "Succeeded" not in text
        assert TOKEN not in text.partition('id="check-ins"')[2], "only the card for operators has it"
        assert watchdog.list_incidents() == []


async def test_the_output_of_powershell(sqlite_url: str, tmp_path: Path) -> None:
    """UTF-16 with a byte-order mark: the message is "exit code 1: Error: no space left"."""
    async with running_watchdog(write_config(tmp_path, sqlite_url)) as (watchdog, client):
        output = "\ufeffError: no space left\r\n".encode("utf-16-le")
        headers = {"content-type": "application/x-www-form-urlencoded"}  # as curl --data-binary sends it
        response = await client.post(f"/in/{TOKEN}/1", content=output, headers=headers)
        assert (response.status_code, response.text) == (200, "ok\n")
        await wait_until_async(watchdog.list_incidents)
        assert watchdog.list_incidents()[0].message == "Job 1 failed: exit code 1: Error: no space left"


async def test_the_overdue_message_names_a_rejected_check_in(sqlite_url: str, tmp_path: Path) -> None:
    config = write_config(tmp_path, sqlite_url, every="1h", heartbeat={"every": "2s", "grace": "1s"})
    async with running_watchdog(config) as (watchdog, client):
        assert (await client.get(f"/in/{TOKEN}")).status_code == 200
        assert (await client.get(f"/in/{TOKEN}/finished")).status_code == 400
        await wait_until_async(watchdog.list_incidents)
        message = watchdog.list_incidents()[0].message
        assert message.startswith("Job 1 is overdue: due ")
        assert message.endswith("was rejected")
