"""What precedes or surrounds MCP messages in response bodies, and hides them from the SDK."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from watchdog.domain.model import Json
from watchdog.domain.text import truncate_with_ellipsis
from watchdog.net.errors import ProbeError
from watchdog.net.mcp.message_text import normalize_jsonrpc_message
from watchdog.net.redact import strip_url_to_scheme_host_and_path
from watchdog.net.url import parse_http_url

UTF8_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SSE_EVENT_END_PATTERN = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_MAX_SSE_EVENT_END_BYTES = 4
_SSE_EVENT_NAME_PATTERN = re.compile(rb"^event:[ ]?(.*?)\r?$", re.MULTILINE)
SSE_DATA_LINE_PATTERN = re.compile(rb"^data:[ ]?(.*?)\r?$", re.MULTILINE)
_MCP_SSE_EVENT_NAMES = (b"message", b"endpoint", b"")


class ByteOrderMarkRemover:
    """Removes a byte-order mark from the beginning of a body that arrives in parts."""

    def __init__(self) -> None:
        self._held: bytes | None = b""

    def feed(self, data: bytes) -> bytes:
        if self._held is None:
            return data
        held = self._held + data
        if len(held) < len(UTF8_BYTE_ORDER_MARK) and UTF8_BYTE_ORDER_MARK.startswith(held):
            self._held = held
            return b""
        self._held = None
        return held.removeprefix(UTF8_BYTE_ORDER_MARK)

    def flush(self) -> bytes:
        held, self._held = self._held or b"", None
        return held


class SseEventSplitter:
    """Splits a stream that arrives in parts into server-sent events."""

    def __init__(self) -> None:
        self.has_error = False
        """Whether an event with a JSON-RPC error has passed."""
        self._held = bytearray()
        self._searched_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The events that are complete."""
        self._held += data
        events, start = [], 0
        while end := _SSE_EVENT_END_PATTERN.search(
            self._held, max(start, self._searched_bytes - _MAX_SSE_EVENT_END_BYTES)
        ):
            events.append(bytes(self._held[start : end.end()]))
            start = end.end()
            self._searched_bytes = start + _MAX_SSE_EVENT_END_BYTES
        del self._held[:start]
        self._searched_bytes = len(self._held)
        return events

    def flush(self) -> bytes:
        """The rest, at the end of the stream."""
        held = bytes(self._held)
        self._held.clear()
        return held


class NormalizedSseEvent(NamedTuple):
    event: bytes
    has_error: bool
    """Whether it holds a JSON-RPC error."""


def raise_if_sse_endpoint_has_other_origin(event: bytes, url: str) -> None:
    """Raises ProbeError if the event names an address of requests that MCP clients refuse. `url`: of the stream."""
    name = _SSE_EVENT_NAME_PATTERN.search(event)
    if name is None or name[1] != b"endpoint":
        return
    address, stream = extract_sse_event_data(event).decode(errors="replace"), parse_http_url(url)
    shown_address = truncate_with_ellipsis(strip_url_to_scheme_host_and_path(address), 80)
    try:
        is_same_origin = stream.join(address).origin == stream.origin
    except ValueError:
        raise ProbeError(
            "mcp.invalid_response", f"the endpoint of the event stream is not a URL: {shown_address}"
        ) from None
    if not is_same_origin:
        problem = f"the endpoint of the event stream has another origin, which MCP clients refuse: {shown_address}"
        raise ProbeError("mcp.invalid_response", problem)


def extract_sse_event_data(event: bytes) -> bytes:
    return b"\n".join(line[1] for line in SSE_DATA_LINE_PATTERN.finditer(event))


def replace_sse_event_data(event: bytes, data: bytes) -> bytes:
    """The event with other data, without fields that are long."""
    fields = [line for line in event.splitlines() if line.startswith((b"event:", b"id:")) and len(line) < 1_000]
    return b"\n".join([*fields, *(b"data: " + line for line in data.splitlines())]) + b"\n\n"


def normalize_mcp_sse_event(
    event: bytes, awaited_method_by_request_id: Mapping[str, str], *, expects_endpoint: bool
) -> NormalizedSseEvent:
    """Makes a JSON-RPC error readable that comes in an event of another name than `message`, such as `event: error`.

    The SDK ignores such events, so it would wait for a reply that has arrived. `expects_endpoint`: the event that names
    the address of requests belongs to the SSE transport. `awaited_method_by_request_id`: as for
    `normalize_jsonrpc_message`. Raises ProbeError for a result that MCP clients ignore, and as
    `normalize_jsonrpc_message` does.
    """
    data = extract_sse_event_data(event)
    if (normalized := normalize_jsonrpc_message(data, awaited_method_by_request_id)) != data:
        event = replace_sse_event_data(event, normalized)
    message = _parse_jsonrpc_of_error_or_named_sse_event(event)
    name = _SSE_EVENT_NAME_PATTERN.search(event)
    if name is not None and name[1] == b"endpoint" and not expects_endpoint:
        raise ProbeError.from_reason("mcp.wrong_transport", spoken="the SSE transport", option="sse", configured="url")
    if message and name is not None and name[1] not in _MCP_SSE_EVENT_NAMES:
        if "result" in message:
            event_name = truncate_with_ellipsis(name[1].decode(errors="replace"), 40)
            problem = f"the reply comes in an event named {event_name!r}, which MCP clients ignore; expected 'message'"
            raise ProbeError("mcp.invalid_response", problem)
        if "error" in message:
            event = event[: name.start()] + b"event: message" + event[name.end() :]
    return NormalizedSseEvent(event, "error" in message)


def _parse_jsonrpc_of_error_or_named_sse_event(event: bytes) -> dict[str, Json]:
    """The JSON-RPC message in an event; empty if it holds none that is about an error or has an unusual name."""
    if b'"error"' not in event and b"event:" not in event:
        return {}
    try:
        message = json.loads(extract_sse_event_data(event))
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) and "jsonrpc" in message else {}
