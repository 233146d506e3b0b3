"""A job API on a free port: POST /jobs enqueues a job, GET /jobs/ID returns its status, a thread runs the jobs."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler
from queue import Queue
from typing import Any, NamedTuple, Self
from urllib.parse import unquote

from tests.support.quiet_http_server import QuietHttpServer


class JobApiRequest(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    """With names in lower case."""
    json: Any


class ScriptedResponse(NamedTuple):
    status: int
    json: Any = None
    delay_s: float = 0.0
    """Seconds before the response is sent."""
    drop_connection: bool = False
    """Close the connection instead of responding."""


class FakeJobApi:
    """`worker_behavior`: return, throw, hang or nothing. `scripted_responses` replaces the responses to a method; the
    last one is repeated."""

    def __init__(self, worker_behavior: str = "return") -> None:
        self.worker_behavior = worker_behavior
        self.jobs: dict[str, dict[str, Any]] = {}
        self.received: list[JobApiRequest] = []
        self.scripted_responses: dict[str, deque[ScriptedResponse]] = {}
        self.first_id = 1
        self._work: Queue[dict[str, Any] | None] = Queue()
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                self._respond(JobApiRequest("POST", self.path, self._lower_case_headers(), json.loads(body or b"null")))

            def do_GET(self) -> None:
                self._respond(JobApiRequest("GET", self.path, self._lower_case_headers(), None))

            def _lower_case_headers(self) -> dict[str, str]:
                return {name.lower(): value for name, value in self.headers.items()}

            def _respond(self, request: JobApiRequest) -> None:
                response = api.respond(request)
                time.sleep(response.delay_s)
                if response.drop_connection:
                    self.close_connection = True
                    self.connection.close()
                    return
                body = b"" if response.json is None else json.dumps(response.json).encode()
                self.send_response(response.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = QuietHttpServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def respond(self, request: JobApiRequest) -> ScriptedResponse:
        self.received.append(request)
        if scripted := self.scripted_responses.get(request.method):
            return scripted.popleft() if len(scripted) > 1 else scripted[0]
        if request.method == "POST":
            job: dict[str, Any] = {"id": f"job/{len(self.jobs) + self.first_id}", "status": "queued"}
            if self.worker_behavior == "hang":  # at once, however late its thread runs
                job |= {"status": "running", "progress": 50}
            self.jobs[job["id"]] = job
            self._work.put(job)
            return ScriptedResponse(202, job)
        job = self.jobs.get(unquote(request.path.rpartition("/")[2]), {})
        return ScriptedResponse(200, job) if job else ScriptedResponse(404, {"error": "no such job"})

    def _work_loop(self) -> None:
        while (job := self._work.get()) is not None:
            if self.worker_behavior == "nothing":
                continue
            job |= {"status": "running", "progress": 50}
            if self.worker_behavior == "throw":
                job |= {"status": "failed", "error": {"code": 7, "message": "no template\nfor noop"}}
            elif self.worker_behavior == "return":
                time.sleep(0.4)
                job |= {"status": "completed"}

    def fail_all(self, response: ScriptedResponse) -> None:
        """Responds to everything like this."""
        self.scripted_responses = {method: deque([response]) for method in ("POST", "GET")}

    def received_posts(self) -> list[JobApiRequest]:
        return [request for request in self.received if request.method == "POST"]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        threading.Thread(target=self._work_loop, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._work.put(None)
        self._server.shutdown()
        self._server.server_close()
