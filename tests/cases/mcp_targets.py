"""MCP over HTTP, one fault for each path, with the expected result beside it. Prints its base URL.

/sse-error   every reply is an SSE `event: error` with the JSON-RPC error "boom". Right: mcp.rpc_error, code and "boom".
/disc-close  drops the connection at `server/discover`, and otherwise speaks 2025-06-18. Right: pass.
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RESULTS: dict[str, Any] = {
    "initialize": {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "x", "version": "1"},
    },
    "tools/list": {"tools": []},
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def respond(self, status: int, body: bytes = b"", content_type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.respond(405)

    def do_DELETE(self) -> None:
        self.respond(405)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        id_, method = request.get("id"), request.get("method")
        if id_ is None:
            self.respond(202)
        elif self.path == "/sse-error":
            error = {"jsonrpc": "2.0", "id": id_, "error": {"code": -32000, "message": "boom"}}
            self.respond(200, b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n", "text/event-stream")
        elif method == "server/discover" and self.path == "/disc-close":
            self.close_connection = True
            self.connection.close()
        else:
            result = RESULTS.get(method)
            outcome = {"result": result} if result else {"error": {"code": -32601, "message": "Method not found"}}
            self.respond(200, json.dumps({"jsonrpc": "2.0", "id": id_, **outcome}).encode())


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
