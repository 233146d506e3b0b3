"""How much of a response is read."""

from __future__ import annotations

DEFAULT_MAX_BODY_BYTES = 256 << 10
MAX_CONFIGURABLE_BODY_BYTES = 16 << 20
MIN_MCP_SESSION_BYTES = 4 << 20
"""A session with an MCP server consists of several responses."""
