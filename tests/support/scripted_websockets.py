"""WebSocket servers whose frames a test scripts."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable

from tests.support.scripted_servers import ConnectionHandler

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
Step = bytes | Callable[[asyncio.StreamReader], Awaitable[object]]


def build_frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """As servers send it: not masked."""
    first = bytes([opcode | (0x80 if fin else 0)])
    if len(payload) < 126:
        return first + bytes([len(payload)]) + payload
    if len(payload) < 1 << 16:
        return first + b"\x7e" + len(payload).to_bytes(2) + payload
    return first + b"\x7f" + len(payload).to_bytes(8) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    return build_frame(CLOSE, code.to_bytes(2) + reason.encode())


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The opcode and the payload of a client's frame."""
    first, length = await reader.readexactly(2)
    length &= 0x7F
    if length >= 126:
        length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8))
    mask, masked = await reader.readexactly(4), await reader.readexactly(length)
    return first & 0x0F, bytes(byte ^ mask[i % 4] for i, byte in enumerate(masked))


async def read_to_end(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass


def accept_handshake(request_head: bytes, headers: bytes = b"") -> bytes:
    """The response that opens the WebSocket. `headers`: more lines."""
    [line] = [line for line in request_head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:")]
    digest = hashlib.sha1(line.partition(b":")[2].strip() + _MAGIC, usedforsecurity=False).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %s\r\n%s\r\n" % (base64.b64encode(digest), headers)
    )


def open_websocket_and_play(*steps: Step, headers: bytes = b"", answers_pings: bool = False) -> ConnectionHandler:
    """Completes the handshake, then sends bytes, and waits for what is to be read, in this order. Then it closes the
    connection. `answers_pings`: before the first step."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(accept_handshake(await reader.readuntil(b"\r\n\r\n"), headers))
        if answers_pings:
            opcode, payload = await read_frame(reader)
            assert opcode == PING
            writer.write(build_frame(PONG, payload))
        for step in steps:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            else:
                await step(reader)
        writer.close()
        await writer.wait_closed()

    return handle
