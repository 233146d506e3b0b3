"""What a mail server may answer at each step of a session, and what the receiver's page then shows."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from tests.notifiers.conftest import SendFixture
from tests.support.alert_contexts import OPENED_ALERT
from watchdog.notifiers.base import NotificationDeliveryError
from watchdog.notifiers.email import EmailNotifier, SmtpServerSettings

LOGIN = {"username": "watchdog", "password": "pass word of some length"}
RESPONSES = {"EHLO": b"250-hi\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n", "DATA": b"354 go\r\n"}
END_OF_DATA = "end of data"


@contextmanager
def scripted_mail_server(responses: Mapping[str, bytes]) -> Iterator[int]:
    """Answers a command with its response, else as a server does; an empty response drops the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, connection.makefile("rb") as reader:
                connection.sendall(responses.get("banner", b"220 hi\r\n"))
                in_data = False
                for line in reader:
                    if in_data and line != b".\r\n":
                        continue
                    command = END_OF_DATA if in_data else line[:4].decode("ascii").strip().upper()
                    response = responses.get(command, RESPONSES.get(command, b"250 fine\r\n"))
                    if not response:
                        return
                    in_data = command == "DATA" and response.startswith(b"354")
                    connection.sendall(response)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(5)


def notifier(port: int, **settings: str) -> EmailNotifier:
    server = {"host": "127.0.0.1", "port": port, "security": "none", "from": "watchdog@acme.example"} | settings
    return EmailNotifier(to=("a@b.example", "c@d.example"), server=SmtpServerSettings.model_validate(server))


@pytest.mark.parametrize(
    ("responses", "settings", "reason", "retried", "message"),
    [
        ({"banner": b"SSH-2.0-OpenSSH_9.6\r\n"}, {}, "smtp.protocol_error", "always",
         "the response is not that of a mail server"),
        ({"banner": b"220 " + b"x" * 100_000 + b"\r\n"}, {}, "smtp.protocol_error", "always",
         "the response is not that of a mail server"),
        ({"banner": b"550 5.7.1 blocked by a list\r\n"}, {}, "smtp.550", "an hour", "SMTP 550 5.7.1 blocked by a list"),
        ({"EHLO": b"421 4.3.2 shutting down\r\n"}, {}, "smtp.421", "always", "SMTP 421 4.3.2 shutting down"),
        ({"EHLO": b"554 5.7.1 no\r\n", "HELO": b"554 5.7.1 bad name\r\n"}, {}, "smtp.554", "an hour",
         "SMTP 554 5.7.1 bad name"),
        ({"STAR": b"454 TLS not available\r\n"}, {"security": "starttls"}, "smtp.454", "always",
         "SMTP 454 TLS not available"),
        ({"AUTH": b"454 4.7.0 later\r\n"}, LOGIN, "smtp.auth_failed", "always",
         "SMTP 454: the server cannot check the login at the moment"),
        ({"AUTH": b"535 5.7.8 no\r\n"}, LOGIN, "smtp.auth_failed", "an hour",
         "SMTP 535: the server rejects the user name or the password"),
        ({"AUTH": b"534-5.7.9 Application-specific\r\n534 5.7.9 password required\r\n"}, LOGIN, "smtp.auth_failed",
         "an hour", "SMTP 534: the server requires another way to log in, such as an app password"),
        ({"AUTH": b"530 5.7.0 Must issue a STARTTLS command first\r\n"}, LOGIN, "smtp.auth_failed", "an hour",
         "SMTP 530: the server requires encryption before the login"),
        ({"AUTH": b"421 4.7.0 too many logins\r\n"}, LOGIN, "smtp.421", "always", "SMTP 421 4.7.0 too many logins"),
        ({"MAIL": b"530 5.7.0 Authentication required\r\n"}, {}, "smtp.530", "an hour",
         "SMTP 530 5.7.0 Authentication required"),
        ({"RCPT": b"421 4.7.0 too many connections\r\n"}, {}, "smtp.421", "always",
         "SMTP 421 4.7.0 too many connections"),
        ({"DATA": b"503 no valid recipients\r\n"}, {}, "smtp.503", "an hour", "SMTP 503 no valid recipients"),
        ({END_OF_DATA: b"452 4.3.1 insufficient storage\r\n"}, {}, "smtp.452", "always",
         "SMTP 452 4.3.1 insufficient storage"),
        ({END_OF_DATA: b"421 4.3.0 later\r\n"}, {}, "smtp.421", "always", "SMTP 421 4.3.0 later"),
    ],
)  # fmt: skip
def test_a_refusal_at_each_step(
    fail: SendFixture,
    responses: Mapping[str, bytes],
    settings: Mapping[str, str],
    reason: str,
    retried: str,
    message: str,
) -> None:
    with scripted_mail_server(responses) as port:
        failed = fail(notifier(port, **settings), OPENED_ALERT)
    assert (failed["reason"], failed["retried"], failed["message"]) == (reason, retried, message)


@pytest.mark.parametrize(
    ("response", "maybe_delivered"),
    [(b"", True), (b"what?\r\n", True), (b"421 4.3.0 later\r\n", False), (b"554 5.7.1 spam\r\n", False)],
)
def test_a_response_to_the_email_that_is_none_leaves_the_delivery_unknown(
    send: SendFixture, response: bytes, maybe_delivered: bool
) -> None:
    with scripted_mail_server({END_OF_DATA: response}) as port, pytest.raises(NotificationDeliveryError) as failed:
        send(notifier(port), OPENED_ALERT)
    assert failed.value.maybe_delivered is maybe_delivered
