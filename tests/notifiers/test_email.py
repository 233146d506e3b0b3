from __future__ import annotations

import math
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from tests.notifiers.conftest import SendFixture
from tests.support import alert_contexts
from tests.support.alert_contexts import (
    MERGED_ALERT,
    MINIMAL_ALERT,
    NOW,
    OPENED_ALERT,
    RESOLVED_ALERT,
    TASK_ALERT,
    TEST_ALERT,
)
from tests.support.fakes import FakeMailServer, make_certificate
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.formatting import to_utc_datetime
from watchdog.notifiers import email as email_module
from watchdog.notifiers.base import DELIVERY_CONFIG_ERROR_RETRY_DURATION_S, NotificationDeliveryError
from watchdog.notifiers.email import EmailNotifier, SmtpServerSettings
from watchdog.notifiers.email_letter import (
    derive_email_message_id_from_idempotency_key,
    render_email_html_part,
    render_email_text_part,
)
from watchdog.notifiers.message import compose_alert_message
from watchdog.service.notifications import NOTIFICATION_SEND_TIMEOUT_S

LOGIN = ("watchdog", "pass word of some length")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def mail() -> Iterator[FakeMailServer]:
    with FakeMailServer() as standin:
        yield standin


def to(
    mail: FakeMailServer, security: str = "none", people: tuple[str, ...] = ("oncall@acme.example",), **more: Any
) -> EmailNotifier:
    server = {"host": "127.0.0.1", "port": mail.port, "security": security, "from": "watchdog@acme.example"} | more
    return EmailNotifier(to=people, server=SmtpServerSettings.model_validate(server))


def part(message: EmailMessage, kind: str) -> str:
    body = message.get_body((kind,))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


def test_the_headers_of_an_email(mail: FakeMailServer, send: SendFixture) -> None:
    receipt = send(to(mail), OPENED_ALERT)
    (delivered,) = mail.received
    message = delivered.message
    assert (delivered.sender, delivered.recipients) == ("watchdog@acme.example", ["oncall@acme.example"])
    assert message["Subject"] == "[DOWN critical] API: HTTP 503, expected 200"
    assert message["From"] == "Watchdog <watchdog@acme.example>"
    assert message["To"] == "oncall@acme.example"
    assert message["Message-ID"] == receipt["message_id"]
    assert parsedate_to_datetime(message["Date"]) == to_utc_datetime(NOW - NOW % 1_000)
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["In-Reply-To"] is None
    assert message.get_content_type() == "multipart/alternative"
    assert receipt["refused"] == {}


def test_the_text_part_is_complete_by_itself(mail: FakeMailServer, send: SendFixture) -> None:
    send(to(mail), OPENED_ALERT)
    assert (
        part(mail.received[0].message, "plain")
        == f"""\
✕ Down: API: HTTP 503, expected 200

Checked: https://api.acme.example/health
Expected: status == 200 · observed 503
Since: 01:48:00 UTC, 3 checks; last good 01:47:00 UTC, response time 182 ms
Last 20 checks: ▁▁▁▁▁▁▂▁▁▁▁▁▁▂▁▁▁✕✕✕ every 60 s
What to do: Check the load of the service and, if it is behind a proxy, whether its instances are ready.
Also to: ops/email, pager/webhook (not delivered)
Severity: critical
Group: Core
Location: eu

Evidence (includes untrusted text from the target; secrets are masked):

    status: 503
    protocol: HTTP/1.1
    {alert_contexts.RESPONSE_BODY}

Incident: https://status.acme.example/incidents/5d41402abc4b2a76b9719d91
Probe: https://status.acme.example/probes/api
Runbook: https://wiki.acme.example/api?a=1&b=2
"""
    )


def test_the_html_part_has_the_same_content_and_inlined_styles(mail: FakeMailServer, send: SendFixture) -> None:
    send(to(mail), OPENED_ALERT)
    html = part(mail.received[0].message, "html")
    page_text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))
    for line in (
        *compose_alert_message(OPENED_ALERT).main_fields,
        *compose_alert_message(OPENED_ALERT).attribute_fields,
    ):
        assert re.sub(r"\s+", " ", line.text) in page_text
        assert line.code in page_text
    assert f'href="{OPENED_ALERT.incident_url}"' in html
    assert 'href="https://wiki.acme.example/api?a=1&amp;b=2"' in html
    assert re.search(r'<h1 class="title" style="[^"]*font-size: 22px', html)
    assert "@media (prefers-color-scheme: dark)" in html
    assert "<link" not in html
    assert "src=" not in html


