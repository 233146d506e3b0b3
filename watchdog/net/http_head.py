"""The head of an HTTP response: its headers, and its form as evidence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from watchdog.net.redact import MASK_PLACEHOLDER, SECRET_NAME_PATTERN, strip_url_to_scheme_host_and_path

_EXCERPT_RESPONSE_HEADERS = (
    *("content-type", "content-encoding", "location", "retry-after", "www-authenticate", "server", "via", "age"),
    *("x-cache", "x-request-id"),
)
"""Headers that help in diagnosis and hold no session."""


def format_response_head_excerpt(http_version: str, status: int, reason_phrase: str, headers: Mapping[str, str]) -> str:
    """The status line and the headers that help in diagnosis. The URL of a redirect is shown without its query."""
    status_line = f"HTTP/{http_version} {status} {reason_phrase}".rstrip()
    values = {name: value for name in _EXCERPT_RESPONSE_HEADERS if (value := headers.get(name))}
    if "location" in values:
        values["location"] = strip_url_to_scheme_host_and_path(values["location"])
    return "\n".join([status_line, *(f"{name}: {value}" for name, value in values.items())])


_HEADER_LINE_PATTERN = re.compile(r"^(?P<name>[!-9;-~]+):(?P<value>[^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)", re.MULTILINE)
"""With the lines that it is folded into."""


def mask_secret_headers(head: str) -> str:
    """The beginning of a head as it was received, without the values of headers that hold secrets, such as Set-Cookie.
    They belong to the target, so no mask knows them."""
    return _HEADER_LINE_PATTERN.sub(
        lambda line: f"{line['name']}: {MASK_PLACEHOLDER}" if SECRET_NAME_PATTERN.search(line["name"]) else line[0],
        head,
    )


def combine_response_headers(raw_headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Lower-case name -> value; repeated ones joined by ", "."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw_headers:
        name, value = raw_name.decode("ascii", "replace").lower(), raw_value.decode(errors="replace")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


_FOLDED_LINE_PATTERN = re.compile(rb"\r?\n[ \t]+")
_CONTENT_LENGTH_LINE_PATTERN = re.compile(rb"^content-length:([0-9, \t]*)\r?\n", re.IGNORECASE | re.MULTILINE)
"""Its time grows with the length of a line, not with its square: a server can send a line of 64 KiB."""


def normalize_response_head(head: bytes) -> bytes:
    """The head in a form that every parser accepts: folded lines are joined, and repeated identical Content-Length
    headers become one. Browsers accept both."""
    head = _FOLDED_LINE_PATTERN.sub(b" ", head)
    stated = [length.strip() for match in _CONTENT_LENGTH_LINE_PATTERN.findall(head) for length in match.split(b",")]
    if len(stated) < 2 or len(set(stated)) > 1:
        return head
    status_line, _, header_lines = head.partition(b"\n")
    header_lines = _CONTENT_LENGTH_LINE_PATTERN.sub(b"", header_lines)
    return b"%s\nContent-Length: %s\r\n%s" % (status_line, stated[0], header_lines)
