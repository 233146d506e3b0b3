"""What can be wrong with a target before it gives an answer, each with a stable reason and a sentence for people."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator

from watchdog.domain.model import Json
from watchdog.net.phases import PHASE_DESCRIPTIONS, PhaseTimer


class ProbeError(Exception):
    """No usable answer from the target.

    `reason` is a stable snake_case word, the text one short sentence without secrets, `phase` where it happened.
    `retryable`: one of transport, another attempt may fare better. `ours`: we are to blame, not the target.
    `facts` and `excerpt` are evidence: what was found, and the target's own words, untrusted.
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
        """Say which phase it interrupted."""
        self.phase = phase_timer.current_phase or self.phase
        if self.reason in ("connection.lost", "timeout.exceeded") and self.phase in PHASE_DESCRIPTIONS:
            self.message += f" while {PHASE_DESCRIPTIONS[self.phase]}"


def error_from_exception(error: BaseException) -> ProbeError | None:
    """The fault that an exception stands for; None: it is none of the network's, hence a bug of ours.

    Looks into exception groups and causes, and knows the exceptions of sockets, ssl, h11, httpx and httpx2 (the latter
    by name, so that neither is imported). Of several the most telling one counts.
    """
    found = [f for e in _walk_exception_chain(error, set()) if (f := _error_from_single_exception(e))]
    return min(found, key=_vagueness_rank, default=None)


def _walk_exception_chain(error: BaseException, visited_ids: set[int]) -> Iterator[BaseException]:
    """The error itself, the members of a group, and what caused each of them."""
    if id(error) in visited_ids:
        return
    visited_ids.add(id(error))
    yield error
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _walk_exception_chain(member, visited_ids)
    hidden = error.__suppress_context__ and not _is_library_exception(error)  # httpcore hides what its errors stand for
    inner = error.__cause__ or (None if hidden else error.__context__)
    if inner is not None:
        yield from _walk_exception_chain(inner, visited_ids)


def _vagueness_rank(error: ProbeError) -> int:
    """A timeout often comes along with what caused it, and libraries wrap errors that say more."""
    return {"connection.failed": 1, "connection.lost": 2, "timeout.exceeded": 3}.get(error.reason, 0)


def _error_from_single_exception(error: BaseException) -> ProbeError | None:
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
        socket.EAI_NONAME: "name not found",
        socket.EAI_NODATA: "the name has no address",
        socket.EAI_AGAIN: "the name server does not answer",
    }.get(error.errno or 0, f"the name cannot be looked up ({error.strerror})")


_REASON_AND_MESSAGE_BY_ERRNO = {
    errno.ECONNREFUSED: ("connection.refused", "connection refused"),
    errno.ECONNRESET: ("connection.lost", "connection reset by the server"),
    errno.ECONNABORTED: ("connection.lost", "connection aborted"),
    errno.ENOTCONN: ("connection.lost", "connection closed by the server"),
    errno.EPIPE: ("connection.lost", "connection closed by the server"),
    errno.ETIMEDOUT: ("timeout.exceeded", "timed out"),
    errno.EHOSTUNREACH: ("connection.unreachable", "no route to the host"),
    errno.ENETUNREACH: ("connection.unreachable", "network unreachable"),
    errno.EADDRNOTAVAIL: ("connection.unreachable", "no such address here"),
}
_RESOURCE_EXHAUSTION_MESSAGES = {
    errno.EMFILE: "we have too many files open",
    errno.ENFILE: "this machine has too many files open",
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
    19: "certificate comes from an unknown authority",
    20: "certificate comes from an unknown authority",
    21: "certificate comes from an unknown authority",
    23: "certificate is revoked",
}
"""OpenSSL's X509_V_ERR codes."""
_TLS_HANDSHAKE_ERROR_MESSAGES = (
    ("WRONG_VERSION_NUMBER", "the server does not speak TLS on this port"),
    ("RECORD_LAYER_FAILURE", "the server does not speak TLS on this port"),
    ("HTTP_REQUEST", "the server does not speak TLS on this port"),
    ("CERTIFICATE_REQUIRED", "the server asks for a client certificate"),
    ("UNKNOWN_CA", "the server does not accept our certificate's authority"),
    ("BAD_CERTIFICATE", "the server does not accept our certificate"),
    ("CERTIFICATE_EXPIRED", "the server says that our certificate has expired"),
    ("HANDSHAKE_FAILURE", "the server refuses the handshake"),
    ("UNRECOGNIZED_NAME", "the server does not know this name"),
    ("UNSUPPORTED_PROTOCOL", "the server offers no version of TLS that is still safe"),
    ("PROTOCOL_VERSION", "the server offers no version of TLS that is still safe"),
    ("UNEXPECTED_EOF", "connection closed during the handshake"),
)


