"""The `tcp` probe: what it sends, what it accepts as an answer, and how its faults are reported."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop
from pydantic import ValidationError

from tests.support.leftovers import requiring_no_leftovers
from tests.support.polling import wait_until_async
from tests.support.ports import find_free_port
from tests.support.probe_runs import run_probe
from tests.support.redis_server import RedisServer
from tests.support.scripted_servers import (
    CertificateAuthority,
    ConnectionHandler,
    running_server,
    send_forever,
    send_parts,
)
from tests.support.tls_servers import running_nginx_with_tls
from watchdog.domain.formatting import NBSP
from watchdog.domain.model import Outcome, ResultToRecord
from watchdog.net import NetworkAccess, SecretMask
from watchdog.net.text_connection import MAX_RECEIVED_TEXT_BYTES, TextConnectionProtocol
from watchdog.probes.base import ProbeAttemptContext
from watchdog.probes.tcp import TcpProbe

Run = Callable[[Coroutine[Any, Any, ResultToRecord]], ResultToRecord]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return uvloop.run if request.param == "uvloop" else asyncio.run


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("certificates"))


def tcp_probe(tcp: Any, **fields: Any) -> TcpProbe:
    return TcpProbe.model_validate({"name": "Port", "tcp": tcp, **fields})


async def observe(
    handler: ConnectionHandler, options: dict[str, Any], tls: ssl.SSLContext | None = None, **fields: Any
) -> ResultToRecord:
    """A run against a scripted server, which leaves nothing behind."""
    async with running_server(handler, tls, read_request=False) as server, requiring_no_leftovers():
        return await run_probe(tcp_probe({"host": f"127.0.0.1:{server.port}", **options}, **fields))


def verdict(recorded: ResultToRecord) -> tuple[str, str, str]:
    result = recorded.result
    return result.outcome, result.reason, result.message.replace(NBSP, " ")


def answer(text: bytes, *, then: bytes | None = None) -> ConnectionHandler:
    """Reads a line, answers, and closes the connection once the client has sent `then` or closed it."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        writer.write(text.replace(b"$LINE", line))
        await writer.drain()
        if then is None:
            await reader.read()

    return handle


