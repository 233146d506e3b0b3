"""Errors that keep a target from giving a usable response, each with a stable reason and a sentence for people."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Awaitable, Iterator
from typing import Any, Self

from watchdog.domain.formatting import format_duration
from watchdog.domain.model import Json
from watchdog.domain.own_network import WATCHDOG_NETWORK_FAULT_REASON
from watchdog.domain.reasons import (
    ReasonCategory,
    build_reason_and_message,
    get_reason_entry,
    get_reason_family,
)
from watchdog.net.phases import PHASE_DESCRIPTIONS, PhaseTimer, get_timeout_reason_of_phase


class ProbeError(Exception):
    """The target gave no usable response.

    `reason`: a stable word, `family.cause`; the catalogue explains it.
    `message`: one short sentence without secrets.
    `phase`: where it happened, if that is known.
    `retryable`: a transport error; another attempt within the same run may succeed.
    `is_internal`: Watchdog, its machine or its configuration is at fault, not the target.
    `facts`, `excerpt`: evidence; the excerpt is the target's own text, untrusted.
    `transport_reason`: the reason of the transport error that led to this one; empty: there is no other.
    `precedes_deadline`: the deadline came while details of this error were being looked up.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        phase: str | None = None,
        *,
        retryable: bool = False,
        is_internal: bool = False,
        excerpt: str = "",
    ) -> None:
        super().__init__(message)
        self.reason, self.message, self.phase = reason, message, phase
        self.retryable, self.is_internal, self.excerpt = retryable, is_internal, excerpt
        self.facts: dict[str, Json] = {}
        self.transport_reason = ""
        self.precedes_deadline = False

    @classmethod
    def from_reason(
        cls, reason: str, phase: str | None = None, *, retryable: bool = False, excerpt: str = "", **facts: str
    ) -> Self:
        """With the sentence of the catalogue, which also states whether the target is at fault."""
        is_internal = get_reason_entry(reason).scope is ReasonCategory.ERROR
        return cls(
            *build_reason_and_message(reason, **facts),
            phase,
            retryable=retryable,
            is_internal=is_internal,
            excerpt=excerpt,
        )

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[Self], tuple[str, str], dict[str, Any]]:
        return type(self), (self.reason, self.message), self.__dict__

    def record_interrupted_phase(self, phase_timer: PhaseTimer) -> None:
        """Records the phase that the error interrupted. The reason of a timeout depends on it."""
        self.phase = phase_timer.current_phase or self.phase
        if self.reason == "timeout.exceeded":
            self.reason = get_timeout_reason_of_phase(self.phase)
        if self.reason in _INTERRUPTED_CONNECTION_REASONS or self.message == "timed out":
            self.message += build_while_phase_suffix(self.phase, self.message)


CONNECTION_LOSS_REASONS = ("connection.lost", "connection.closed", "connection.reset")
"""Reasons of a connection that ends while it is in use."""
_INTERRUPTED_CONNECTION_REASONS = (
    *CONNECTION_LOSS_REASONS, "mcp.server_exited", "mcp.output_closed", "mcp.session_lost",
)  # fmt: skip
"""Their messages name the phase that they interrupted."""


def build_while_phase_suffix(phase: str | None, message: str = "") -> str:
    """ " while connecting"; empty if the phase is unknown, or if the message states it."""
    activity = PHASE_DESCRIPTIONS.get(phase or "")
    return f" while {activity}" if activity and " while " not in message else ""


def build_timeout_error(timeout_s: float, phase_timer: PhaseTimer) -> ProbeError:
    """A step of a run took longer than `timeout_s`, in the current phase."""
    phase, proxy = phase_timer.current_phase, phase_timer.connecting_proxy
    message = f"timed out after {format_duration(timeout_s * 1000)}{build_while_phase_suffix(phase)}"
    reason = get_timeout_reason_of_phase(phase)
    is_internal = get_reason_entry(reason).scope is ReasonCategory.ERROR
    if proxy and not is_internal:
        return ProbeError.from_reason("proxy.unreachable", phase, retryable=True, proxy=proxy, problem=message)
    return ProbeError(reason, message, phase, retryable=True, is_internal=is_internal)


async def refine_probe_error_until_deadline(error: ProbeError, explanation: Awaitable[ProbeError]) -> ProbeError:
    """The more specific error that `explanation` returns; `error` itself if the deadline of the run cancels it first,
    because the fault is known by then, and must not be reported as a timeout."""
    import asyncio  # not when a configuration is only read

    try:
        return await explanation
    except asyncio.CancelledError:
        error.precedes_deadline = True
        return error


