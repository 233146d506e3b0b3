"""How we touch the network: the HTTP exchange, the MCP adapter, the address filter, redaction."""

from __future__ import annotations

from watchdog.net.errors import ProbeError, error_from_exception
from watchdog.net.network import Network
from watchdog.net.phases import PhaseTimer
from watchdog.net.redact import SecretMask, redact_url, sanitize_json

__all__ = [
    "Network",
    "PhaseTimer",
    "ProbeError",
    "SecretMask",
    "error_from_exception",
    "redact_url",
    "sanitize_json",
]
