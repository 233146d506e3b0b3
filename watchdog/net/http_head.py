"""The head of an HTTP response as evidence."""

from __future__ import annotations

from collections.abc import Mapping

from watchdog.net.redact import strip_url_to_scheme_host_and_path

_EXCERPT_RESPONSE_HEADERS = (
    *("content-type", "content-encoding", "location", "retry-after", "www-authenticate", "server", "via", "age"),
    *("x-cache", "x-request-id"),
)
"""Headers that help in diagnosis and hold no session."""


def format_response_head_excerpt(http_version: str, status: int, reason_phrase: str, headers: Mapping[str, str]) -> str:
    """The status line and the headers that help in diagnosis. The URL of a redirect is shown without its query."""
    values = {**headers, "location": strip_url_to_scheme_host_and_path(headers.get("location", ""))}
    status_line = f"HTTP/{http_version} {status} {reason_phrase}".rstrip()
    return "\n".join(
        [status_line, *(f"{name}: {values[name]}" for name in _EXCERPT_RESPONSE_HEADERS if values.get(name))]
    )
