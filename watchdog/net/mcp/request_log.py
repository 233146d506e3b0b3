"""The HTTP requests of a session, as evidence: what was requested, with which status, and how long it took."""

from __future__ import annotations

import json
from time import perf_counter
from typing import Any

from watchdog.domain.measurements import MCP_HTTP_REQUESTS_FACT
from watchdog.domain.model import Json

MAX_LOGGED_MCP_HTTP_REQUESTS = 20
MAX_LOGGED_RPC_METHOD_CHARS = 60


class LoggedMcpHttpRequest:
    """One entry of the log, which changes as the response arrives."""

    def __init__(self, entries: list[Json], label: str) -> None:
        self._entries, self._label, self._started = entries, label, perf_counter()
        self._status: int | None = None
        self._index = len(entries)
        self._entries.append(f"{label}: no response yet")

    def note_response(self, status: int) -> None:
        self._status = status
        self.note_end()

    def note_end(self) -> None:
        """Of the response, or of the request if there was none."""
        elapsed_ms = round((perf_counter() - self._started) * 1000)
        status = "no response" if self._status is None else f"HTTP {self._status}"
        self._entries[self._index] = f"{self._label}: {status}, {elapsed_ms} ms"


class McpHttpRequestLog:
    """Writes the first MAX_LOGGED_MCP_HTTP_REQUESTS requests of a session to its facts, in their order."""

    def __init__(self, facts: dict[str, Json]) -> None:
        self._entries: list[Json] = facts.setdefault(MCP_HTTP_REQUESTS_FACT, [])

    def begin(self, http_method: str, body: bytes) -> LoggedMcpHttpRequest:
        """`body`: of a POST, a JSON-RPC message; else empty."""
        label = f"{http_method} {_read_rpc_method(body)}".strip()
        is_full = len(self._entries) >= MAX_LOGGED_MCP_HTTP_REQUESTS
        return LoggedMcpHttpRequest([] if is_full else self._entries, label)


def _read_rpc_method(body: bytes) -> str:
    """Of a message of our own; a reply has none."""
    message: Any = json.loads(body) if body else {}
    method = message.get("method", "") if isinstance(message, dict) else ""
    return str(method)[:MAX_LOGGED_RPC_METHOD_CHARS]
