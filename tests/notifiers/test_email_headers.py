"""The headers of an email as they are transferred: no line is empty, no blank is lost, and ids stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.notifiers.conftest import SendFixture
from tests.support.alert_contexts import OPENED_ALERT, RESOLVED_ALERT
from tests.support.fakes import FakeMailServer
from watchdog.notifiers.email import EmailNotifier, SmtpServerSettings


@pytest.fixture
def mail() -> Iterator[FakeMailServer]:
    with FakeMailServer() as standin:
        yield standin


def notifier(mail: FakeMailServer, sender: str = "watchdog@acme.example") -> EmailNotifier:
    server = {"host": "127.0.0.1", "port": mail.port, "security": "none", "from": sender}
    return EmailNotifier(to=("oncall@acme.example",), server=SmtpServerSettings.model_validate(server))


def header_lines(raw: bytes, name: str) -> list[bytes]:
    """The lines of a header, as transferred."""
    lines = raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
    first = next(i for i, line in enumerate(lines) if line.lower().startswith(name.encode() + b":"))
    last = next(i for i, line in enumerate([*lines[first + 1 :], b"end"], first + 1) if not line[:1].isspace())
    return lines[first:last]


@pytest.mark.parametrize(
    "cause",
    [
        'mail to ops@acme.example failed: "no route" for a@b.example, c@d.example',
        "mail to ops@acme.example failed for a@b.example, x",
        'job "nächtlicher Abgleich" of "ops@acme.example"',
        "no run by 06:00 UTC " + "y" * 70 + " … é [x]",
        "https://acme.example/" + "p" * 150,
        "Die nächtliche Sicherung ist überfällig: kein Lauf bis 06:00 UTC, der letzte endete am 27. November",
        "日本語 " * 20,
        "🦉" * 60,
        "a  =?utf-8?q?b?= c",
        "(a, b; c <d@e>): [" + "w, " * 40 + "]",
    ],
)
def test_the_subject_survives_its_folding(mail: FakeMailServer, send: SendFixture, cause: str) -> None:
    send(notifier(mail), replace(OPENED_ALERT, incident=replace(OPENED_ALERT.incident, message=cause)))
    (delivered,) = mail.received
    expected = f"[DOWN critical] API: {' '.join(cause.split())}".replace("=?", "= ?")
    assert delivered.message["Subject"] == (expected if len(expected) <= 200 else f"{expected[:199]}…")
    lines = header_lines(delivered.raw_message, "subject")
    assert lines[0].removeprefix(b"Subject:").strip()
    assert all(line.strip() and len(line) < 200 for line in lines)


def test_a_long_domain_of_the_sender_breaks_no_thread(mail: FakeMailServer, send: SendFixture) -> None:
    email = notifier(mail, "watchdog@notifications.eu-west-1.production.acme-corporation.example")
    first = send(email, OPENED_ALERT)
    send(email, RESOLVED_ALERT, first)
    message_id = first["message_id"].encode()
    assert header_lines(mail.received[0].raw_message, "message-id") == [b"Message-ID: " + message_id]
    assert header_lines(mail.received[1].raw_message, "in-reply-to") == [b"In-Reply-To: " + message_id]
    assert header_lines(mail.received[1].raw_message, "references") == [b"References: " + message_id]
