"""What precedes or surrounds MCP messages in response bodies, and hides them from the SDK."""

from __future__ import annotations

import json
import re

from watchdog.domain.model import Json
from watchdog.domain.text import truncate_with_ellipsis
from watchdog.net.errors import ProbeError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_HELD_EVENT_BYTES = 64 << 10
"""Size up to which an event is held until it is complete. A longer one is passed on as it is."""
_END_OF_EVENT = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_EVENT_NAME = re.compile(rb"^event:[ ]?(.*?)\r?$", re.MULTILINE)
EVENT_DATA_LINE = re.compile(rb"^data:[ ]?(.*?)\r?$", re.MULTILINE)
_NAMES_OF_MCP = (b"message", b"endpoint", b"")


class ByteOrderMarkRemover:
    """Removes a byte-order mark from the beginning of a body that arrives in parts."""

    def __init__(self) -> None:
        self._held: bytes | None = b""

    def feed(self, data: bytes) -> bytes:
        if self._held is None:
            return data
        held = self._held + data
        if len(held) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(held):
            self._held = held
            return b""
        self._held = None
        return held.removeprefix(BYTE_ORDER_MARK)

    def flush(self) -> bytes:
        held, self._held = self._held or b"", None
        return held


class EventNameNormalizer:
    """Makes JSON-RPC errors readable that come in events of another name than `message`, such as `event: error`.

    The SDK ignores such events, so it would wait for a reply that has arrived.
    """

    def __init__(self, *, expects_endpoint: bool) -> None:
        """`expects_endpoint`: the event that names the address of requests belongs to the SSE transport."""
        self._expects_endpoint = expects_endpoint
        self.has_error = False
        """Whether an event with a JSON-RPC error has passed."""
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """The events that are complete. Raises ProbeError for a result that MCP clients ignore."""
        self._held += data
        events = []
        while end := _END_OF_EVENT.search(self._held):
            events.append(self._normalize_event(self._held[: end.end()]))
            self._held = self._held[end.end() :]
        if len(self._held) > MAX_HELD_EVENT_BYTES:
            events.append(self.flush())
        return b"".join(events)

    def flush(self) -> bytes:
        """The rest, at the end of the stream."""
        held, self._held = self._held, b""
        return held

    def _normalize_event(self, event: bytes) -> bytes:
        message = _parse_message(event)
        if "error" in message:
            self.has_error = True
        name = _EVENT_NAME.search(event)
        if name is not None and name[1] == b"endpoint" and not self._expects_endpoint:
            raise ProbeError.from_reason(
                "mcp.wrong_transport", spoken="the SSE transport", option="sse", configured="url"
            )
        if not message or name is None or name[1] in _NAMES_OF_MCP:
            return event
        if "result" in message:
            event_name = truncate_with_ellipsis(name[1].decode(errors="replace"), 40)
            problem = f"the reply comes in an event named {event_name!r}, which MCP clients ignore; expected 'message'"
            raise ProbeError("mcp.invalid_response", problem)
        return event[: name.start()] + b"event: message" + event[name.end() :] if "error" in message else event


def _parse_message(event: bytes) -> dict[str, Json]:
    """The JSON-RPC message in an event; empty if it holds none that is about an error or has an unusual name."""
    if b'"error"' not in event and b"event:" not in event:
        return {}
    try:
        message = json.loads(b"\n".join(line[1] for line in EVENT_DATA_LINE.finditer(event)))
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) and "jsonrpc" in message else {}
