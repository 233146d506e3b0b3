"""Servers that should switch to TLS on request and do not: each fault has its reason, and the server's own words."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine
from typing import Any, get_args

import pytest
import uvloop

from tests.support.leftovers import requiring_no_leftovers
from tests.support.probe_runs import run_probe
from tests.support.scripted_servers import ConnectionHandler, running_server, send_forever
from watchdog.domain.model import ResultToRecord
from watchdog.net.starttls import TLS_REQUESTER_BY_STARTTLS_PROTOCOL
from watchdog.probes.tls import DEFAULT_PORT_BY_STARTTLS_PROTOCOL, TlsProbe, TlsTarget

Run = Callable[[Coroutine[Any, Any, ResultToRecord]], ResultToRecord]
EHLO = "250-mail.acme.example\r\n250-SIZE 1000\r\n250 STARTTLS\r\n"
"""The response to it."""


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return uvloop.run if request.param == "uvloop" else asyncio.run


def dialogue(*lines: str, hangs: bool = False) -> ConnectionHandler:
    """Sends the first text, and each other one after a line from the client. Then it closes the connection, or waits
    until the client does."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number, text in enumerate(lines):
            if number:
                await reader.readline()
            writer.write(text.encode("latin-1"))
            await writer.drain()
        if hangs:
            await reader.read()

    return handle


async def agree_and_answer_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await dialogue("220 x\r\n", EHLO, "220 go\r\n")(reader, writer)
    await reader.read(5)
    writer.write(b"what?\r\n")
    await reader.read()


def answer_ssl_request(data: bytes, *, hangs: bool = False) -> ConnectionHandler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(8) == struct.pack("!ii", 8, 80877103)
        writer.write(data)
        await writer.drain()
        if hangs:
            await reader.read()

    return handle


def postgres_error(message: str) -> bytes:
    fields = f"SFATAL\0VFATAL\0C53300\0M{message}\0\0".encode()
    return b"E" + struct.pack("!i", len(fields) + 4) + fields


