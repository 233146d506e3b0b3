"""HTTP responses of MCP servers, and the errors that they stand for."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass

import httpx2
from mcp.types import METHOD_NOT_FOUND

from watchdog.net.errors import ProbeError
from watchdog.net.mcp.auth_challenge import AuthChallenge, parse_auth_challenge
from watchdog.net.mcp.event_stream import SSE_DATA_LINE_PATTERN, SseEventSplitter
from watchdog.net.mcp.reply_errors import MAX_MCP_ERROR_EXCERPT_CHARS
from watchdog.net.redact import strip_url_to_scheme_host_and_path


@dataclass(slots=True)
class McpHttpResponse:
    """The parts of an HTTP response that the SDK does not expose."""

    status: int
    headers: httpx2.Headers
    request: httpx2.Request
    has_replies: bool = True
    """Whether clients read its body. Over SSE, they read the replies from the event stream alone."""
    body_start: bytes = b""
    events: SseEventSplitter | None = None
    """The events of the body, if it is a stream of events."""

    @property
    def content_type(self) -> str:
        return str(self.headers.get("content-type", "")).partition(";")[0].strip().lower()

    @property
    def is_jsonrpc_error(self) -> bool:
        if self.events is not None:
            return self.events.has_error
        try:
            body = json.loads(self.body_start)
        except (ValueError, RecursionError):
            return False
        return isinstance(body, dict) and isinstance(body.get("error"), dict) and "code" in body["error"]

    @property
    def reports_lost_session(self) -> bool:
        """Whether the server no longer knows the session that it opened: HTTP 404, of some servers 400."""
        if "mcp-session-id" not in self.request.headers or self.status not in (400, 404):
            return False
        is_about_method = str(METHOD_NOT_FOUND).encode() in self.body_start
        return b"session" in self.body_start.lower() or (self.status == 404 and not is_about_method)

    @property
    def session_id_error(self) -> ProbeError | None:
        """Why its session id cannot be sent back."""
        if str(self.headers.get("mcp-session-id", "")).isascii():
            return None
        return ProbeError("mcp.invalid_response", "the session id contains non-ASCII characters")

    def find_mcp_response_error(self) -> ProbeError | None:
        """The error that the response itself stands for. None: it is a valid response of an MCP server."""
        error = self._find_status_error() or self._find_content_type_error()
        return error and self.attach_evidence(error)

    def build_missing_sse_reply_error(self, method: str) -> ProbeError | None:
        """Over SSE: what a response shows if the reply to its request never came. None: nothing."""
        if b'"jsonrpc"' in self.body_start:
            place = "is in the response to the POST and not in the event stream, so MCP clients ignore it"
            return self.attach_evidence(ProbeError("mcp.invalid_response", f"the reply to {method} {place}"))
        if self.content_type == "text/html":
            return self.attach_evidence(ProbeError("mcp.not_mcp", "expected an MCP response, got text/html"))
        return None

    def attach_evidence(self, error: ProbeError) -> ProbeError:
        """The same error, with facts and excerpt from the response."""
        headers = {name: self.headers.get(name) for name in ("www-authenticate", "retry-after", "server")}
        error.facts |= {"status": self.status, "content_type": self.content_type}
        error.facts |= {name.replace("-", "_"): value for name, value in headers.items() if value}
        error.facts |= challenge.to_facts() if (challenge := self.auth_challenge) else {}
        error.excerpt = self.body_start[:MAX_MCP_ERROR_EXCERPT_CHARS].decode(errors="replace")
        return error

    def _find_status_error(self) -> ProbeError | None:
        if self.status == 401:
            problem = "rejects the" if "authorization" in self.request.headers else "requires"
            return ProbeError("http.401", f"HTTP 401: the server {problem} credentials{self._describe_challenge()}")
        if self.status == 403:
            return ProbeError("http.403", f"HTTP 403: access is forbidden{self._describe_challenge()}")
        if self.status == 429:
            return ProbeError("http.429", "HTTP 429: the server limits the request rate")
        if self.status >= 500:
            text = f"HTTP {self.status}, expected an MCP response"
            return ProbeError(f"http.{self.status}", text, retryable=True)
        if self.reports_lost_session:
            return ProbeError.from_reason("mcp.session_lost", retryable=True, status=str(self.status))
        if self.status >= 400 and not self.is_jsonrpc_error:
            return ProbeError(f"http.{self.status}", f"HTTP {self.status}, expected an MCP response")
        if 300 <= self.status < 400:
            location = self.headers.get("location", "")
            with suppress(httpx2.InvalidURL):
                location = str(self.request.url.join(location))
            text = f"HTTP {self.status}: redirect to {strip_url_to_scheme_host_and_path(location)} is not followed"
            return ProbeError(f"http.{self.status}", text)
        return None

    @property
    def auth_challenge(self) -> AuthChallenge | None:
        """What the server demands; None: it does not state that."""
        return parse_auth_challenge(str(self.headers.get("www-authenticate", "")))

    def _describe_challenge(self) -> str:
        """ " (Bearer, described at https://…)"; empty: the server does not state what it demands."""
        return f" ({challenge.describe()})" if (challenge := self.auth_challenge) else ""

    def _find_content_type_error(self) -> ProbeError | None:
        if not self.has_replies:
            return None
        is_json_reply = self.request.method != "GET" and (self.status == 202 or self.content_type == "application/json")
        if is_json_reply or self.content_type == "text/event-stream":
            return None
        actual = self.content_type or ("one without Content-Type" if self.body_start else "an empty one")
        return ProbeError("mcp.not_mcp", f"expected an MCP response, got {actual}")


def has_jsonrpc_message(content: bytes) -> bool:
    """Whether a body is a JSON-RPC message, or a stream of events with one."""
    return any(_is_jsonrpc_message(text) for text in (content, *SSE_DATA_LINE_PATTERN.findall(content)))


def _is_jsonrpc_message(text: bytes) -> bool:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(message, dict) and "jsonrpc" in message
