"""Recognizes services that do not speak HTTP/1, by the first bytes of their response."""

from __future__ import annotations

from watchdog.net.errors import ProbeError
from watchdog.net.http_head import mask_secret_headers

MAX_FOREIGN_BANNER_BYTES = 200
USE_HTTPS_TLS_REMEDY = "use https://"
"""What to configure for a port that speaks TLS."""
_HTTP2_SETTINGS_FRAME_START, _HTTP2_GOAWAY_FRAME_START = b"\x04\0\0\0\0\0", b"\x07\0\0\0\0\0"
"""Type, flags and stream of the frames that an HTTP/2 server sends first."""
TLS_ALERT_RECORD_STARTS = (b"\x15\x03\x00", b"\x15\x03\x01", b"\x15\x03\x02", b"\x15\x03\x03")
"""What a server that expects TLS may answer to anything else."""


def build_http2_not_selected_error() -> ProbeError:
    """Of a server that does not select HTTP/2, which the client requires, during the TLS handshake."""
    problem = "the server does not select it during the TLS handshake (ALPN)"
    return ProbeError.from_reason("protocol.not_http2", "tls", problem=problem)


def find_foreign_protocol_error(response_start: bytes, tls_remedy: str = USE_HTTPS_TLS_REMEDY) -> ProbeError | None:
    """The error of a response that is not HTTP/1; None if it begins like HTTP/1. The excerpt shows its beginning."""
    is_http2 = response_start.startswith(b"HTTP/2")
    if b"HTTP/".startswith(response_start[:5]) and not is_http2:
        return None
    excerpt = mask_secret_headers(response_start[:MAX_FOREIGN_BANNER_BYTES].decode(errors="replace"))
    if response_start.startswith(TLS_ALERT_RECORD_STARTS):
        return ProbeError.from_reason("protocol.tls_required", excerpt=excerpt, remedy=tls_remedy)
    if is_http2 or response_start[3:9] in (_HTTP2_SETTINGS_FRAME_START, _HTTP2_GOAWAY_FRAME_START):
        return ProbeError.from_reason("protocol.http2_only", excerpt=excerpt)
    return ProbeError.from_reason("protocol.not_http", excerpt=excerpt)
