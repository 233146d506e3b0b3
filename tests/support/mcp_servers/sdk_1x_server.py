"""A sample MCP server on the 1.x SDK, run by a Python that has it.

usage: sdk_1x_server.py streamable-http PORT | sdk_1x_server.py sse PORT
"""

# Written for the 1.x SDK, while the one installed beside these tests is 2.x.
# mypy: ignore-errors
from __future__ import annotations

import sys
from typing import Any

from mcp.server.fastmcp import FastMCP

server = FastMCP("Older", host="127.0.0.1", port=int(sys.argv[2]))


@server.tool()
def health_check() -> dict[str, Any]:
    return {"healthy": True, "tasks": [{"name": "sync", "ok": True, "staleness_ms": 1_000}]}


@server.tool()
def add(a: int, b: int) -> int:
    return a + b


@server.resource("report://today")
def report() -> str:
    return '{"status": "complete"}'


if __name__ == "__main__":
    server.run(sys.argv[1])
