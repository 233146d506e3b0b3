"""How much of a response is read."""

from __future__ import annotations

DEFAULT_MAX_BODY_BYTES = 256 << 10
MAX_CONFIGURABLE_BODY_BYTES = 16 << 20
MAX_BODY_BYTES_IN_EVENT_LOOP = 64 << 10
"""A body that is longer, as received or decoded, is decoded, parsed and judged outside the event loop."""
MAX_JSON_ELEMENTS_IN_EVENT_LOOP = 500
"""Elements of a body over which an expression may loop in the event loop: `map` takes quadratic time."""
MIN_MCP_SESSION_BYTES_LIMIT = 4 << 20
"""A session with an MCP server consists of several responses."""
