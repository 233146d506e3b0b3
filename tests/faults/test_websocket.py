"""Faults of WebSocket servers on real sockets: each has its own reason."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.faults.fault import Fault, Setup, raw_target, tls_target
from tests.faults.pki import Identity, issue, write_chain
from tests.support.ports import find_free_port
from tests.support.probe_runs import run_probe
from tests.support.scripted_servers import ConnectionHandler, http_response, send_parts
from tests.support.scripted_websockets import (
    BINARY,
    PING,
    TEXT,
    build_frame,
    close_frame,
    open_websocket_and_play,
    read_frame,
    read_to_end,
)
from watchdog.domain.model import Outcome, ResultToRecord
from watchdog.probes import WebSocketProbe

Run = Callable[[Coroutine[Any, Any, ResultToRecord]], ResultToRecord]
UPGRADE_HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


def raw(handler: ConnectionHandler, scheme: str = "ws", **fields: Any) -> Setup:
    @asynccontextmanager
    async def setup(folder: Path) -> AsyncIterator[dict[str, Any]]:
        async with raw_target(handler) as port:
            yield {"url": f"{scheme}://127.0.0.1:{port}/feed?key=of-query", **fields}

    return setup


def refusing(response: bytes) -> Setup:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await send_parts(response)(reader, writer)

    return raw(handle)


def waiting_for_pong(*steps: Any, **fields: Any) -> Setup:
    """The probe waits for the text "pong"."""
    return raw(open_websocket_and_play(*steps), contains="pong", **fields)


def over_tls(make: Callable[[Identity], Identity], scheme: str = "wss") -> Setup:
    @asynccontextmanager
    async def setup(folder: Path) -> AsyncIterator[dict[str, Any]]:
        root = issue("Acme Root", is_authority=True)
        ca_file = write_chain(folder, root, name="root.pem")
        async with tls_target(write_chain(folder, make(root)), handler=open_websocket_and_play(read_to_end)) as port:
            tls = {"tls": {"ca_file": ca_file}} if scheme == "wss" else {}
            yield {"url": f"{scheme}://127.0.0.1:{port}/feed", **tls}

    return setup


@asynccontextmanager
async def no_listener(folder: Path) -> AsyncIterator[dict[str, Any]]:
    yield {"url": f"ws://127.0.0.1:{find_free_port()}/"}


def reset_after_handshake() -> ConnectionHandler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def reset(_: asyncio.StreamReader) -> None:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

        await open_websocket_and_play(read_frame, reset)(reader, writer)

    return handle


def flood(frame: bytes, count: int) -> bytes:
    return frame * count


FAULTS = [
    Fault(
        "WebSocket: 401", refusing(http_response(b"token missing", "401 Unauthorized")), "http.401",
        ("HTTP 401, expected a WebSocket",), shares_remedy_with="401",
    ),
    Fault(
        "WebSocket: 404", refusing(http_response(b"", "404 Not Found")), "http.404",
        ("HTTP 404, expected a WebSocket",), shares_remedy_with="404",
    ),
    Fault(
        "WebSocket: 502 after an interim response",
        refusing(b"HTTP/1.1 103 Early Hints\r\n\r\n" + http_response(b"", "502 Bad Gateway")),
        "http.502", ("HTTP 502, expected a WebSocket",), shares_remedy_with="502",
    ),
    Fault("an ordinary page", refusing(http_response(b"<html>")), "websocket.not_opened", ("HTTP 200",)),
    Fault(
        "WebSocket: a banner of SSH", raw(send_parts(b"SSH-2.0-OpenSSH_9.6\r\n", delay_s=9)), "protocol.not_http",
        ("not HTTP",), shares_remedy_with="an SSH server",
    ),
    Fault(
        "no key in the handshake", refusing(UPGRADE_HEAD + b"\r\n"), "websocket.invalid_handshake",
        ("missing Sec-WebSocket-Accept header",),
    ),
    Fault(
        "another key in the handshake",
        refusing(UPGRADE_HEAD + b"Sec-WebSocket-Accept: AAAA\r\n\r\n"),
        "websocket.invalid_handshake",
        ("invalid Sec-WebSocket-Accept header",),
        shares_remedy_with="no key in the handshake",
    ),
    Fault(
        "an invalid header in the handshake", refusing(UPGRADE_HEAD + b"A B: c\r\n\r\n"), "websocket.invalid_handshake",
        ("valid HTTP response",), shares_remedy_with="no key in the handshake",
    ),
    Fault(
        "an extension that was not offered",
        raw(open_websocket_and_play(headers=b"Sec-WebSocket-Extensions: permessage-deflate\r\n")),
        "websocket.invalid_handshake",
        ("extensions",),
        shares_remedy_with="no key in the handshake",
    ),
    Fault(
        "no subprotocol", raw(open_websocket_and_play(read_to_end), subprotocol="chat.v2"),
        "websocket.subprotocol_refused", ("no subprotocol", "chat.v2"),
    ),
    Fault(
        "another subprotocol",
        raw(open_websocket_and_play(headers=b"Sec-WebSocket-Protocol: chat.v1\r\n"), subprotocol="chat.v2"),
        "websocket.subprotocol_refused",
        ("another one", "chat.v2"),
        shares_remedy_with="no subprotocol",
    ),
    Fault(
        "a subprotocol that was not offered",
        raw(open_websocket_and_play(headers=b"Sec-WebSocket-Protocol: chat.v1\r\n")),
        "websocket.subprotocol_refused",
        ("another one", "none"),
        shares_remedy_with="no subprotocol",
    ),
    Fault(
        "closed before the message",
        waiting_for_pong(build_frame(TEXT, b"hello"), close_frame(1011, "feed is down"), read_to_end),
        "websocket.closed",
        ("code 1011 (internal error: feed is down)", "a message that contains 'pong'"),
    ),
    Fault(
        "closed without a code before the pong",
        raw(open_websocket_and_play(build_frame(0x8), read_to_end)),
        "websocket.closed",
        ("code 1005 (none stated)", "the response to a ping"),
        shares_remedy_with="closed before the message",
    ),
    Fault(
        "closed with a code of the application",
        waiting_for_pong(close_frame(4401), read_to_end),
        "websocket.closed",
        ("code 4401, before",),
        shares_remedy_with="closed before the message",
    ),
    Fault(
        "other messages alone",
        waiting_for_pong(build_frame(TEXT, b"hello"), read_to_end),
        "timeout.message",
        ("waiting for the expected message",),
        timeout="1s",
    ),
    Fault(
        "no pong", raw(open_websocket_and_play(build_frame(TEXT, b"hello"), read_to_end)), "timeout.ping",
        ("response to a ping",), timeout="1s",
    ),
    Fault("no handshake", raw(send_parts(delay_s=60)), "timeout.upgrade", ("opening the WebSocket",), timeout="1s"),
    Fault(
        "half a handshake", raw(send_parts(UPGRADE_HEAD, delay_s=60)), "timeout.upgrade", ("opening the WebSocket",),
        timeout="1s", shares_remedy_with="no handshake",
    ),
    Fault(
        "endless headers of a handshake", refusing(UPGRADE_HEAD + b"A: b\r\n" * 20_000), "protocol.headers_too_large",
        ("headers",), shares_remedy_with="endless headers",
    ),
    Fault(
        "a message over the limit", waiting_for_pong(build_frame(TEXT, b"x" * 2_000), read_to_end, max_message="1KiB"),
        "websocket.message_too_large", ("1 KiB (max_message)",), Outcome.ERROR,
    ),
    Fault(
        "a message over the limit, in parts",
        waiting_for_pong(
            build_frame(TEXT, b"x" * 1_000, fin=False), build_frame(0, b"x" * 1_000), read_to_end, max_message="1KiB"
        ),
        "websocket.message_too_large",
        ("1 KiB (max_message)",),
        Outcome.ERROR,
        shares_remedy_with="a message over the limit",
    ),
    Fault(
        "too many messages", waiting_for_pong(flood(build_frame(TEXT, b"hello"), 2_000), read_to_end),
        "websocket.too_many_messages", ("first 1,000 messages", "contains 'pong'"), Outcome.ERROR,
    ),
    Fault(
        "too many frames", waiting_for_pong(flood(build_frame(PING), 20_000), read_to_end),
        "websocket.too_many_messages", ("first 10,000 frames",), Outcome.ERROR, shares_remedy_with="too many messages",
    ),
    Fault(
        "a binary message", waiting_for_pong(build_frame(BINARY, b"\0\1\2"), read_to_end), "websocket.binary_message",
        ("binary message of 3 bytes", "contains 'pong'"),
    ),
    Fault(
        "a masked frame", waiting_for_pong(b"\x81\x85\0\0\0\0hello", read_to_end), "websocket.protocol_error",
        ("incorrect masking",),
    ),
    Fault(
        "text that is not UTF-8", waiting_for_pong(build_frame(TEXT, b"a\xff"), read_to_end),
        "websocket.protocol_error", ("not UTF-8 (byte 1)",), shares_remedy_with="a masked frame",
    ),
    Fault(
        "WebSocket: closed after the request", refusing(b""), "connection.closed", ("closed by the server", "opening"),
        shares_remedy_with="closed after the handshake",
    ),
    Fault(
        "closed without a closing handshake", waiting_for_pong(), "connection.closed",
        ("closed by the server", "the expected message"), shares_remedy_with="closed after the handshake",
    ),
    Fault(
        "WebSocket: reset", raw(reset_after_handshake()), "connection.reset", ("reset by the server", "ping"),
        shares_remedy_with="reset after the handshake",
    ),
    Fault(
        "WebSocket: nothing listens", no_listener, "connection.refused", ("refused",),
        shares_remedy_with="nothing listens",
    ),
    Fault(
        "WebSocket: plaintext instead of TLS", raw(send_parts(http_response(), delay_s=9), "wss"), "tls.not_tls",
        ("does not speak TLS",),
        shares_remedy_with="plain HTTP on the port",
    ),
    Fault(
        "WebSocket: TLS instead of plaintext", over_tls(lambda root: issue("peer", root, names=["127.0.0.1"]), "ws"),
        "protocol.tls_required", ("use wss://",), shares_remedy_with="TLS on the port of http://",
    ),
    Fault(
        "WebSocket: an unknown authority",
        over_tls(lambda root: issue("peer", issue("Evil Root", is_authority=True), names=["127.0.0.1"])),
        "tls.untrusted", ("Evil Root",), shares_remedy_with="an unknown authority",
    ),
    Fault(
        "WebSocket: expired", over_tls(lambda root: issue("peer", root, names=["127.0.0.1"], days=(-90, -3.5))),
        "tls.expired", ("expired on",), shares_remedy_with="expired",
    ),
]  # fmt: skip


async def run_fault(fault: Fault, folder: Path) -> ResultToRecord:
    async with fault.setup(folder) as fields:
        probe = WebSocketProbe.model_validate({"name": "Feed", "websocket": fields, "timeout": fault.timeout})
        return await run_probe(probe)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_its_reason_and_its_facts(fault: Fault, run: Run, tmp_path: Path) -> None:
    result = run(run_fault(fault, tmp_path)).result
    assert (result.outcome, result.reason) == (fault.outcome, fault.reason), result.message
    assert [fact for fact in fault.facts if fact not in result.message] == [], result.message
    assert "of-query" not in result.message
