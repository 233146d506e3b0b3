"""A job API whose third job is lost: whenever it is asked about it, it responds 404 {"status": "not_found"}. All others
complete within about a second. Prints its URL.
"""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LOST_JOB_ID, JOB_DURATION_S = "3", 1
started_at_by_job: dict[str, float] = {}


class JobHandler(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...

    def respond(self, status: int, body: dict[str, str]) -> None:
        encoded = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        job_id = str(len(started_at_by_job) + 1)
        started_at_by_job[job_id] = time.time()
        self.respond(202, {"job_id": job_id})

    def do_GET(self) -> None:
        job_id = self.path.rsplit("/", 1)[-1]
        if job_id == LOST_JOB_ID or job_id not in started_at_by_job:
            self.respond(404, {"status": "not_found"})
        else:
            done = time.time() - started_at_by_job[job_id] > JOB_DURATION_S
            self.respond(200, {"status": "completed" if done else "running"})


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), JobHandler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
