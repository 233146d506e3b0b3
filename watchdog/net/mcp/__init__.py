"""Talks to MCP servers: the only room that imports the MCP SDK's client and httpx2, hence loaded when first needed."""

from __future__ import annotations

import logging

from watchdog.net.mcp.client import McpClient, McpTool, SessionPlan, SessionResult, measure_phase
from watchdog.net.mcp.http import McpHttpEndpoint
from watchdog.net.mcp.session import McpSession, connect_mcp_client
from watchdog.net.mcp.stdio import McpServerCommand

__all__ = [
    "McpClient",
    "McpHttpEndpoint",
    "McpServerCommand",
    "McpSession",
    "McpTool",
    "SessionPlan",
    "SessionResult",
    "connect_mcp_client",
    "measure_phase",
]

# The SDK logs every fault of a target with a traceback, and httpx2 every URL: both come back to us as named faults.
for _name, _level in (("mcp.client", logging.CRITICAL), ("mcp.shared", logging.CRITICAL), ("httpx2", logging.WARNING)):
    logging.getLogger(_name).setLevel(_level)