def send_until_closed(*parts: bytes) -> ConnectionHandler:
    """Sends the parts one by one, and waits until the client closes the connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        await reader.read()

    return handle


PING = {"send": r"PING\r\n", "contains": "+PONG"}


# --- real servers


@pytest.mark.parametrize(
    ("options", "fields", "expected"),
    [
        ({}, {}, ("pass", "", "")),
        (PING, {}, ("pass", "", "")),
        ({"send": r"INFO server\r\n", "contains": r"\r\nredis_version:"}, {}, ("pass", "", "")),
        (
            {"send": r"PING\r\n"},
            {"expect": ["received == '+PONG'"], "prefer": ["elapsed_ms < 60000"]},
            ("pass", "", ""),
        ),
        (
            {"send": r"PING\r\n"},
            {"expect": ["received.startsWith('-')"]},
            ("fail", "expectation.failed", "received does not start with '-'"),
        ),
        (
            {"send": r"QUIT\r\n", "contains": "+PONG"},
            {},
            (
                "fail",
                "protocol.unexpected_text",
                r"the server sent '+OK\r\n' and closed the connection, expected '+PONG'",
            ),
        ),
    ],
    ids=["connects", "PONG", "a long answer", "the first line", "another first line", "another answer"],
)
def test_redis(
    run: Run,
    redis_server: RedisServer,
    options: dict[str, Any],
    fields: dict[str, Any],
    expected: tuple[str, str, str],
) -> None:
    recorded = run(run_probe(tcp_probe({"host": "127.0.0.1", "port": redis_server.port, **options}, **fields)))
    assert verdict(recorded) == expected
    phases = ["connect"] if not options else ["connect", "first_byte", "text"]
    assert list(recorded.result.phases) == phases
    assert recorded.evidence.facts["address"] == f"127.0.0.1:{redis_server.port}"


def test_redis_that_answers_with_something_else_is_a_timeout_with_its_answer_as_evidence(
    redis_server: RedisServer,
) -> None:
    options = {"host": f"127.0.0.1:{redis_server.port}", "send": r"PINK\r\n", "contains": "+PONG"}
    recorded = asyncio.run(run_probe(tcp_probe(options, timeout="1s")))
    message = "timed out after 1 s while waiting for the expected text"
    assert verdict(recorded) == ("fail", "timeout.text", message)
    assert recorded.evidence.excerpt.startswith("-ERR unknown command")
    assert re.fullmatch(r"\d+ bytes", recorded.evidence.facts["received"])


def test_nginx_over_tls(run: Run, nginx: str, authority: CertificateAuthority) -> None:
    with running_nginx_with_tls(authority.issue_certificate("127.0.0.1", end=90.5)) as port:
        http = {"send": r"GET / HTTP/1.0\r\n\r\n", "contains": r"\r\n\r\nall is well"}
        options = {"host": f"127.0.0.1:{port}", "tls": {"ca_file": authority.ca_file}, **http}
        recorded = run(run_probe(tcp_probe(options, expect=["cert_days == 90"], prefer=["cert_days >= 91"])))
        untrusted = run(run_probe(tcp_probe({"host": f"127.0.0.1:{port}", "tls": True})))
        without_tls = run(run_probe(tcp_probe({"host": f"127.0.0.1:{port}", **http})))
    assert verdict(recorded) == ("pass", "", "")
    assert list(recorded.result.phases) == ["connect", "tls", "first_byte", "text"]
    assert recorded.result.measurements["cert_days"] == 90
    assert "CN=peer expires on " in recorded.evidence.facts["certificate"]
    [(expression, facts)] = recorded.result.listings["preference"].subjects.items()
    assert expression == "cert_days >= 91"
    assert facts.problem.startswith("certificate expires in 90 days (")
    assert untrusted.result.reason == "tls.untrusted"
    assert without_tls.result.reason == "protocol.unexpected_text"
    assert "400 Bad Request" in without_tls.evidence.excerpt


# --- faults, each with its reason


def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Coroutine[Any, Any, None]:
    async def handle() -> None:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    return handle()


TLS_ALERT = b"\x15\x03\x01\x00\x02\x02\x0a"
FAULTS: list[tuple[str, ConnectionHandler, dict[str, Any], str, str]] = [
    ("closes without an answer", answer(b"", then=b"x"), PING,
     "connection.closed", "connection closed by the server while waiting for the first byte"),
    ("resets the connection", reset, PING,
     "connection.reset", "connection reset by the server while waiting for the first byte"),
    ("answers something else and closes", answer(b"-ERR max clients\r\n", then=b"x"), PING,
     "protocol.unexpected_text",
     r"the server sent '-ERR max clients\r\n' and closed the connection, expected '+PONG'"),
    ("answers bytes that are no text", answer(b"\xff\xfe\x00", then=b"x"), PING,
     "protocol.unexpected_text", r"the server sent '\\xff\\xfe\x00' and closed the connection, expected '+PONG'"),
    ("sends without end", send_forever(b"A" * 4096), PING,
     "protocol.unexpected_text",
     f"the server sent at least 64 KiB, beginning with '{'A' * 98}…, expected '+PONG'"),
    ("speaks TLS", answer(TLS_ALERT, then=b"x"), PING,
     "protocol.tls_expected", "the server speaks TLS on this port: set `tls: true`"),
    ("sends nothing", answer(b""), PING, "timeout.first_byte",
     "timed out after 1 s while waiting for the first byte"),
    ("sends half of the text", answer(b"+PO"), PING, "timeout.text",
     "timed out after 1 s while waiting for the expected text"),
    ("does not speak TLS", answer(b""), {"tls": True}, "timeout.tls",
     "timed out after 1 s while negotiating TLS"),
    ("sends a banner instead of TLS", send_until_closed(b"220 ready\r\n"), {"tls": True}, "tls.not_tls",
     "TLS: the server does not speak TLS on this port"),
    ("closes instead of TLS", send_parts(), {"tls": True}, "tls.closed", "TLS: connection closed by the server"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("handler", "options", "reason", "message"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS]
)
def test_each_fault_has_its_reason(
    run: Run, handler: ConnectionHandler, options: dict[str, Any], reason: str, message: str
) -> None:
    assert verdict(run(observe(handler, options, timeout="1s"))) == ("fail", reason, message)


def test_a_refused_connection(run: Run) -> None:
    recorded = run(run_probe(tcp_probe(f"127.0.0.1:{find_free_port()}")))
    assert verdict(recorded) == ("fail", "connection.refused", "connection refused")
    assert recorded.result.duration is None


@pytest.mark.parametrize(
    ("host", "fields", "message"),
    [
        ("169.254.169.254:80", {}, "169.254.169.254 is a cloud metadata address, which is always refused"),
        (
            "localhost:80",
            {"allow_private_addresses": False},
            "is a loopback address, which is refused by `allow_private_addresses: false`",
        ),
    ],
)
def test_a_blocked_address(host: str, fields: dict[str, Any], message: str) -> None:
    recorded = asyncio.run(run_probe(tcp_probe(host, **fields)))
    assert recorded.result.reason == "connection.address_blocked"
    assert recorded.result.message.endswith(message)


def test_an_unusable_file_is_no_fault_of_the_target(tmp_path: Path) -> None:
    options = {"host": "127.0.0.1:1", "tls": {"ca_file": str(tmp_path / "none.pem")}}
    recorded = asyncio.run(run_probe(tcp_probe(options)))
    assert (recorded.result.outcome, recorded.result.reason) == (Outcome.ERROR, "tls.invalid_file")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_missing_client_certificate(run: Run, authority: CertificateAuthority, version: ssl.TLSVersion) -> None:
    context = authority.server_tls_context("127.0.0.1")
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.ca_file)
    options = {**PING, "tls": {"ca_file": authority.ca_file}}
    recorded = run(observe(answer(b"+PONG"), options, context))
    assert recorded.result.reason == "tls.client_certificate"
    options["tls"]["cert_file"] = authority.issue_certificate("watchdog")  # type: ignore[index] # a mapping
    assert verdict(run(observe(answer(b"+PONG"), options, context))) == ("pass", "", "")


# --- what is sent and received


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({"send": r"PING\r\n", "contains": "PING"}, b"PING\r\n"),
        ({"send": r"\x00\xff\\n\n", "contains": r"\xff\\n"}, b"\0\xff\\n\n"),
        ({"send": "grüß\\n", "contains": "grüß"}, "grüß\n".encode()),
    ],
)
def test_escapes_are_sent_and_found_as_bytes(options: dict[str, Any], sent: bytes) -> None:
    lines: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append(await reader.readline())
        writer.write(lines[0])
        await reader.read()

    assert asyncio.run(observe(echo, options)).result.outcome is Outcome.PASS
    assert lines == [sent]


def test_text_that_arrives_in_parts_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, receive = list[bytes](), TextConnectionProtocol.data_received

    def receive_and_record(self: TextConnectionProtocol, data: bytes) -> None:
        parts.append(data)
        receive(self, data)

    def has_received(number: int) -> bool:
        return len(parts) == number

    async def send_when_received(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number, part in enumerate((b"noise +PO", b"+P", b"O", b"NG")):
            await wait_until_async(partial(has_received, number))
            writer.write(part)
        await reader.read()

    monkeypatch.setattr(TextConnectionProtocol, "data_received", receive_and_record)
    recorded = asyncio.run(observe(send_when_received, {"contains": "+PONG"}))
    assert parts == [b"noise +PO", b"+P", b"O", b"NG"]
    assert verdict(recorded) == ("pass", "", "")
    assert recorded.evidence.excerpt == "noise +PO+PONG"
    assert recorded.evidence.facts["received"] == "14 bytes"


@pytest.mark.parametrize(("padding", "reason"), [(0, ""), (1, "protocol.unexpected_text")])
def test_text_counts_within_the_first_64_kib(padding: int, reason: str) -> None:
    text = b"A" * (MAX_RECEIVED_TEXT_BYTES - 5 + padding) + b"+PONG"
    recorded = asyncio.run(observe(send_until_closed(text), {"contains": "+PONG"}))
    assert recorded.result.reason == reason


@pytest.mark.parametrize(
    ("text", "expression", "outcome"),
    [
        (b"220 mail.acme.example ESMTP\r\nmore", "received == '220 mail.acme.example ESMTP'", "pass"),
        (b"SSH-2.0-OpenSSH_9.2\n", "received.matches('^SSH-2[.]0-')", "pass"),
        (b"no end of line", "received == 'no end of line'", "pass"),
        (b"\r\n220 ready\r\n", "received == ''", "pass"),
        (b"500 broken\r\n", "received.startsWith('220')", "fail"),
    ],
)
def test_without_contains_the_first_line_is_received(text: bytes, expression: str, outcome: str) -> None:
    recorded = asyncio.run(observe(send_parts(text), {}, expect=[expression], prefer=["received == ''"]))
    assert recorded.result.outcome == outcome
    assert bool(recorded.result.listings) is (outcome == "pass")


def test_nothing_is_read_unless_it_is_judged() -> None:
    recorded = asyncio.run(observe(send_parts(b"220 ready\r\n"), {}))
    assert (recorded.result.outcome, recorded.evidence.excerpt) == (Outcome.PASS, "")
    assert "received" not in recorded.evidence.facts


def test_a_secret_is_masked_in_the_evidence() -> None:
    async def run_scenario() -> ResultToRecord:
        async with running_server(answer(b"$LINE", then=b"x"), read_request=False) as server:
            options = {"host": f"127.0.0.1:{server.port}", "send": r"AUTH swordfish-123\n", "contains": "+OK"}
            return await run_probe(tcp_probe(options), mask=SecretMask(["swordfish-123"]))

    recorded = asyncio.run(run_scenario())
    assert recorded.result.message.startswith(r"the server sent 'AUTH •••\n' and closed the connection")
    assert "swordfish" not in repr(recorded)


# --- configuration


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tcp": "db.acme.example"}, "no port: add it, as in db.acme.example:5432"),
        (
            {"tcp": {"host": "db:1", "send": "x"}},
            "the response would not be read: add `contains`, or an `expect` expression",
        ),
        ({"tcp": {"host": "db:1", "send": r"\q", "contains": "x"}}, r"unknown escape '\\q'"),
        ({"tcp": "db:1", "expect": ["cert_days > 1"]}, "cert_days requires `tls: true`"),
        ({"tcp": "db:1", "prefer": ["cert_days > 1"]}, "cert_days requires `tls: true`"),
        (
            {"tcp": "db:1", "expect": ["status == 1"]},
            "unknown name 'status'; variables: cert_days, elapsed_ms, received",
        ),
        ({"tcp": {"host": "db:1", "tls": {"key_file": "x"}}}, "key_file requires cert_file"),
        ({"tcp": {"host": "db:1", "timeout": "1s"}}, "Extra inputs are not permitted"),
    ],
)
def test_a_probe_that_cannot_work_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TcpProbe.model_validate({"name": "Port", **fields})


def test_what_pages_and_the_scheduler_know_of_it() -> None:
    plain, sending = tcp_probe("DB.acme.example:5432"), tcp_probe({"host": "[::1]:6379", **PING})
    assert (plain.target, plain.network_endpoint) == ("tcp://db.acme.example:5432", "db.acme.example:5432")
    assert (sending.target, sending.network_endpoint) == ("tcp://[::1]:6379", "[::1]:6379")
    assert [(probe.may_change_target, probe.may_run_without_store) for probe in (plain, sending)] == [
        (False, True),
        (True, False),
    ]


def test_certificates_are_judged_at_the_time_of_the_run(authority: CertificateAuthority) -> None:
    """`started_at` decides, not the clock of the machine."""

    async def run_scenario() -> int:
        async with (
            running_server(
                send_until_closed(), authority.server_tls_context("127.0.0.1", end=90), read_request=False
            ) as server,
            NetworkAccess() as network,
        ):
            probe = tcp_probe({"host": f"127.0.0.1:{server.port}", "tls": {"ca_file": authority.ca_file}})
            context = ProbeAttemptContext(0, 1_000_000_000_000, 10.0, "key", {}, network)
            observation = await probe.observe(context)
            assert observation.outcome is Outcome.PASS, observation.message
            return int(observation.measurements["cert_days"] or 0)

    assert asyncio.run(run_scenario()) > 3_000
