"""Sends a check-in over a plain socket: importing urllib would cost `watchdog exec` more CPU time than its other work.

Proxies, redirects and unusual URLs are left to `watchdog.checkin`.
"""

from __future__ import annotations

import os
import re
import socket
from typing import IO
from urllib.parse import urlencode

CHECK_IN_SEND_TIMEOUT_S = 5.0
MAX_CHECK_IN_RESPONSE_LINE_BYTES = 65_536
MAX_EXEC_CHECK_IN_REJECTION_BYTES = 200
RETRYABLE_CHECK_IN_4XX_STATUSES = (408, 425, 429)
_CHECK_IN_URL_PATTERN_FOR_POST_OVER_SOCKET = re.compile(
    r"(https?)://(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::([0-9]{1,5}))?(/[\w/.~%!$&'()*+,;=:@-]*)", re.ASCII
)
_PROXY_ENV_VARS = {"http_proxy", "https_proxy", "all_proxy"}


class CheckInPostError(Exception):
    """A check-in was not accepted. `retryable`: another attempt may succeed."""

    def __init__(self, message: str, *, retryable: bool = True):
        super().__init__(message)
        self.retryable = retryable


def post_check_in_or_raise(url: str, event: str, run_id: str, age_s: float, output: bytes) -> None:
    """Reports an event of a run that happened `age_s` seconds ago. Raises CheckInPostError."""
    plain = _CHECK_IN_URL_PATTERN_FOR_POST_OVER_SOCKET.fullmatch(f"{url.rstrip('/')}/{event}")
    if plain is None or any(value and name.lower() in _PROXY_ENV_VARS for name, value in os.environ.items()):
        return _post_check_in_with_urllib(url, event, run_id, age_s, output)
    query = urlencode({"rid": run_id, "ago": max(round(age_s * 1000), 0)})
    try:
        status, explanation = _post_check_in_over_socket(plain, query, output)
    except OSError as e:
        raise CheckInPostError(e.strerror.lower() if e.strerror else str(e)) from None
    except OverflowError as e:
        raise CheckInPostError(str(e), retryable=False) from None
    if 300 <= status < 400:
        return _post_check_in_with_urllib(url, event, run_id, age_s, output)
    if not 200 <= status < 300:
        retryable = not 400 <= status < 500 or status in RETRYABLE_CHECK_IN_4XX_STATUSES
        raise CheckInPostError(f"Watchdog answered HTTP {status}{explanation}", retryable=retryable)
    return None


def _post_check_in_over_socket(url: re.Match[str], query: str, body: bytes) -> tuple[int, str]:
    """The status of the response, and what it states to be wrong, as ": ...". Raises OSError."""
    scheme, host, port, path = url.groups()
    head = (
        f"POST {path}?{query} HTTP/1.1\r\nHost: {host}{f':{port}' if port else ''}\r\nConnection: close\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    name = host.strip("[]")
    connection = socket.create_connection(
        (name, int(port or (443 if scheme == "https" else 80))), CHECK_IN_SEND_TIMEOUT_S
    )
    with connection:
        if scheme == "https":
            import ssl

            connection = ssl.create_default_context().wrap_socket(connection, server_hostname=name)
        with connection, connection.makefile("rb") as response:
            connection.sendall(head.encode() + body)
            status = _read_http_response_status(response)
            while status == 100:  # a server may announce that it reads on
                _read_and_discard_response_head(response)
                status = _read_http_response_status(response)
            return status, _read_exec_check_in_rejection_text(response) if 400 <= status < 500 else ""


def _read_and_discard_response_head(response: IO[bytes]) -> None:
    while response.readline(MAX_CHECK_IN_RESPONSE_LINE_BYTES).strip():
        pass


def _read_exec_check_in_rejection_text(response: IO[bytes]) -> str:
    """The body as ": ...", if it is a short line of text."""
    try:
        _read_and_discard_response_head(response)
        line = response.read(MAX_EXEC_CHECK_IN_REJECTION_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return f": {line}" if line and line.isprintable() else ""


def _read_http_response_status(response: IO[bytes]) -> int:
    line = response.readline(MAX_CHECK_IN_RESPONSE_LINE_BYTES)
    if not line:
        raise ConnectionError("connection closed without a response")
    match = re.match(rb"HTTP/\S+ +([1-5][0-9][0-9])\b", line)
    if match is None:
        raise ConnectionError("not an HTTP response")
    return int(match[1])


def _post_check_in_with_urllib(url: str, event: str, run_id: str, age_s: float, output: bytes) -> None:
    from watchdog.checkin import CheckInDeliveryError, send_check_in_once

    try:
        send_check_in_once(url, event, run_id, age_s, output)
    except CheckInDeliveryError as error:
        raise CheckInPostError(str(error), retryable=error.retryable) from None