def build_probe_error_from_exception(error: BaseException) -> ProbeError | None:
    """Translates an exception of sockets, ssl, h11, httpx or httpx2. None: it comes from none of them, so it is a bug.

    Searches exception groups and causes, and returns the most specific error. Identifies the libraries by module name,
    so that neither httpx nor httpx2 is imported.
    """
    candidates = [
        candidate
        for e in _walk_exception_chain(error, set())
        if (candidate := _build_probe_error_from_single_exception(e))
    ]
    return min(candidates, key=_rank_probe_error_vagueness, default=None)


def _walk_exception_chain(error: BaseException, visited_ids: set[int]) -> Iterator[BaseException]:
    """The error itself, the members of a group, and the causes of each."""
    if id(error) in visited_ids:
        return
    visited_ids.add(id(error))
    yield error
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _walk_exception_chain(member, visited_ids)
    # httpcore raises its own errors `from None`, although the context names the cause.
    context_is_hidden = error.__suppress_context__ and not _is_network_library_exception(error)
    inner = error.__cause__ or (None if context_is_hidden else error.__context__)
    if inner is not None:
        yield from _walk_exception_chain(inner, visited_ids)


def _rank_probe_error_vagueness(error: ProbeError) -> int:
    """Libraries wrap specific errors in vague ones, and a timeout often arrives together with its cause."""
    if get_reason_family(error.reason) == "timeout":
        return 3
    return {"connection.failed": 1, "connection.lost": 2, "connection.closed": 2, "connection.reset": 2}.get(
        error.reason, 0
    )


def _build_probe_error_from_single_exception(error: BaseException) -> ProbeError | None:
    import ssl

    if isinstance(error, ProbeError):
        return error
    if isinstance(error, ssl.SSLError):
        from watchdog.net.tls_errors import classify_ssl_error

        problem = classify_ssl_error(error)
        return ProbeError.from_reason(problem.reason, "tls", retryable=problem.retryable, **problem.facts)
    if isinstance(error, socket.gaierror):
        return build_probe_error_from_dns_error(error)
    if isinstance(error, OSError):
        return _build_probe_error_from_os_error(error)
    return _build_probe_error_from_library_exception(error)


def build_probe_error_from_dns_error(error: socket.gaierror, host: str = "") -> ProbeError:
    """`error`: what getaddrinfo raised. `host`: the name that it was asked for, if that is known."""
    reason = _REASON_BY_DNS_ERROR.get(error.errno or 0)
    if reason:
        translated = ProbeError.from_reason(reason, "dns", retryable=True)
    else:
        translated = ProbeError.from_reason("dns.failed", "dns", retryable=True, problem=str(error.strerror))
    translated.message = f"cannot resolve {host}: {translated.message}" if host else translated.message
    return translated


_REASON_BY_DNS_ERROR = {
    socket.EAI_NONAME: "dns.not_found",
    socket.EAI_NODATA: "dns.no_address",
    socket.EAI_AGAIN: "dns.no_response",
}
_REASON_AND_MESSAGE_BY_ERRNO = {
    errno.ECONNREFUSED: ("connection.refused", "connection refused"),
    errno.ECONNRESET: ("connection.reset", "connection reset by the server"),
    errno.ECONNABORTED: ("connection.lost", "connection aborted"),
    errno.ENOTCONN: ("connection.closed", "connection closed by the server"),
    errno.EPIPE: ("connection.closed", "connection closed by the server"),
    errno.ETIMEDOUT: ("timeout.exceeded", "timed out"),
    errno.EHOSTUNREACH: ("connection.unreachable", "no route to the host"),
    errno.ENETUNREACH: ("connection.unreachable", "network unreachable"),
}
_RESOURCE_EXHAUSTION_MESSAGE_BY_ERRNO = {
    errno.EMFILE: "Watchdog has too many open files",
    errno.ENFILE: "this machine has too many open files",
    errno.ENOBUFS: "this machine is out of network buffers",
    errno.ENOMEM: "this machine is out of memory",
}
_OWN_NETWORK_ERRNOS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""This machine cannot send anything to an address of the target's kind."""


def _build_probe_error_from_os_error(error: OSError) -> ProbeError | None:
    if error.errno in _RESOURCE_EXHAUSTION_MESSAGE_BY_ERRNO:
        return ProbeError(
            "watchdog.out_of_resources", _RESOURCE_EXHAUSTION_MESSAGE_BY_ERRNO[error.errno], is_internal=True
        )
    if error.errno in _OWN_NETWORK_ERRNOS:
        problem = "this machine has no free local port or no address of the target's kind"
        return build_own_network_error(problem)
    if error.errno in _REASON_AND_MESSAGE_BY_ERRNO:
        return ProbeError(*_REASON_AND_MESSAGE_BY_ERRNO[error.errno], retryable=True)
    if isinstance(error, TimeoutError):
        return ProbeError("timeout.exceeded", "timed out", retryable=True)
    if isinstance(error, ConnectionError):
        return ProbeError("connection.lost", "connection lost", retryable=True)
    return None


