"""The MCP client. Only this package imports the client of the MCP SDK and httpx2, so it is loaded when first needed."""

from __future__ import annotations

import logging

from watchdog.net.mcp.client import McpClient, measure_phase_and_tag_errors
from watchdog.net.mcp.http_transport import McpHttpEndpoint
from watchdog.net.mcp.large_messages import WorkerParsedMcpResult
from watchdog.net.mcp.results import McpTool
from watchdog.net.mcp.session import McpSessionRunner, connect_mcp_client
from watchdog.net.mcp.session_result import McpSessionPlan, McpSessionResult
from watchdog.net.mcp.stdio import McpServerCommand

__all__ = [
    "McpClient",
    "McpHttpEndpoint",
    "McpServerCommand",
    "McpSessionPlan",
    "McpSessionResult",
    "McpSessionRunner",
    "McpTool",
    "WorkerParsedMcpResult",
    "connect_mcp_client",
    "measure_phase_and_tag_errors",
]

# The SDK logs every error of a target with a traceback, and httpx2 every URL. Both reach the caller as ProbeErrors.
# "client" is the logger of the SDK's session.
for _name in ("mcp.client", "mcp.shared", "client"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
logging.getLogger("httpx2").setLevel(logging.WARNING)
