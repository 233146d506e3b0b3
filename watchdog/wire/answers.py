"""What an HTTP answer says: read for expressions, told as evidence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from watchdog.model import Json
from watchdog.wire.redact import shown_url

if TYPE_CHECKING:
    from watchdog.wire.http import Exchange

SHOWN = 5_000
"""Characters of an answer offered as evidence: more than is kept, so that no secret is cut before it is masked."""
_TELLING = (
    *("content-type", "content-encoding", "location", "retry-after", "www-authenticate", "server", "via", "age"),
    *("x-cache", "x-request-id"),
)
"""Headers of an answer that help to understand it and carry no session."""
_BINARY = ("image/", "audio/", "video/", "font/", "application/octet-stream", "application/pdf", "application/zip")


def body_of(answer: Exchange) -> Json:
    """The body as JSON when it says or looks like it, else as text."""
    text = answer.text
    if "json" in answer.headers.get("content-type", "") or text.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def facts(answer: Exchange) -> dict[str, Json]:
    facts: dict[str, Json] = {"status": answer.status, "elapsed_ms": round(answer.elapsed), "address": answer.address}
    if answer.redirects:
        facts["redirected_to"] = shown_url(answer.url)
    if answer.unread:
        facts["body"] = answer.unread
    return facts


def excerpt(answer: Exchange) -> str:
    """The status line, the telling headers and the beginning of the body, if that is text."""
    headers = answer.headers | {"location": shown_url(answer.headers.get("location", ""))}
    lines = [f"HTTP/{answer.http_version} {answer.status} {answer.phrase}".rstrip()]
    lines += [f"{name}: {headers[name]}" for name in _TELLING if headers.get(name)]
    content = answer.headers.get("content-type", "").partition(";")[0]
    if b"\0" in answer.body or content.startswith(_BINARY):
        body = f"({answer.size} bytes of {content or 'something that is no text'})"
    else:
        body = answer.text[:SHOWN]
    return "\n".join([*lines, *(["", body] if body else [])])
