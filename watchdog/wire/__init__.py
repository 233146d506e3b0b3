"""How we touch the network: the HTTP exchange, the MCP adapter, the address filter, redaction."""

from __future__ import annotations

from watchdog.wire.faults import Fault, fault_of
from watchdog.wire.redact import Mask, cap, harmless, presentable, shown_url
from watchdog.wire.trace import Trace
from watchdog.wire.wire import Wire

__all__ = ["Fault", "Mask", "Trace", "Wire", "cap", "fault_of", "harmless", "presentable", "shown_url"]
