"""Requests TLS on a connection that begins without it (STARTTLS), in the protocol of the server."""

from __future__ import annotations

import re
import struct
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from typing import NamedTuple

from watchdog.domain.text import quote_json_value
from watchdog.net.errors import ProbeError
from watchdog.net.text_connection import MAX_RECEIVED_TEXT_BYTES, TextConnectionProtocol

MAX_QUOTED_RESPONSE_CHARS = 150
_SMTP_RESPONSE_LINE_PATTERN = re.compile(r"(?P<code>[2-5][0-9]{2})(?P<separator>[ -]|$)(?P<text>.*)", re.DOTALL)
_POSTGRES_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""The message SSLRequest: its length and its code."""
_IMAP_TAG = "w1"


class _ResponseLines:
    """Reads the lines that a server sends. Raises ProbeError if the connection is closed, or if a line is too long."""

    def __init__(self, connection: TextConnectionProtocol, protocol_name: str) -> None:
        self._connection, self._protocol_name, self._position = connection, protocol_name, 0

    async def read_bytes(self, length: int) -> bytes:
        while len(self._connection.received) < self._position + length:
            await self._wait_for_more()
        return self._take(self._position + length)

    async def read_line(self) -> str:
        """Without its end."""
        search_start = self._position
        while (end := self._connection.received.find(b"\n", search_start)) < 0:
            search_start = len(self._connection.received)
            await self._wait_for_more()
        return self._take(end + 1).decode(errors="backslashreplace").rstrip("\r\n")

    def _take(self, end: int) -> bytes:
        taken = bytes(self._connection.received[self._position : end])
        self._position = end
        return taken

    async def _wait_for_more(self) -> None:
        if await self._connection.wait_for_more():
            return
        if self._connection.is_full:
            problem = f": it sent more than {MAX_RECEIVED_TEXT_BYTES >> 10} KiB before TLS"
            raise build_wrong_protocol_error(self._protocol_name, problem)
        if self._position < len(self._connection.received):
            problem = ": it closed the connection in the middle of a response"
            raise build_wrong_protocol_error(self._protocol_name, problem)
        raise ProbeError("connection.closed", "connection closed by the server", retryable=True)


def build_wrong_protocol_error(protocol_name: str, problem: str) -> ProbeError:
    return ProbeError.from_reason("starttls.wrong_protocol", "starttls", protocol=protocol_name, problem=problem)


def _quote_response(text: str) -> str:
    return quote_json_value(text, MAX_QUOTED_RESPONSE_CHARS)


class _SmtpResponse(NamedTuple):
    code: int
    texts: tuple[str, ...]
    """Of each line, without the code."""

    @property
    def is_positive(self) -> bool:
        return self.code < 400

    @property
    def quoted(self) -> str:
        return _quote_response(f"{self.code} {self.texts[-1]}".rstrip())


async def _read_smtp_response(lines: _ResponseLines) -> _SmtpResponse:
    texts = list[str]()
    while True:
        line = await lines.read_line()
        match = _SMTP_RESPONSE_LINE_PATTERN.fullmatch(line)
        if match is None:
            raise build_wrong_protocol_error("SMTP", f": it sent {_quote_response(line)}")
        texts.append(match["text"])
        if match["separator"] != "-":
            return _SmtpResponse(int(match["code"]), tuple(texts))


async def _request_tls_of_smtp_server(connection: TextConnectionProtocol) -> None:
    lines = _ResponseLines(connection, "SMTP")
    greeting = await _read_smtp_response(lines)
    if not greeting.is_positive:
        raise ProbeError.from_reason("starttls.session_refused", "starttls", response=greeting.quoted)
    connection.send(f"EHLO {_format_smtp_client_name(connection.own_ip_address)}\r\n".encode())
    extensions = await _read_smtp_response(lines)
    if not extensions.is_positive:
        raise ProbeError.from_reason("starttls.session_refused", "starttls", response=extensions.quoted)
    if "STARTTLS" not in {text.strip().upper() for text in extensions.texts[1:]}:
        raise ProbeError.from_reason("starttls.not_offered", "starttls", problem="")
    connection.send(b"STARTTLS\r\n")
    response = await _read_smtp_response(lines)
    if not response.is_positive:
        raise ProbeError.from_reason("starttls.refused", "starttls", response=response.quoted)


def _format_smtp_client_name(own_ip_address: str) -> str:
    """An address literal (RFC 5321, 4.1.3), which servers accept from a client without a public name."""
    try:
        version = ip_address(own_ip_address).version
    except ValueError:
        return "[127.0.0.1]"
    return f"[IPv6:{own_ip_address}]" if version == 6 else f"[{own_ip_address}]"


async def _request_tls_of_imap_server(connection: TextConnectionProtocol) -> None:
    lines = _ResponseLines(connection, "IMAP")
    greeting = await lines.read_line()
    word = greeting.upper().removeprefix("* ").partition(" ")[0]
    if not greeting.startswith("* ") or word not in ("OK", "PREAUTH", "BYE"):
        raise build_wrong_protocol_error("IMAP", f": it sent {_quote_response(greeting)}")
    if word != "OK":  # PREAUTH: the session is already authenticated, so STARTTLS is no longer possible
        raise ProbeError.from_reason("starttls.session_refused", "starttls", response=_quote_response(greeting))
    connection.send(f"{_IMAP_TAG} STARTTLS\r\n".encode())
    while (line := await lines.read_line()).startswith(("* ", "+ ")):
        if line.upper().startswith("* BYE"):
            raise ProbeError.from_reason("starttls.refused", "starttls", response=_quote_response(line))
    tag, _, response = line.partition(" ")
    status = response.upper().partition(" ")[0]
    if tag != _IMAP_TAG or status not in ("OK", "NO", "BAD"):
        raise build_wrong_protocol_error("IMAP", f": it sent {_quote_response(line)}")
    if status == "BAD":
        raise ProbeError.from_reason("starttls.not_offered", "starttls", problem=f": {_quote_response(response)}")
    if status == "NO":
        raise ProbeError.from_reason("starttls.refused", "starttls", response=_quote_response(response))


async def _request_tls_of_postgres_server(connection: TextConnectionProtocol) -> None:
    lines = _ResponseLines(connection, "PostgreSQL")
    connection.send(_POSTGRES_SSL_REQUEST)
    answer = await lines.read_bytes(1)
    if answer == b"S":
        return
    if answer == b"N":
        raise ProbeError.from_reason("starttls.not_offered", "starttls", problem="")
    length = int.from_bytes(await lines.read_bytes(4)) if answer == b"E" else 0
    if not 5 <= length <= MAX_RECEIVED_TEXT_BYTES:
        raise build_wrong_protocol_error("PostgreSQL", "")
    fields = (await lines.read_bytes(length - 4)).decode(errors="backslashreplace").split("\0")
    message = next((field[1:] for field in fields if field.startswith("M")), "an error")
    raise ProbeError.from_reason("starttls.session_refused", "starttls", response=_quote_response(message))


TLS_REQUESTER_BY_STARTTLS_PROTOCOL: Mapping[str, Callable[[TextConnectionProtocol], Awaitable[None]]] = {
    "smtp": _request_tls_of_smtp_server,
    "imap": _request_tls_of_imap_server,
    "postgres": _request_tls_of_postgres_server,
}
"""Each returns once the server has accepted STARTTLS, and raises ProbeError and OSError."""
