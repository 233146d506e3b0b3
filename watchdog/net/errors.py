"""Errors that keep a target from giving a usable response, each with a stable reason and a sentence for people."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from watchdog.domain.model import Json
from watchdog.net.phases import PHASE_DESCRIPTIONS, PhaseTimer

if TYPE_CHECKING:
    import ssl


class ProbeError(Exception):
    """The target gave no usable response.

    `reason`: a stable word, `family.cause`; the catalogue explains it.
    `message`: one short sentence without secrets.
    `phase`: where it happened, if that is known.
    `retryable`: a transport error; another attempt within the same run may succeed.
    `is_internal`: Watchdog, its machine or its configuration is at fault, not the target.
    `facts`, `excerpt`: evidence; the excerpt is the target's own text, untrusted.
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

    def __str__(self) -> str:
        return self.message

    def record_phase(self, phase_timer: PhaseTimer) -> None:
        """Records the phase that the error interrupted."""
        self.phase = phase_timer.current_phase or self.phase
        if self.reason in ("connection.lost", "timeout.exceeded") and self.phase in PHASE_DESCRIPTIONS:
            self.message += f" while {PHASE_DESCRIPTIONS[self.phase]}"


def error_from_exception(error: BaseException) -> ProbeError | None:
    """Translates an exception of sockets, ssl, h11, httpx or httpx2. None: it comes from none of them, so it is a bug.

    Searches exception groups and causes, and returns the most specific error. Identifies the libraries by module name,
    so that neither httpx nor httpx2 is imported.
    """
    candidates = [
        candidate for e in _walk_exception_chain(error, set()) if (candidate := _error_from_single_exception(e))
    ]
    return min(candidates, key=_vagueness_rank, default=None)


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
    context_is_hidden = error.__suppress_context__ and not _is_library_exception(error)
    inner = error.__cause__ or (None if context_is_hidden else error.__context__)
    if inner is not None:
        yield from _walk_exception_chain(inner, visited_ids)


def _vagueness_rank(error: ProbeError) -> int:
    """Libraries wrap specific errors in vague ones, and a timeout often arrives together with its cause."""
    return {"connection.failed": 1, "connection.lost": 2, "timeout.exceeded": 3}.get(error.reason, 0)


def _error_from_single_exception(error: BaseException) -> ProbeError | None:
    import ssl

    if isinstance(error, ProbeError):
        return error
    if isinstance(error, ssl.SSLError):
        return _error_from_ssl_error(error)
    if isinstance(error, socket.gaierror):
        return ProbeError("dns.failed", describe_dns_error(error), "dns", retryable=True)
    if isinstance(error, OSError):
        return _error_from_os_error(error)
    return _error_from_library_exception(error)


def describe_dns_error(error: socket.gaierror) -> str:
    return {
        socket.EAI_NONAME: "host name not found",
        socket.EAI_NODATA: "host name has no address",
        socket.EAI_AGAIN: "no response from the name server",
    }.get(error.errno or 0, f"host name lookup failed ({error.strerror})")


_REASON_AND_MESSAGE_BY_ERRNO = {
    errno.ECONNREFUSED: ("connection.refused", "connection refused"),
    errno.ECONNRESET: ("connection.lost", "connection reset by the server"),
    errno.ECONNABORTED: ("connection.lost", "connection aborted"),
    errno.ENOTCONN: ("connection.lost", "connection closed by the server"),
    errno.EPIPE: ("connection.lost", "connection closed by the server"),
    errno.ETIMEDOUT: ("timeout.exceeded", "timed out"),
    errno.EHOSTUNREACH: ("connection.unreachable", "no route to the host"),
    errno.ENETUNREACH: ("connection.unreachable", "network unreachable"),
    errno.EADDRNOTAVAIL: ("connection.unreachable", "address not available on this machine"),
}
_RESOURCE_EXHAUSTION_MESSAGES = {
    errno.EMFILE: "Watchdog has too many open files",
    errno.ENFILE: "this machine has too many open files",
    errno.ENOBUFS: "this machine is out of network buffers",
    errno.ENOMEM: "this machine is out of memory",
}


def _error_from_os_error(error: OSError) -> ProbeError | None:
    if error.errno in _RESOURCE_EXHAUSTION_MESSAGES:
        return ProbeError("watchdog.out_of_resources", _RESOURCE_EXHAUSTION_MESSAGES[error.errno], is_internal=True)
    if error.errno in _REASON_AND_MESSAGE_BY_ERRNO:
        return ProbeError(*_REASON_AND_MESSAGE_BY_ERRNO[error.errno], retryable=True)
    if isinstance(error, TimeoutError):
        return ProbeError("timeout.exceeded", "timed out", retryable=True)
    if isinstance(error, ConnectionError):
        return ProbeError("connection.lost", "connection lost", retryable=True)
    return None


