"""HTTP responses as values for expressions and as evidence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from watchdog.domain.model import Json
from watchdog.net.redact import redact_url

if TYPE_CHECKING:
    from watchdog.net.http import HttpResponse

MAX_BODY_EXCERPT_CHARS = 5_000
"""More than is stored: cutting before masking could leave part of a secret."""
_EXCERPT_HEADERS = (
    *("content-type", "content-encoding", "location", "retry-after", "www-authenticate", "server", "via", "age"),
    *("x-cache", "x-request-id"),
)
"""Headers that help in diagnosis and hold no session."""
_BINARY_CONTENT_TYPE_PREFIXES = (
    "image/",
    "audio/",
    "video/",
    "font/",
    "application/octet-stream",
    "application/pdf",
    "application/zip",
)


def parse_response_body(response: HttpResponse) -> Json:
    """The body as JSON if its content type or first character indicates JSON and it parses, else as text."""
    text = response.text
    if "json" in response.headers.get("content-type", "") or text.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def response_facts(response: HttpResponse) -> dict[str, Json]:
    facts: dict[str, Json] = {
        "status": response.status,
        "elapsed_ms": round(response.elapsed_ms),
        "address": response.peer_address,
    }
    if response.redirect_count:
        facts["redirected_to"] = redact_url(response.url)
    if response.body_incomplete_reason:
        facts["body_incomplete"] = response.body_incomplete_reason
    return facts


def response_excerpt(response: HttpResponse) -> str:
    """The status line, the headers that help in diagnosis, and the beginning of the body if it is text."""
    headers = response.headers | {"location": redact_url(response.headers.get("location", ""))}
    lines = [f"HTTP/{response.http_version} {response.status} {response.reason_phrase}".rstrip()]
    lines += [f"{name}: {headers[name]}" for name in _EXCERPT_HEADERS if headers.get(name)]
    content_type = response.headers.get("content-type", "").partition(";")[0]
    if b"\0" in response.body or content_type.startswith(_BINARY_CONTENT_TYPE_PREFIXES):
        body = f"({response.encoded_body_bytes} bytes of {content_type or 'binary data'})"
    else:
        body = response.text[:MAX_BODY_EXCERPT_CHARS]
    return "\n".join([*lines, *(["", body] if body else [])])
