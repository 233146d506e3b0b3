"""Responses to the requests of an HTTP canary over 64 KiB are read in the worker process."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.support.scripted_servers import http_response, running_server, send_parts
from watchdog.domain.observations import CanaryJobPollResult, CanaryJobStage
from watchdog.net import NetworkAccess, PhaseTimer, ProbeError
from watchdog.net.http import HttpRequest
from watchdog.queues.http import HttpCanary, build_poll_result_from_response, parse_enqueue_response_job_id

CONFIG = HttpCanary.model_validate({
    "enqueue": {"url": "http://127.0.0.1:1/jobs", "json": {"kind": "noop"}, "auth": {"bearer": "a-secret-token"}},
    "poll": "http://127.0.0.1:1/jobs/{job_id}",
    "done": "body.state == 'ready' && body.items.all(x, x == 1)",
    "failed": "body.state == 'broken'",
})  # fmt: skip


def judge(function: Any, body: Any, *args: object, status: str = "200 OK") -> Any:
    """What the worker returns for the response."""
    raw = http_response(json.dumps(body).encode(), status, Content_Type="application/json")

    async def script() -> Any:
        async with running_server(send_parts(raw)) as server, NetworkAccess() as network:
            response = await network.send_http_request(HttpRequest(server.url_of()))
            assert response.needs_worker_process(loops=CONFIG.has_looping_expression)
            return await network.run_cpu_work_inline_or_in_worker(
                PhaseTimer(), function, response, CONFIG, *args, in_worker=True
            )

    return asyncio.run(script())


def test_the_state_of_a_job_in_a_large_response() -> None:
    items, pad = [1] * 8_000, "x" * 70_000
    assert judge(
        build_poll_result_from_response, {"state": "ready", "items": items, "pad": pad}
    ) == CanaryJobPollResult(CanaryJobStage.DONE)
    broken = judge(
        build_poll_result_from_response, {"state": "broken", "items": items, "pad": pad, "error": "disk full"}
    )
    assert (broken.stage, broken.error) == (CanaryJobStage.FAILED, "disk full")


def test_the_id_of_a_job_in_a_large_response_and_a_refusal() -> None:
    body = {"job_id": "j7", "pad": "x" * 70_000}
    assert judge(parse_enqueue_response_job_id, body, "nonce") == "j7"
    with pytest.raises(ProbeError) as caught:
        judge(parse_enqueue_response_job_id, {"error": "queue is full", **body}, "nonce", status="503 Busy")
    assert caught.value.reason == "canary.enqueue_failed"
    assert "queue is full" in caught.value.message
    assert caught.value.facts["status"] == 503
