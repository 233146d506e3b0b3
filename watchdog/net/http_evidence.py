"""HTTP responses as values for expressions and as evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog.domain.model import Json
from watchdog.net.http_head import format_response_head_excerpt
from watchdog.net.redact import strip_url_to_scheme_host_and_path
from watchdog.net.text_encoding import JsonParseProblem, parse_json_with_problem

if TYPE_CHECKING:
    from watchdog.net.http import HttpResponse

MAX_RESPONSE_BODY_EXCERPT_CHARS = 5_000
"""More than is stored: cutting before masking could leave part of a secret."""
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
    return parse_response_body_with_problem(response)[0]


def parse_response_body_with_problem(response: HttpResponse) -> tuple[Json, JsonParseProblem | None]:
    """The body, as `parse_response_body`, and why it is text although it should be JSON."""
    text = response.text
    return parse_json_with_problem(text) if looks_like_json_response(response) else (text, None)


def looks_like_json_response(response: HttpResponse) -> bool:
    """Whether its content type or first character indicates JSON."""
    return "json" in response.headers.get("content-type", "") or response.text.lstrip()[:1] in ("{", "[")


def build_http_response_evidence_facts(response: HttpResponse) -> dict[str, Json]:
    facts: dict[str, Json] = {
        "status": response.status,
        "elapsed_ms": round(response.elapsed_ms),
        "address": response.peer_address,
    }
    if response.is_connection_reused:
        facts["connection_reused"] = True
    if response.proxy:
        facts["proxy"] = response.proxy
    if response.redirect_count:
        facts["redirected_to"] = strip_url_to_scheme_host_and_path(response.url)
    if response.body_problem:
        facts["body_incomplete"] = response.body_problem.message
    if response.cert_expiry:
        facts["certificate"] = response.cert_expiry
    return facts


def build_response_head_and_body_excerpt(response: HttpResponse) -> str:
    """The status line, the headers that help in diagnosis, and the beginning of the body if it is text."""
    head = format_response_head_excerpt(
        response.http_version, response.status, response.reason_phrase, response.headers
    )
    content_type = response.headers.get("content-type", "").partition(";")[0]
    body = response.text[:MAX_RESPONSE_BODY_EXCERPT_CHARS]
    if "\0" in body or content_type.startswith(_BINARY_CONTENT_TYPE_PREFIXES):
        body = f"({response.encoded_body_size_bytes} bytes of {content_type or 'binary data'})"
    return f"{head}\n\n{body}" if body else head