_CERTIFICATE_ERROR_MESSAGES = {
    9: "certificate is not valid yet",
    10: "certificate has expired",
    18: "certificate is self-signed",
    19: "certificate is signed by an unknown authority",
    20: "certificate is signed by an unknown authority",
    21: "certificate is signed by an unknown authority",
    23: "certificate is revoked",
}
"""OpenSSL's X509_V_ERR codes."""
_TLS_HANDSHAKE_ERROR_MESSAGES = (
    ("WRONG_VERSION_NUMBER", "the server does not speak TLS on this port"),
    ("RECORD_LAYER_FAILURE", "the server does not speak TLS on this port"),
    ("HTTP_REQUEST", "the server does not speak TLS on this port"),
    ("CERTIFICATE_REQUIRED", "the server requires a client certificate"),
    ("UNKNOWN_CA", "the server does not trust the authority that signed the client certificate"),
    ("BAD_CERTIFICATE", "the server rejects the client certificate"),
    ("CERTIFICATE_EXPIRED", "the server reports that the client certificate has expired"),
    ("HANDSHAKE_FAILURE", "the server rejects the handshake"),
    ("UNRECOGNIZED_NAME", "the server does not recognize this host name"),
    ("UNSUPPORTED_PROTOCOL", "the server offers no secure version of TLS"),
    ("PROTOCOL_VERSION", "the server offers no secure version of TLS"),
    ("UNEXPECTED_EOF", "connection closed during the handshake"),
)


def _error_from_ssl_error(error: ssl.SSLError) -> ProbeError:
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        message = _CERTIFICATE_ERROR_MESSAGES.get(error.verify_code, error.verify_message)
        if mismatch := re.search(r"not valid for '(.+)'", error.verify_message):
            message = f"certificate is not valid for {mismatch[1]}"
        return ProbeError("tls.failed", f"TLS: {message}", "tls")
    detail = error.reason or str(error.strerror or "")
    if "UNEXPECTED_EOF" in detail or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return ProbeError("tls.failed", "TLS: connection closed by the server", "tls", retryable=True)
    for alert, message in _TLS_HANDSHAKE_ERROR_MESSAGES:
        if alert in detail:
            return ProbeError("tls.failed", f"TLS: {message}", "tls")
    return ProbeError("tls.failed", f"TLS: {detail.lower().replace('_', ' ')}", "tls")


_NETWORK_LIBRARIES = {"httpx", "httpx2", "httpcore", "httpcore2", "h11", "anyio"}
_ERROR_BY_EXCEPTION_NAME = {
    "ConnectTimeout": ("timeout.exceeded", "timed out while connecting", "connect"),
    "ReadTimeout": ("timeout.exceeded", "timed out while waiting for a response", "first_byte"),
    "WriteTimeout": ("timeout.exceeded", "timed out while sending the request", "first_byte"),
    "PoolTimeout": ("timeout.exceeded", "timed out", None),
    "ConnectError": ("connection.failed", "connection failed", "connect"),
    "ReadError": ("connection.lost", "connection lost", None),
    "WriteError": ("connection.lost", "connection lost", None),
    "CloseError": ("connection.lost", "connection lost", None),
    "BrokenResourceError": ("connection.lost", "connection lost", None),
    "EndOfStream": ("connection.lost", "connection closed by the server", None),
    "DecodingError": ("protocol.error", "the response body cannot be decoded", "body"),
    "TooManyRedirects": ("http.too_many_redirects", "too many redirects", None),
    "UnsupportedProtocol": ("protocol.error", "the URL is neither http nor https", None),
    "InvalidURL": ("protocol.error", "the URL is invalid", None),
}


def _error_from_protocol_message(message: str) -> ProbeError:
    """Translates a message of h11, raised by itself or through httpx."""
    if "disconnected" in message or "closed connection" in message:
        return ProbeError("connection.lost", "connection closed by the server", retryable=True)
    if "too long" in message:
        return ProbeError("protocol.error", "the response headers are too long")
    if "SWITCH_UPGRADE" in message:
        return ProbeError("protocol.error", "HTTP 101: the server switches to another protocol without being asked")
    error = ProbeError("protocol.error", "the response is not valid HTTP", retryable=True)
    error.facts["detail"] = message
    return error


def _is_library_exception(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _NETWORK_LIBRARIES


def _error_from_library_exception(error: BaseException) -> ProbeError | None:
    name = type(error).__name__
    if not _is_library_exception(error):
        return None
    if name == "RemoteProtocolError":
        return _error_from_protocol_message(str(error))
    if name not in _ERROR_BY_EXCEPTION_NAME:
        return None
    reason, message, phase = _ERROR_BY_EXCEPTION_NAME[name]
    return ProbeError(
        reason, message, phase, retryable=reason in ("timeout.exceeded", "connection.failed", "connection.lost")
    )