def build_own_network_error(problem: str) -> ProbeError:
    """Only the network of this machine can be at fault."""
    return ProbeError(WATCHDOG_NETWORK_FAULT_REASON, f"no verdict: {problem}", retryable=True, is_internal=True)


_NETWORK_EXCEPTION_LIBRARY_NAMES = {"httpx", "httpx2", "httpcore", "httpcore2", "h11", "anyio"}
_REASON_MESSAGE_AND_PHASE_BY_EXCEPTION_NAME = {
    "ConnectTimeout": ("timeout.connect", "timed out while connecting", "connect"),
    "ReadTimeout": ("timeout.first_byte", "timed out while waiting for a response", "first_byte"),
    "WriteTimeout": ("timeout.first_byte", "timed out while sending the request", "first_byte"),
    "PoolTimeout": ("timeout.exceeded", "timed out", None),
    "ConnectError": ("connection.failed", "connection failed", "connect"),
    "ReadError": ("connection.lost", "connection lost", None),
    "WriteError": ("connection.lost", "connection lost", None),
    "CloseError": ("connection.lost", "connection lost", None),
    "BrokenResourceError": ("connection.lost", "connection lost", None),
    "EndOfStream": ("connection.closed", "connection closed by the server", None),
    "DecodingError": ("body.invalid_encoding", "the response body is not compressed as its headers state", "body"),
    "TooManyRedirects": ("http.too_many_redirects", "too many redirects", None),
    "UnsupportedProtocol": ("protocol.invalid_url", "the URL is neither http nor https", None),
    "InvalidURL": ("protocol.invalid_url", "the URL is invalid", None),
}


def _build_probe_error_from_h11_message(message: str) -> ProbeError:
    """Translates a message of h11, raised by itself or through httpx."""
    if " message body" in message:  # "... without sending complete message body (received 3 bytes, expected 10)"
        detail = message.partition("(")[2].rstrip(")") or "connection closed by the server"
        return ProbeError.from_reason("body.truncated", "body", retryable=True, problem=detail)
    if "disconnected" in message or "closed connection" in message:
        return ProbeError("connection.closed", "connection closed by the server", retryable=True)
    if "too long" in message:
        return ProbeError.from_reason("protocol.headers_too_large")
    if "SWITCH_UPGRADE" in message:
        return ProbeError.from_reason("protocol.unexpected_upgrade")
    problem = next((words for name, words in _HTTP_PROBLEMS_BY_H11_MESSAGE.items() if message.startswith(name)), "")
    error = ProbeError.from_reason("protocol.invalid_response", retryable=True, problem=problem and f": {problem}")
    error.facts["detail"] = re.sub(r"bytearray\(b(.*)\)$", r"\1", message)
    return error


_HTTP_PROBLEMS_BY_H11_MESSAGE = {
    "illegal status line": "the status line is malformed",
    "illegal header line": "a header line is malformed",
    "illegal chunk header": "a chunk of the body has no valid length",
    "malformed chunk footer": "a chunk of the body is longer than its length",
    "bad Content-Length": "the Content-Length is not a number",
    "conflicting Content-Length": "two Content-Length headers contradict each other",
    "Only Transfer-Encoding": "the Transfer-Encoding is not chunked",
    "multiple Transfer-Encoding": "there are several Transfer-Encoding headers",
}
"""What the beginning of a message of h11 means. The rest of it quotes the target."""


def _is_network_library_exception(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _NETWORK_EXCEPTION_LIBRARY_NAMES


def _build_probe_error_from_library_exception(error: BaseException) -> ProbeError | None:
    name = type(error).__name__
    if not _is_network_library_exception(error):
        return None
    if isinstance(error.__cause__, ProbeError):  # our own transport raises it for that error
        return None
    if name == "RemoteProtocolError":
        return _build_probe_error_from_h11_message(str(error))
    if name not in _REASON_MESSAGE_AND_PHASE_BY_EXCEPTION_NAME:
        return None
    reason, message, phase = _REASON_MESSAGE_AND_PHASE_BY_EXCEPTION_NAME[name]
    return ProbeError(reason, message, phase, retryable=get_reason_family(reason) in ("timeout", "connection"))
