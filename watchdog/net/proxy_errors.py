"""What the failures of a proxy mean: whether the proxy is at fault, or the target behind it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from watchdog.domain.reasons import get_reason_family
from watchdog.net.errors import ProbeError
from watchdog.net.foreign_protocol import MAX_FOREIGN_BANNER_BYTES
from watchdog.net.proxy import ProxyAddress

_TARGET_UNREACHABLE_STATUSES = (502, 503, 504)
_REFUSAL_STATUSES = (403, 405, 451)
_AUTHENTICATION_SCHEME_PATTERN = re.compile(r"(?:^|,)\s*([A-Za-z][A-Za-z0-9-]{1,20})(?=\s*(?:,|$)|\s+[A-Za-z])")
_SQUID_REFUSALS = ("ERR_ACCESS_DENIED", "ERR_CACHE_ACCESS_DENIED", "ERR_FORWARDING_DENIED")
_SQUID_TARGET_PROBLEMS = {
    "ERR_CONNECT_FAIL": "the connection failed",
    "ERR_DNS_FAIL": "host name not found",
    "ERR_CANNOT_FORWARD": "there is no route to it",
    "ERR_READ_TIMEOUT": "it does not respond",
    "ERR_READ_ERROR": "the connection was lost",
    "ERR_ZERO_SIZE_OBJECT": "it closes the connection without a response",
}
"""By the error in the header X-Squid-Error, which a squid sends with responses of its own."""


def build_proxy_unreachable_error(error: ProbeError, proxy: ProxyAddress) -> ProbeError:
    """`error`: why there is no connection to the proxy. A fault of this machine stays what it is."""
    if error.is_internal:
        return error
    translated = ProbeError.from_reason(
        "proxy.unreachable", error.phase, retryable=error.retryable, proxy=proxy.host_and_port, problem=error.message
    )
    translated.facts = {**error.facts, "proxy": proxy.host_and_port}
    return translated


def build_tunnel_error(error: ProbeError, proxy: ProxyAddress) -> ProbeError:
    """`error`: why the proxy opened no tunnel."""
    family = get_reason_family(error.reason)
    if family == "proxy":
        translated = error
    elif error.reason in ("protocol.not_http", "protocol.tls_required", "protocol.http2_only"):
        translated = build_wrong_proxy_protocol_error(proxy)
    else:
        translated = ProbeError.from_reason(
            "proxy.failed", "tunnel", retryable=error.retryable, proxy=proxy.host_and_port, problem=error.message
        )
    translated.excerpt = translated.excerpt or error.excerpt
    translated.facts |= {**error.facts, "proxy": proxy.host_and_port}
    return translated


def build_wrong_proxy_protocol_error(proxy: ProxyAddress, received: bytes = b"") -> ProbeError:
    protocol = "HTTP" if proxy.speaks_http else "SOCKS5"
    excerpt = received[:MAX_FOREIGN_BANNER_BYTES].decode(errors="replace")
    return ProbeError.from_reason(
        "proxy.wrong_protocol", "tunnel", excerpt=excerpt, proxy=proxy.host_and_port, protocol=protocol
    )


def build_proxy_authentication_error(proxy: ProxyAddress, *, is_rejected: bool, schemes: str = "") -> ProbeError:
    """`schemes`: that the proxy offers."""
    problem = "rejects the credentials" if is_rejected else "requires credentials"
    offered = f" ({schemes})" if schemes else ""
    return ProbeError.from_reason(
        "proxy.authentication_required", "tunnel", proxy=proxy.host_and_port, problem=f"{problem}{offered}"
    )


def build_connect_refusal_error(
    status: int, reason_phrase: str, headers: Mapping[str, str], proxy: ProxyAddress
) -> ProbeError:
    """The proxy answers CONNECT with this status, so there is no tunnel."""
    if error := find_proxy_response_error(status, headers, proxy):
        error.phase = "tunnel"
        error.facts["status"] = status
        return error
    name, answer = proxy.host_and_port, f"HTTP {status} {reason_phrase}".strip()
    if status == 401:  # as tinyproxy answers wrong credentials
        error = build_proxy_authentication_error(proxy, is_rejected=bool(proxy.authorization_header))
    elif status in _TARGET_UNREACHABLE_STATUSES:
        error = ProbeError.from_reason(
            "proxy.target_unreachable", "tunnel", retryable=True, proxy=name, problem=f"HTTP {status}"
        )
    elif status in _REFUSAL_STATUSES:
        error = ProbeError.from_reason("proxy.refused", "tunnel", proxy=name, problem=f"HTTP {status}")
    else:
        error = ProbeError.from_reason("proxy.failed", "tunnel", proxy=name, problem=f"it answers HTTP {status}")
    error.facts |= {"status": status, "answer": answer}
    return error


def find_proxy_response_error(status: int, headers: Mapping[str, str], proxy: ProxyAddress) -> ProbeError | None:
    """The error of a response that a proxy made itself. None: it is the target's, as far as it shows."""
    if status == 407:
        schemes = ", ".join(
            dict.fromkeys(_AUTHENTICATION_SCHEME_PATTERN.findall(headers.get("proxy-authenticate", "")))
        )
        return build_proxy_authentication_error(proxy, is_rejected=bool(proxy.authorization_header), schemes=schemes)
    name, squid_error = proxy.host_and_port, headers.get("x-squid-error", "").partition(" ")[0]
    if squid_error in _SQUID_REFUSALS:
        return ProbeError.from_reason("proxy.refused", proxy=name, problem="its rules do not allow it")
    if problem := _SQUID_TARGET_PROBLEMS.get(squid_error):
        return ProbeError.from_reason("proxy.target_unreachable", retryable=True, proxy=name, problem=problem)
    return None