def test_a_recovery_joins_the_thread_of_the_first_email(mail: FakeMailServer, send: SendFixture) -> None:
    first = send(to(mail), OPENED_ALERT)
    send(to(mail), RESOLVED_ALERT, first)
    message = mail.received[1].message
    assert message["Subject"] == "[RECOVERED] API: up again after 54 min (was: HTTP 503, expected 200)"
    assert message["In-Reply-To"] == message["References"] == first["message_id"] != message["Message-ID"]
    assert part(message, "plain").startswith("✓ API recovered (was: HTTP 503, expected 200) · down 54 min\n")


def test_a_recovery_names_the_time_of_its_evidence(mail: FakeMailServer, send: SendFixture) -> None:
    send(to(mail), OPENED_ALERT)
    send(to(mail), RESOLVED_ALERT)
    titles = ("Evidence", "Evidence from the first bad check, 01:48:00 UTC")
    for received, title in zip(mail.received, titles, strict=True):
        assert f"\n{title} (includes untrusted text from the target; secrets are masked):\n" in part(
            received.message, "plain"
        )
        assert f">{title} (includes untrusted text from the target; secrets are masked)<" in part(
            received.message, "html"
        )


@pytest.mark.parametrize("context", [MERGED_ALERT, RESOLVED_ALERT])
def test_a_recovery_without_a_first_email_starts_a_thread(
    mail: FakeMailServer, send: SendFixture, context: AlertMessageContext
) -> None:
    send(to(mail), context)
    message = mail.received[0].message
    assert message["Subject"] == "[RECOVERED] API: up again after 54 min (was: HTTP 503, expected 200)"
    assert message["In-Reply-To"] is None


def test_a_repeated_email_has_the_same_message_id(mail: FakeMailServer, send: SendFixture) -> None:
    first, second, other = send(to(mail), OPENED_ALERT), send(to(mail), OPENED_ALERT), send(to(mail), RESOLVED_ALERT)
    assert first["message_id"] == second["message_id"] != other["message_id"]
    assert re.fullmatch(
        r"<[0-9a-f]{32}@acme\.example>", derive_email_message_id_from_idempotency_key("any\r\nkey é", "acme.example")
    )


def test_the_subject_names_a_task_and_marks_a_test(mail: FakeMailServer, send: SendFixture) -> None:
    send(to(mail), TASK_ALERT)
    send(to(mail), TEST_ALERT)
    task, test = (delivered.message["Subject"] for delivered in mail.received)
    assert task == "[DEGRADED warning] Search MCP: task reindex is stale: last run 00:53 UTC, limit 15 min"
    assert test == "[TEST oncall/slack] [DOWN critical] API: HTTP 503, expected 2xx"


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_over_tls_with_a_login(pem: Path, send: SendFixture, monkeypatch: pytest.MonkeyPatch, security: Any) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with FakeMailServer(security, pem, LOGIN) as mail:
        send(to(mail, security, host="localhost", username=LOGIN[0], password=LOGIN[1]), OPENED_ALERT)
        (delivered,) = mail.received
    assert delivered.tls
    assert delivered.login_user == LOGIN[0]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_an_untrusted_certificate_is_rejected(pem: Path, fail: SendFixture, security: Any) -> None:
    with FakeMailServer(security, pem) as mail:
        failed = fail(to(mail, security), OPENED_ALERT)
        assert mail.received == []
    assert (failed["reason"], failed["retried"]) == ("tls.self_signed", "always")


def test_without_starttls_nothing_is_sent(mail: FakeMailServer, fail: SendFixture) -> None:
    failed = fail(to(mail, "starttls", username=LOGIN[0], password=LOGIN[1]), OPENED_ALERT)
    assert (failed["reason"], failed["retried"], mail.received) == ("smtp.starttls_missing", "always", [])