ASKING = "while requesting STARTTLS"
CLOSED = f"connection closed by the server {ASKING}"
TIMED_OUT = f"timed out after 1 s {ASKING}"
LONG = "starttls.wrong_protocol", "it sent more than 64 KiB before TLS"
FAULTS: list[tuple[str, str, ConnectionHandler, str, str]] = [
    # SMTP
    ("smtp", "hangs without a greeting", dialogue("", hangs=True), "timeout.starttls", TIMED_OUT),
    ("smtp", "hangs after EHLO", dialogue("220 ready\r\n", "", hangs=True), "timeout.starttls", TIMED_OUT),
    ("smtp", "hangs after STARTTLS", dialogue("220 x\r\n", EHLO, "", hangs=True), "timeout.starttls", TIMED_OUT),
    ("smtp", "closes without a greeting", dialogue(), "connection.closed", CLOSED),
    ("smtp", "closes after EHLO", dialogue("220 ready\r\n", ""), "connection.closed", CLOSED),
    ("smtp", "closes within a line", dialogue("220 rea"), "starttls.wrong_protocol",
     "the server does not speak SMTP: it closed the connection in the middle of a response"),
    ("smtp", "is an SSH server", dialogue("SSH-2.0-OpenSSH_9.2\r\n"), "starttls.wrong_protocol",
     "the server does not speak SMTP: it sent 'SSH-2.0-OpenSSH_9.2'"),
    ("smtp", "is a POP3 server", dialogue("+OK ready\r\n"), "starttls.wrong_protocol",
     "the server does not speak SMTP: it sent '+OK ready'"),
    ("smtp", "sends bytes that are no text", dialogue("\xff\xfe\n"), "starttls.wrong_protocol",
     r"the server does not speak SMTP: it sent '\\xff\\xfe'"),
    ("smtp", "refuses the session", dialogue("554 your address is blocked\r\n"), "starttls.session_refused",
     "the server refuses the session before STARTTLS: '554 your address is blocked'"),
    ("smtp", "refuses the session in several lines", dialogue("421-sorry\r\n421 too many connections\r\n"),
     "starttls.session_refused",
     "the server refuses the session before STARTTLS: '421 too many connections'"),
    ("smtp", "refuses EHLO", dialogue("220 FTP ready\r\n", "500 what?\r\n"), "starttls.session_refused",
     "the server refuses the session before STARTTLS: '500 what?'"),
    ("smtp", "does not list it", dialogue("220 ready\r\n", "250-STARTTLS.example\r\n250 SIZE\r\n"),
     "starttls.not_offered", "the server does not offer STARTTLS"),
    ("smtp", "lists only its own name", dialogue("220 ready\r\n", "250 STARTTLS\r\n"),
     "starttls.not_offered", "the server does not offer STARTTLS"),
    ("smtp", "refuses it", dialogue("220 x\r\n", EHLO, "454 4.7.0 TLS not available\r\n"), "starttls.refused",
     "the server refuses STARTTLS: '454 4.7.0 TLS not available'"),
    ("smtp", "agrees and closes", dialogue("220 x\r\n", EHLO, "220 go\r\n"), "tls.closed",
     "TLS: connection closed by the server"),
    ("smtp", "agrees and does not speak TLS", agree_and_answer_hello,
     "tls.not_tls", "TLS: the server does not speak TLS on this port"),
    ("smtp", "agrees and hangs", dialogue("220 x\r\n", EHLO, "220 go\r\n", hangs=True), "timeout.tls",
     "timed out after 1 s while negotiating TLS"),
    ("smtp", "greets without end", send_forever(b"220-again\r\n" * 100), *LONG),
    ("smtp", "sends a line without end", send_forever(b"A" * 4096), *LONG),
    # IMAP
    ("imap", "hangs without a greeting", dialogue("", hangs=True), "timeout.starttls", TIMED_OUT),
    ("imap", "closes without a greeting", dialogue(), "connection.closed", CLOSED),
    ("imap", "closes after STARTTLS", dialogue("* OK ready\r\n", ""), "connection.closed", CLOSED),
    ("imap", "is an SMTP server", dialogue("220 ready\r\n"), "starttls.wrong_protocol",
     "the server does not speak IMAP: it sent '220 ready'"),
    ("imap", "answers with something else", dialogue("* OK ready\r\n", "what?\r\n"), "starttls.wrong_protocol",
     "the server does not speak IMAP: it sent 'what?'"),
    ("imap", "answers another command", dialogue("* OK ready\r\n", "x1 OK go\r\n"), "starttls.wrong_protocol",
     "the server does not speak IMAP: it sent 'x1 OK go'"),
    ("imap", "refuses the session", dialogue("* BYE too many connections\r\n"), "starttls.session_refused",
     "the server refuses the session before STARTTLS: '* BYE too many connections'"),
    ("imap", "has authenticated the session", dialogue("* PREAUTH welcome\r\n"), "starttls.session_refused",
     "the server refuses the session before STARTTLS: '* PREAUTH welcome'"),
    ("imap", "does not know it", dialogue("* OK ready\r\n", "w1 BAD unknown command\r\n"), "starttls.not_offered",
     "the server does not offer STARTTLS: 'BAD unknown command'"),
    ("imap", "refuses it", dialogue("* OK ready\r\n", "* OK wait\r\nw1 NO no certificate\r\n"), "starttls.refused",
     "the server refuses STARTTLS: 'NO no certificate'"),
    ("imap", "ends the session", dialogue("* OK ready\r\n", "* BYE going down\r\n"), "starttls.refused",
     "the server refuses STARTTLS: '* BYE going down'"),
    ("imap", "sends untagged lines without end", send_forever(b"* OK again\r\n" * 100),
     *LONG),
    # PostgreSQL
    ("postgres", "hangs", answer_ssl_request(b"", hangs=True), "timeout.starttls", TIMED_OUT),
    ("postgres", "closes", answer_ssl_request(b""), "connection.closed", CLOSED),
    ("postgres", "does not offer it", answer_ssl_request(b"N"), "starttls.not_offered",
     "the server does not offer STARTTLS"),
    ("postgres", "refuses the session", answer_ssl_request(postgres_error("sorry, too many clients already")),
     "starttls.session_refused",
     "the server refuses the session before STARTTLS: 'sorry, too many clients already'"),
    ("postgres", "closes within an error", answer_ssl_request(postgres_error("sorry")[:-4]), "starttls.wrong_protocol",
     "the server does not speak PostgreSQL: it closed the connection in the middle of a response"),
    ("postgres", "is a memcached server", answer_ssl_request(b"ERROR\r\n"), "starttls.wrong_protocol",
     "the server does not speak PostgreSQL"),
    ("postgres", "is an HTTP server", answer_ssl_request(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
     "starttls.wrong_protocol", "the server does not speak PostgreSQL"),
    ("postgres", "agrees and hangs", answer_ssl_request(b"S", hangs=True), "timeout.tls",
     "timed out after 1 s while negotiating TLS"),
]  # fmt: skip


async def observe(handler: ConnectionHandler, starttls: str) -> ResultToRecord:
    """A run against a scripted server, which leaves nothing behind."""
    async with running_server(handler, read_request=False) as server, requiring_no_leftovers():
        tls = {"host": f"127.0.0.1:{server.port}", "starttls": starttls}
        return await run_probe(TlsProbe.model_validate({"name": "Certificate", "tls": tls, "timeout": "1s"}))


@pytest.mark.parametrize(
    ("starttls", "handler", "reason", "message"),
    [(starttls, handler, reason, message) for starttls, _, handler, reason, message in FAULTS],
    ids=[f"{starttls} {name}" for starttls, name, *_ in FAULTS],
)
def test_each_fault_has_its_reason(
    run: Run, starttls: str, handler: ConnectionHandler, reason: str, message: str
) -> None:
    result = run(observe(handler, starttls)).result
    assert (result.outcome, result.reason) == ("fail", reason)
    assert result.message.replace("\N{NO-BREAK SPACE}", " ").endswith(message)


def test_what_the_server_sent_is_evidence(run: Run) -> None:
    recorded = run(observe(dialogue("220 mail\r\n", EHLO, "454 later\r\n"), "smtp"))
    assert recorded.evidence.excerpt == f"220 mail\n{EHLO}454 later\n".replace("\r\n", "\n")
    assert recorded.evidence.facts["phase"] == "starttls"
    assert list(recorded.result.phases) == ["connect", "starttls"]


def test_the_client_names_its_address(run: Run) -> None:
    lines: list[bytes] = []

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for text in (b"220 ready\r\n", EHLO.encode(), b"454 later\r\n"):
            writer.write(text)
            lines.append(await reader.readline())

    run(observe(record, "smtp"))
    assert lines == [b"EHLO [127.0.0.1]\r\n", b"STARTTLS\r\n", b""]


def test_the_protocols_are_those_of_the_configuration() -> None:
    options = set(get_args(get_args(TlsTarget.model_fields["starttls"].annotation)[0]))
    assert options == TLS_REQUESTER_BY_STARTTLS_PROTOCOL.keys() == DEFAULT_PORT_BY_STARTTLS_PROTOCOL.keys()
