"""One HTTP exchange on a fresh connection, every phase timed, every length bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from watchdog.wire.tls import Tls
from watchdog.wire.trace import Trace


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask. The caller bounds it in time."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    tls: Tls = field(default_factory=Tls)
    follow: bool = False
    """Follow up to 5 redirects of a GET or HEAD; `headers` go to the first origin only."""
    egress: Literal["public", "private"] = "private"
    trace: Trace = field(default_factory=Trace)
    now: int = 0
    """The clock, ms since the epoch: certificates are judged against it."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """Lower-case name -> value; repeated ones joined by ", "."""
    body: bytes
    """Decoded, at most 256 KiB."""
    cut: bool
    """There was more body than that."""
    size: int
    """Bytes of body as they came over the wire; when cut, what was read of them (at most 1 MiB)."""
    elapsed: float
    """Milliseconds from the first look-up to the end of the body, redirects included."""
    http_version: str
    address: str
    """The peer's address and port."""
    url: str
    """Where the answer came from, safe to show."""
    redirects: int
    cert_days: int | None
    """Whole days until the server's certificate ends, negative when it has ended; None without TLS."""