def test_a_rejected_password_is_retried_and_never_quoted(
    pem: Path, fail: SendFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with FakeMailServer("starttls", pem, LOGIN) as mail:
        failed = fail(
            to(mail, "starttls", host="localhost", username="watchdog", password="wrong sesame"), OPENED_ALERT
        )
    assert (failed["reason"], failed["retried"]) == ("smtp.auth_failed", "an hour")
    assert "sesame" not in str(failed["message"])


def test_a_password_is_not_sent_to_a_server_without_authentication(pem: Path, fail: SendFixture) -> None:
    with FakeMailServer("starttls", pem, LOGIN) as mail:
        failed = fail(to(mail, "none", username=LOGIN[0], password=LOGIN[1]), OPENED_ALERT)
        assert mail.received == []
    assert (failed["reason"], failed["retried"]) == ("smtp.auth_unavailable", "always")


@pytest.mark.parametrize(
    ("response", "reason", "retried"),
    [
        (("DATA", "451 try later"), "smtp.451", "always"),
        (("DATA", "554 no thanks"), "smtp.554", "an hour"),
        (("DATA", "554 5.7.0 The limit of outgoing messages was exceeded. Try again later."), "smtp.554", "an hour"),
        (("DATA", "550 5.7.1 rejected by policy"), "smtp.550", "an hour"),
        (("DATA", "552 5.2.2 quota exceeded"), "smtp.552", "an hour"),
        (("DATA", "554 5.6.0 invalid content"), "smtp.554", "never"),
        (("DATA", "552 5.3.4 message too big for system"), "smtp.552", "never"),
        (("DATA", "552 5.2.3 message length exceeds the limit"), "smtp.552", "never"),
        (("MAIL", "550 5.7.60 not allowed to send as this sender"), "smtp.550", "an hour"),
        (("MAIL", "530 5.7.0 authentication required"), "smtp.530", "an hour"),
        (("MAIL", "451 4.7.1 try later"), "smtp.451", "always"),
        (("RCPT", "450 greylisted"), "smtp.recipients_refused", "always"),
        (("RCPT", "550 no such user"), "smtp.recipients_refused", "an hour"),
        (("RCPT", "550 5.7.1 relaying denied"), "smtp.recipients_refused", "an hour"),
        (("RCPT", "552 5.2.2 mailbox full"), "smtp.recipients_refused", "an hour"),
    ],
)
def test_4xx_is_retried_and_5xx_for_an_hour_unless_it_is_about_the_content(
    mail: FakeMailServer, fail: SendFixture, response: tuple[str, str], reason: str, retried: str
) -> None:
    mail.canned_responses.append(response)
    failed = fail(to(mail), OPENED_ALERT)
    assert (failed["reason"], failed["retried"]) == (reason, retried)
    assert response[1] in str(failed["message"])


def test_the_receipt_lists_refused_recipients(mail: FakeMailServer, send: SendFixture) -> None:
    mail.canned_responses.append(("RCPT", "550 no such user"))
    receipt = send(to(mail, people=("gone@acme.example", "oncall@acme.example")), OPENED_ALERT)
    assert receipt["refused"] == {"gone@acme.example": "550 no such user"}
    assert mail.received[0].recipients == ["oncall@acme.example"]


def test_a_recipient_whose_mailbox_is_full_is_retried_for_an_hour_and_no_other_receives_a_copy(
    mail: FakeMailServer, send: SendFixture
) -> None:
    email = to(mail, people=("full@acme.example", "ann@acme.example"))
    mail.canned_responses.append(("RCPT", "552 5.2.2 mailbox full"))
    with pytest.raises(
        NotificationDeliveryError, match=r"refused for now: full@acme\.example: 552 5\.2\.2 mailbox full"
    ) as first:
        send(email, OPENED_ALERT)
    assert first.value.retry_for_s == DELIVERY_CONFIG_ERROR_RETRY_DURATION_S
    receipt = send(email, OPENED_ALERT, partly=first.value.partial_receipt)
    assert [delivered.recipients for delivered in mail.received] == [["ann@acme.example"], ["full@acme.example"]]
    assert receipt["refused"] == {}


def test_a_temporarily_refused_recipient_is_retried_and_no_other_receives_a_copy(
    mail: FakeMailServer, send: SendFixture
) -> None:
    people = ("gone@acme.example", "later@acme.example", "ann@acme.example")
    email = to(mail, people=people)
    mail.canned_responses += [("RCPT", "550 no such user"), ("RCPT", "450 greylisted")]
    with pytest.raises(
        NotificationDeliveryError, match=r"refused for now: later@acme\.example: 450 greylisted"
    ) as first:
        send(email, OPENED_ALERT)
    assert math.isinf(first.value.retry_for_s)
    assert mail.received[0].recipients == ["ann@acme.example"]
    mail.canned_responses.append(("RCPT", "450 greylisted"))
    with pytest.raises(NotificationDeliveryError) as second:
        send(email, OPENED_ALERT, partly=first.value.partial_receipt)
    receipt = send(email, OPENED_ALERT, partly={**first.value.partial_receipt, **second.value.partial_receipt})
    assert [delivered.recipients for delivered in mail.received] == [["ann@acme.example"], ["later@acme.example"]]
    assert receipt["refused"] == {"gone@acme.example": "550 no such user"}


def test_a_recipient_refused_in_the_end_does_not_make_a_notification_undelivered_that_others_received(
    mail: FakeMailServer, send: SendFixture
) -> None:
    email = to(mail, people=("ann@acme.example", "later@acme.example"))
    mail.canned_responses.append(("RCPT", "550 no such user"))
    receipt = send(email, OPENED_ALERT, partly={"completed": ["ann@acme.example"], "refused": {}})
    assert set(receipt["refused"]) == {"later@acme.example"}
    assert mail.received == []


@contextmanager
def server(handler: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that is not a mail server."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            connection, _ = listening.accept()
            with connection:
                handler(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(5)


@pytest.mark.parametrize(
    ("greeting", "retried"),
    [
        (b"", "always"),
        (b"421 busy\r\n", "always"),
        (b"554 not you\r\n", "an hour"),
        (b"521 5.3.2 this server accepts no mail\r\n", "an hour"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "always"),
    ],
)
def test_an_invalid_greeting(fail: SendFixture, greeting: bytes, retried: str) -> None:
    with server(lambda connection: connection.sendall(greeting)) as port:
        address = {"host": "127.0.0.1", "port": port, "security": "none", "from": "w@acme.example"}
        failed = fail(
            EmailNotifier(to=("a@b.example",), server=SmtpServerSettings.model_validate(address)), OPENED_ALERT
        )
    assert failed["retried"] == retried


def test_without_a_server_the_delivery_is_retried(fail: SendFixture) -> None:
    address = {"host": "127.0.0.1", "port": 9, "security": "none", "from": "w@acme.example"}
    failed = fail(EmailNotifier(to=("a@b.example",), server=SmtpServerSettings.model_validate(address)), OPENED_ALERT)
    assert (failed["reason"], failed["retried"]) == ("connection.refused", "always")
    assert failed["message"] == "connection refused (127.0.0.1:9)"


def accept_one_email(connection: socket.socket) -> None:
    """Then leave the connection to the caller."""
    reader = connection.makefile("rb")
    connection.sendall(b"220 hello\r\n")
    for response in (b"250 hi\r\n", b"250 fine\r\n", b"250 fine\r\n", b"354 go\r\n"):
        reader.readline()
        connection.sendall(response)
    while reader.readline() not in (b".\r\n", b""):
        pass
    connection.sendall(b"250 kept\r\n")


def test_an_accepted_email_counts_as_sent_despite_later_errors(send: SendFixture) -> None:
    with server(accept_one_email) as port:
        address = {"host": "127.0.0.1", "port": port, "security": "none", "from": "w@acme.example"}
        assert send(
            EmailNotifier(to=("a@b.example",), server=SmtpServerSettings.model_validate(address)), OPENED_ALERT
        )["message_id"]


@pytest.mark.parametrize(
    "is_silent", [False, True], ids=["the connection is dropped", "the server is silent until the time limit"]
)
@pytest.mark.parametrize(
    ("dropped_after", "maybe_delivered"),
    [(0, False), (1, False), (3, False), (5, True)],
    ids=["at the greeting", "after EHLO", "after RCPT", "after the email"],
)
def test_only_a_connection_dropped_after_data_leaves_the_delivery_unknown(
    send: SendFixture,
    monkeypatch: pytest.MonkeyPatch,
    dropped_after: int,
    maybe_delivered: bool,
    is_silent: bool,
) -> None:
    monkeypatch.setattr(email_module, "SMTP_TIMEOUT_S", 3.0)

    def handler(connection: socket.socket) -> None:
        reader = connection.makefile("rb")
        connection.sendall(b"220 hello\r\n")
        for response in (b"250 hi\r\n", b"250 fine\r\n", b"250 fine\r\n", b"354 go\r\n")[:dropped_after]:
            reader.readline()
            connection.sendall(response)
        while dropped_after == 5 and reader.readline() not in (b".\r\n", b""):
            pass
        while is_silent and reader.readline():
            pass

    with server(handler) as port:
        address = {"host": "127.0.0.1", "port": port, "security": "none", "from": "w@acme.example"}
        email = EmailNotifier(to=("a@b.example",), server=SmtpServerSettings.model_validate(address))
        with pytest.raises(NotificationDeliveryError) as failed:
            send(email, OPENED_ALERT)
    assert failed.value.maybe_delivered is maybe_delivered
    assert failed.value.partial_receipt["message_id"].endswith("@acme.example>")


def test_an_accepted_email_is_delivered_although_the_server_is_silent_at_the_end(
    send: SendFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a copy would be sent each time."""
    monkeypatch.setattr(email_module, "SMTP_QUIT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(email_module, "SMTP_COMMAND_TIMEOUT_S", 3_600.0)

    def handler(connection: socket.socket) -> None:
        accept_one_email(connection)
        while connection.recv(1024):
            pass

    with server(handler) as port:
        address = {"host": "127.0.0.1", "port": port, "security": "none", "from": "w@acme.example"}
        email = EmailNotifier(to=("a@b.example",), server=SmtpServerSettings.model_validate(address))
        assert send(email, OPENED_ALERT)["message_id"]


def test_the_time_limits_of_an_email_are_less_than_that_of_a_delivery() -> None:
    assert email_module.SMTP_TIMEOUT_S + email_module.SMTP_QUIT_TIMEOUT_S < NOTIFICATION_SEND_TIMEOUT_S


def test_without_a_configured_server_the_delivery_is_retried_for_an_hour(fail: SendFixture) -> None:
    failed = fail(EmailNotifier(to=("a@b.example",)), OPENED_ALERT)
    assert (failed["reason"], failed["retried"]) == ("smtp.not_configured", "an hour")


SERVER = {"host": "smtp.acme.example", "from": "watchdog@acme.example"}


@pytest.mark.parametrize(
    "config",
    [
        {},
        SERVER | {"host": ""},
        SERVER | {"from": "ops"},
        SERVER | {"from": "Ops <x@y.example>\r\nBcc: z@y.example"},
        SERVER | {"from": "Ops\t<x@y.example>"},
        SERVER | {"from": "Ops <x@y.example>, z@y.example"},
        SERVER | {"from": "<x@y.example> <z@y.example>"},
        SERVER | {"from": '"Ops <x@y.example>'},
        SERVER | {"from": "Ops <x..y@y.example>"},
        SERVER | {"from": ".x@y.example"},
        SERVER | {"from": "x@y..example"},
        SERVER | {"from": ""},
        SERVER | {"username": "x"},
        SERVER | {"password": "x"},
        SERVER | {"security": "ssl"},
        SERVER | {"port": 0},
    ],
    ids=str,
)
def test_invalid_server_settings_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SmtpServerSettings.model_validate(config)


@pytest.mark.parametrize(
    "people", [(), ("ops",), ("a@b\r\nRCPT TO:<c@d>",), ("A <a@b.example>",), ("a b@c.example",), ("a@b.example\n",)]
)
def test_invalid_addresses_are_refused(people: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        EmailNotifier(to=people)


@pytest.mark.parametrize(
    ("written", "letter_from"),
    [
        ('"Acme, Ops" <ops@acme.example>', '"Acme, Ops" <ops@acme.example>'),
        ("Acme, Ops <ops@acme.example>", '"Acme, Ops" <ops@acme.example>'),
        ("Acme<ops@acme.example>", "Acme <ops@acme.example>"),
        ("Überwachung <ops@acme.example>", "Überwachung <ops@acme.example>"),
        ("<ops@acme.example>", "Watchdog <ops@acme.example>"),
        ("ops@acme.example", "Watchdog <ops@acme.example>"),
    ],
)
def test_a_sender_may_have_a_name(mail: FakeMailServer, send: SendFixture, written: str, letter_from: str) -> None:
    sender: dict[str, Any] = {"from": written}
    send(to(mail, **sender), MINIMAL_ALERT)
    assert mail.received[0].message["From"] == letter_from
    assert mail.received[0].sender == "ops@acme.example"


def test_a_password_is_not_shown() -> None:
    made = SmtpServerSettings.model_validate(SERVER | {"username": "x", "password": SecretStr("open sesame")})
    assert "sesame" not in repr(made) + str(made.model_dump())
    assert EmailNotifier(to=("a@b.example", "c@d.example")).recipient == "a@b.example, c@d.example"


@pytest.mark.parametrize("context", [s for s in vars(alert_contexts).values() if isinstance(s, AlertMessageContext)])
def test_both_parts_can_be_rendered_for_every_context(context: AlertMessageContext) -> None:
    message = compose_alert_message(context)
    assert message.change_text_or_headline.replace("\u00a0", " ") in render_email_text_part(message).splitlines()[0]
    assert f'class="badge {message.state}"' in render_email_html_part(message, message.email_subject)
