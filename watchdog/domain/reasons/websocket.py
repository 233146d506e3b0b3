"""Reasons about a WebSocket and its messages."""

from __future__ import annotations

from functools import partial

from watchdog.domain.reasons.entry import ReasonCategory, ReasonEntry

_failure_reason_entry = partial(ReasonEntry, ReasonCategory.FAILURE)
_error_reason_entry = partial(ReasonEntry, ReasonCategory.ERROR)

WEBSOCKET_REASON_ENTRIES = (
    _failure_reason_entry(
        "websocket.not_opened",
        "Not a WebSocket",
        "The server answers the WebSocket handshake as an ordinary request, with a status of 2xx.",
        "Check the path of the URL, and whether a proxy in front of the service passes on the headers `Upgrade` and "
        "`Connection`.",
        sentence="HTTP {status}, expected a WebSocket",
    ),
    _failure_reason_entry(
        "websocket.invalid_handshake",
        "Invalid WebSocket handshake",
        "The server switches protocols (HTTP 101), but its response violates the WebSocket protocol.",
        "Check the service and any proxy in front of it. A cache must not answer such requests.",
        sentence="the response to the WebSocket handshake is invalid: {problem}",
    ),
    _failure_reason_entry(
        "websocket.subprotocol_refused",
        "WebSocket subprotocol not selected",
        "The server opens the WebSocket without the configured `subprotocol`.",
        "Check the spelling of `subprotocol`, and which versions the server supports.",
        sentence="the server selects {selected}, expected the subprotocol {expected}",
    ),
    _failure_reason_entry(
        "websocket.closed",
        "WebSocket closed by the server",
        "The server closed the WebSocket, with the code in the message, before the expected message or the response to "
        "a ping arrived.",
        "See the log of the service. Some servers close with code 1008 or one from 4000 on if credentials are missing "
        "or have expired.",
        sentence="the server closed the WebSocket with code {close_code}{explanation}, before {awaited}",
    ),
    _failure_reason_entry(
        "websocket.binary_message",
        "Binary WebSocket message",
        "The server sent a binary message, although a text message is expected.",
        "Check whether the server, or the message that it was sent, has changed the format of its messages. To check "
        "the connection only, remove `contains`.",
        sentence="the server sent a binary message of {size} bytes, expected text that contains '{text}'",
    ),
    _failure_reason_entry(
        "websocket.protocol_error",
        "WebSocket protocol violated",
        "The server sent a frame that violates the WebSocket protocol, or text that is not UTF-8.",
        "Check the service and any proxy in front of it.",
        sentence="the server violates the WebSocket protocol: {problem}",
    ),
    _error_reason_entry(
        "websocket.message_too_large",
        "WebSocket message larger than Watchdog reads",
        "The server sent a message that is larger than `max_message`.",
        "Raise `max_message`, or have the server send smaller messages.",
        sentence="the server sent a message larger than {limit} (max_message)",
    ),
    _error_reason_entry(
        "websocket.too_many_messages",
        "More WebSocket messages than Watchdog reads",
        "The server sent more than Watchdog reads in one run: 1,000 messages, 10,000 frames or 64 MiB. The expected "
        "message, or the response to a ping, is not among them.",
        "Check `contains`, or have the server send fewer messages, for example by another `send`.",
        sentence="{awaited} is not among the first {limit}",
    ),
)
