"""Network access: HTTP, MCP, the address filter, and redaction of what comes back."""

from __future__ import annotations

from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.network import NetworkAccess
from watchdog.net.phases import PhaseTimer
from watchdog.net.redact import SecretMask, mask_and_truncate_json_tree, strip_url_to_scheme_host_and_path

__all__ = [
    "NetworkAccess",
    "PhaseTimer",
    "ProbeError",
    "SecretMask",
    "build_probe_error_from_exception",
    "mask_and_truncate_json_tree",
    "strip_url_to_scheme_host_and_path",
]
