"""Talks to MCP servers: the only room that imports the MCP SDK's client and httpx2, hence loaded when first needed."""

from __future__ import annotations

import logging

from watchdog.wire.mcp.dialogue import Agenda, Dialogue, Seen, Tool, phase
from watchdog.wire.mcp.http import Endpoint
from watchdog.wire.mcp.stdio import Command
from watchdog.wire.mcp.visit import Visit, conversation

__all__ = ["Agenda", "Command", "Dialogue", "Endpoint", "Seen", "Tool", "Visit", "conversation", "phase"]

# The SDK logs every fault of a target with a traceback, and httpx2 every URL: both come back to us as named faults.
for _name, _level in (("mcp.client", logging.CRITICAL), ("mcp.shared", logging.CRITICAL), ("httpx2", logging.WARNING)):
    logging.getLogger(_name).setLevel(_level)
