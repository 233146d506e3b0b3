"""HTTP/2 servers whose frames a test scripts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from tests.support.scripted_servers import ConnectionHandler

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
CALL_STREAM = 1
"""The stream of the first request."""
Step = bytes | Callable[[asyncio.StreamReader], Awaitable[object]]


def build_frame(frame_type: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3) + bytes([frame_type, flags]) + stream.to_bytes(4) + payload


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Without compression."""
    encoded = b""
    for name, value in headers.items():
        raw_name, raw_value = name.encode(), value.encode()
        encoded += b"\0" + bytes([len(raw_name)]) + raw_name + bytes([len(raw_value)]) + raw_value
    return encoded


SERVER_PREFACE = build_frame(SETTINGS)
SETTINGS_ACK = build_frame(SETTINGS, flags=ACK)
GRPC_HEADERS = {":status": "200", "content-type": "application/grpc"}
PAGE_HEADERS = {":status": "200", "content-type": "text/html"}


def headers_frame(headers: Mapping[str, str], *, end: bool = False, stream: int = CALL_STREAM) -> bytes:
    return build_frame(HEADERS, encode_headers(headers), END_HEADERS | (END_STREAM if end else 0), stream)


def data_frame(data: bytes, *, end: bool = False) -> bytes:
    return build_frame(DATA, data, END_STREAM if end else 0, CALL_STREAM)


def grpc_status(code: int, message: str = "") -> bytes:
    """A response that consists of a status."""
    status = {"grpc-status": str(code)} | ({"grpc-message": message} if message else {})
    return headers_frame({**GRPC_HEADERS, **status}, end=True)


def grpc_message(message: bytes) -> bytes:
    """A response with one message and the status OK."""
    prefixed = b"\0" + len(message).to_bytes(4) + message
    return headers_frame(GRPC_HEADERS) + data_frame(prefixed) + headers_frame({"grpc-status": "0"}, end=True)


async def read_request(reader: asyncio.StreamReader) -> None:
    """Reads until the message of the call has arrived."""
    await reader.readexactly(len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
    while True:
        header = await reader.readexactly(9)
        await reader.readexactly(int.from_bytes(header[:3]))
        if header[3] == DATA and header[4] & END_STREAM:
            return


async def read_to_end(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass


def play(*steps: Step) -> ConnectionHandler:
    """Sends bytes, and waits for what is to be read, in this order. Then it closes the connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for step in steps:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            else:
                await step(reader)
        writer.close()
        await writer.wait_closed()

    return handle


def answer_call(*response: bytes) -> ConnectionHandler:
    """Responds to a call with these frames, and waits until the client has ended the connection."""
    return play(SERVER_PREFACE, read_request, SETTINGS_ACK, *response, read_to_end)
