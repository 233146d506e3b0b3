"""A healthy MCP server over stdio that logs right behind its last reply, in the same write. Right: pass, every time.

With --flood it notifies 200 times a second and never answers tools/call. Right: a timeout of the call, every time.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any


def to_line(message: dict[str, Any]) -> str:
    return json.dumps({"jsonrpc": "2.0", **message}) + "\n"


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


NOTE = to_line({"method": "notifications/message", "params": {"level": "info", "data": "done"}})
TOOL = {"name": "health_check", "inputSchema": {"type": "object"}}
FLOOD = "--flood" in sys.argv


def notify_forever() -> None:
    while True:
        write(NOTE)
        time.sleep(0.005)


if FLOOD:
    threading.Thread(target=notify_forever, daemon=True).start()
for text in sys.stdin:
    request = json.loads(text)
    id_, method = request.get("id"), request.get("method")
    if id_ is None:
        continue
    if method == "initialize":
        version = request["params"]["protocolVersion"]
        server = {"name": "after", "version": "1"}
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": server}
        write(to_line({"id": id_, "result": result}))
    elif method == "tools/list":
        write(to_line({"id": id_, "result": {"tools": [TOOL]}}))
    elif method == "tools/call":
        if not FLOOD:
            write(to_line({"id": id_, "result": {"content": [{"type": "text", "text": '{"healthy": true}'}]}}) + NOTE)
    else:
        write(to_line({"id": id_, "error": {"code": -32601, "message": "Method not found"}}))