def _error_from_ssl_error(error: ssl.SSLError) -> ProbeError:
    if isinstance(error, ssl.SSLCertVerificationError):
        message = _CERTIFICATE_ERROR_MESSAGES.get(error.verify_code, error.verify_message)
        if wrong := re.search(r"not valid for '(.+)'", error.verify_message):
            message = f"certificate is not valid for {wrong[1]}"
        return ProbeError("tls.failed", f"TLS: {message}", "tls")
    detail = error.reason or str(error.strerror or "")
    if "UNEXPECTED_EOF" in detail or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return ProbeError("tls.failed", "TLS: connection closed by the server", "tls", retryable=True)
    for word, message in _TLS_HANDSHAKE_ERROR_MESSAGES:
        if word in detail:
            return ProbeError("tls.failed", f"TLS: {message}", "tls")
    return ProbeError("tls.failed", f"TLS: {detail.lower().replace('_', ' ')}", "tls")


_NETWORK_LIBRARIES = {"httpx", "httpx2", "httpcore", "httpcore2", "h11", "anyio"}
_ERROR_BY_EXCEPTION_NAME = {
    "ConnectTimeout": ("timeout.exceeded", "timed out while connecting", "connect"),
    "ReadTimeout": ("timeout.exceeded", "timed out while waiting for an answer", "first_byte"),
    "WriteTimeout": ("timeout.exceeded", "timed out while sending the request", "first_byte"),
    "PoolTimeout": ("timeout.exceeded", "timed out", None),
    "ConnectError": ("connection.failed", "connection failed", "connect"),
    "ReadError": ("connection.lost", "connection lost", None),
    "WriteError": ("connection.lost", "connection lost", None),
    "CloseError": ("connection.lost", "connection lost", None),
    "BrokenResourceError": ("connection.lost", "connection lost", None),
    "EndOfStream": ("connection.lost", "connection closed by the server", None),
    "DecodingError": ("protocol.error", "the body cannot be decoded", "body"),
    "TooManyRedirects": ("http.too_many_redirects", "too many redirects", None),
    "UnsupportedProtocol": ("protocol.error", "the URL is neither http nor https", None),
    "InvalidURL": ("protocol.error", "the URL cannot be read", None),
}


def _error_from_protocol_message(message: str) -> ProbeError:
    """What h11 says, on its own or through httpx."""
    if "disconnected" in message or "closed connection" in message:
        return ProbeError("connection.lost", "connection closed by the server", retryable=True)
    if "too long" in message:
        return ProbeError("protocol.error", "the answer's headers are too long")
    if "SWITCH_UPGRADE" in message:
        return ProbeError("protocol.error", "the server switches to another protocol (101), which was not asked for")
    fault = ProbeError("protocol.error", "the answer is not proper HTTP", retryable=True)
    fault.facts["detail"] = message
    return fault


def _is_library_exception(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _NETWORK_LIBRARIES


def _error_from_library_exception(error: BaseException) -> ProbeError | None:
    kind = type(error)
    if not _is_library_exception(error):
        return None
    if kind.__name__ == "RemoteProtocolError":
        return _error_from_protocol_message(str(error))
    if kind.__name__ not in _ERROR_BY_EXCEPTION_NAME:
        return None
    reason, message, phase = _ERROR_BY_EXCEPTION_NAME[kind.__name__]
    return ProbeError(
        reason, message, phase, retryable=reason in ("timeout.exceeded", "connection.failed", "connection.lost")
    )
