"""An SMTP server that refuses the first email for good, and accepts the next: the alert arrives within the hour."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.fakes import FakeMailServer
from tests.support.polling import wait_until
from tests.support.watchdog_process import run_watchdog

LIMIT_EXCEEDED = (
    "554 5.7.0 Your message could not be sent. The limit of outgoing messages was exceeded. Try again later."
)


@pytest.mark.parametrize(
    "refusal",
    [
        ("DATA", LIMIT_EXCEEDED),
        ("MAIL", "550 5.7.60 SMTP; Client does not have permissions to send as this sender"),
        ("RCPT", "550 5.7.1 Unable to relay"),
        ("RCPT", "552 5.2.2 Mailbox full"),
    ],
    ids=lambda refusal: f"{refusal[0]} {refusal[1][:9]}",
)
def test_an_email_that_is_refused_at_first_arrives(tmp_path: Path, refusal: tuple[str, str]) -> None:
    with FakeMailServer() as mail:
        mail.canned_responses.append(refusal)
        config = {
            "server": {"listen": "127.0.0.1:0"},
            "storage": {"url": "sqlite:///wd.db"},
            "email": {"host": "127.0.0.1", "port": mail.port, "security": "none", "from": "watchdog@acme.example"},
            "probes": [{"name": "T", "http": "http://127.0.0.1:9/", "every": "10s", "alert": {"failure_threshold": 1}}],
            "receivers": {"oncall": {"email": {"to": ["oncall@acme.example"]}}},
        }
        (tmp_path / "watchdog.yaml").write_text(json.dumps(config))
        with run_watchdog(tmp_path / "watchdog.yaml") as watchdog:
            wait_until(lambda: mail.received)
            wait_until(lambda: any(entry["event"] == "notification_sent" for entry in watchdog.log_entries))
            (retry,) = (e for e in watchdog.log_entries if e["event"] == "notification_retry_scheduled")
        assert refusal[1][:60] in retry["error"]
        assert len(mail.received) == 1
