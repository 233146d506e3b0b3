"""Canary jobs through an HTTP API: every stage and every failure."""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from tests.support.job_api import FakeJobApi, ScriptedResponse
from tests.support.ports import find_free_port
from tests.support.probe_runs import canary_probe, earlier_sentinel, outstanding_ids, run_probe, short_canary_probe
from watchdog.config.load import load_config
from watchdog.domain.model import Json, Outcome, ResultToRecord
from watchdog.probes.base import derive_slot_idempotency_key
from watchdog.queues import http

MS, S = "\N{NO-BREAK SPACE}ms", "\N{NO-BREAK SPACE}s"
STARTED = "body.status == 'running'"


@pytest.fixture
def api() -> Iterator[FakeJobApi]:
    with FakeJobApi() as api:
        yield api


def job(api: FakeJobApi, **fields: Any) -> dict[str, Any]:
    """The configuration of a canary for this API."""
    return {
        "enqueue": {"url": f"{api.url}/jobs", "json": {"kind": "noop"}},
        "poll": f"{api.url}/jobs/{{job_id}}",
        "done": "body.status == 'completed'",
        "failed": "body.status == 'failed'",
        **fields,
    }


def run(
    http: dict[str, Any], finish_within_ms: int = 10_000, *, slot: int | None = None, state: Any = None, **fields: Any
) -> ResultToRecord:
    return asyncio.run(
        run_probe(short_canary_probe({"http": http, **fields}, finish_within_ms), slot, probe_state=state)
    )


def verdict(report: ResultToRecord) -> tuple[Outcome, str, str]:
    return report.result.outcome, report.result.reason, report.result.message


def test_a_job_that_is_done_passes_with_its_stages(api: FakeJobApi) -> None:
    report = run(job(api, started=STARTED), start_within="10s")
    assert verdict(report) == (Outcome.PASS, "", "")
    assert list(report.result.phases) == ["enqueue", "pick_up", "finish"]
    assert report.result.duration is not None
    assert report.result.duration >= 200
    assert report.evidence.facts["sentinel"] == "job/1"
    assert "picked_up" not in report.evidence.facts
    assert report.state_updates == {}


def test_the_nonce_is_substituted_and_sent_once(api: FakeJobApi) -> None:
    enqueue = {
        "url": f"{api.url}/jobs?canary={{nonce}}",
        "headers": {"X-Canary": "{nonce}"},
        "json": {"kind": "noop", "tags": ["canary-{nonce}"]},
    }
    report = run(job(api, enqueue=enqueue))
    (post,) = api.received_posts()
    key = derive_slot_idempotency_key("pipeline", report.result.slot)
    assert post.path == f"/jobs?canary={key}"
    assert (post.headers["idempotency-key"], post.headers["x-canary"]) == (key, key)
    assert post.json == {"kind": "noop", "tags": [f"canary-{key}"]}
    assert {request.path for request in api.received if request.method == "GET"} == {"/jobs/job%2F1"}


def test_a_stage_that_is_not_shown(api: FakeJobApi) -> None:
    report = run(job(api))
    assert report.result.outcome is Outcome.PASS
    assert list(report.result.phases) == ["enqueue", "finish"]
    assert report.evidence.facts["picked_up"] == "not shown by HTTP"


def test_no_worker(api: FakeJobApi) -> None:
    api.worker_behavior = "nothing"
    with_started = run(job(api, started=STARTED), start_within="3s")
    assert verdict(with_started) == (Outcome.FAIL, "canary.not_picked_up", f"canary job not picked up within 3{S}")
    assert with_started.evidence.facts["polled"] == f"{api.url}/jobs/job%2F1"
    head, _, body = with_started.evidence.excerpt.partition("\n\n")
    assert head.startswith("HTTP/1.0 200 OK")
    assert json.loads(body)["status"] == "queued"
    without_started = run(job(api), 3_000)
    assert verdict(without_started) == (Outcome.FAIL, "canary.not_finished", f"canary job not finished within 3{S}")
    assert outstanding_ids(without_started) == ["job/2"]


def test_a_job_that_hangs_blocks_two_slots(api: FakeJobApi) -> None:
    api.worker_behavior = "hang"
    first = run(job(api, started=STARTED), 3_000)
    assert verdict(first)[:2] == (Outcome.FAIL, "canary.not_finished")
    assert first.result.message.startswith("canary job picked up after ")
    assert first.evidence.facts["progress"] == 50
    assert outstanding_ids(first) == ["job/1"]

    second = run(job(api, started=STARTED), 3_000, state=first.state_updates)
    third = run(job(api, started=STARTED), 3_000, state=second.state_updates)
    for report in (second, third):
        assert verdict(report)[:2] == (Outcome.FAIL, "canary.not_finished")
        assert re.fullmatch("canary job picked up after .+, but not finished for .+", report.result.message)
        assert outstanding_ids(report) == ["job/1"]
    assert len(api.received_posts()) == 1

    api.worker_behavior = "return"
    fourth = run(job(api, started=STARTED), state=third.state_updates)
    assert verdict(fourth) == (Outcome.PASS, "", "")
    assert (len(api.received_posts()), fourth.state_updates) == (2, {})
    api.jobs["job/1"]["status"] = "completed"
    assert run(job(api), state=third.state_updates).state_updates == {"sentinel": None}


@pytest.mark.parametrize("status", ["completed", "failed", "not_found", "missing", "expired", "gone"])
def test_an_earlier_job_that_has_ended_does_not_block(api: FakeJobApi, status: str) -> None:
    api.jobs["job/0"] = {"id": "job/0", "status": status}
    report = run(job(api), state=earlier_sentinel("job/0"))
    assert (report.result.outcome, report.state_updates) == (Outcome.PASS, {"sentinel": None})
    assert api.received[0].path == "/jobs/job%2F0"


def test_nothing_is_sent_while_the_state_of_the_earlier_job_is_unknown(api: FakeJobApi) -> None:
    """For two slots."""
    api.scripted_responses["GET"] = deque([ScriptedResponse(503)])
    report = run(job(api), state=earlier_sentinel("job/0"))
    assert verdict(report) == (Outcome.FAIL, "canary.poll_failed", "poll returned HTTP 503")
    assert api.received_posts() == []
    assert outstanding_ids(report) == ["job/0"]
    api.scripted_responses["GET"] = deque([ScriptedResponse(503), ScriptedResponse(200, {"status": "completed"})])
    run(job(api), state=earlier_sentinel("job/0", blocked_slots=2))
    assert len(api.received_posts()) == 1


def test_a_job_that_fails_reports_its_error(api: FakeJobApi) -> None:
    api.worker_behavior = "throw"
    assert verdict(run(job(api))) == (Outcome.FAIL, "job.failed", "the job failed: no template for noop")
    configured = run(job(api, error="'code ' + string(body.error.code)"))
    assert verdict(configured) == (Outcome.FAIL, "job.failed", "the job failed: code 7")
    failing_expression = run(job(api, error="body.errors"))
    assert verdict(failing_expression)[2].startswith(
        "the job failed: body.errors cannot be computed: body has no field 'errors'"
    )


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (
            ScriptedResponse(503, {"error": "redis: connection refused"}),
            "HTTP 503: redis: connection refused",
        ),
        (ScriptedResponse(303), "HTTP 303"),
        (ScriptedResponse(401, {"error": "token expired"}), "HTTP 401: token expired"),
        (ScriptedResponse(404, {"message": "unknown queue mails"}), "HTTP 404: unknown queue mails"),
        (ScriptedResponse(500), "HTTP 500"),
    ],
)
def test_a_job_that_is_not_accepted(api: FakeJobApi, response: ScriptedResponse, message: str) -> None:
    """The message names the request, without its query."""
    api.scripted_responses["POST"] = deque([response])
    report = run(job(api, enqueue=f"{api.url}/jobs?key=hush"))
    message = f"canary job not enqueued: POST {api.url}/jobs returned {message}"
    assert verdict(report) == (Outcome.FAIL, "canary.enqueue_failed", message)
    assert report.evidence.facts["status"] == response.status
    assert report.evidence.excerpt.startswith(f"HTTP/1.0 {response.status} ")
    assert report.state_updates == {}


def test_a_server_that_is_down(api: FakeJobApi) -> None:
    enqueue = {"url": f"http://127.0.0.1:{find_free_port()}/jobs"}
    assert verdict(run(job(api, enqueue=enqueue))) == (Outcome.FAIL, "connection.refused", "connection refused")


def test_an_enqueue_without_a_response_is_reported_within_the_limit(api: FakeJobApi) -> None:
    api.scripted_responses["POST"] = deque([ScriptedResponse(202, delay_s=2)])
    report = run(job(api), 300)
    assert verdict(report)[:2] == (Outcome.FAIL, "timeout.first_byte")
    assert report.result.message.startswith(f"timed out after 300{MS}")


def test_a_slow_server(api: FakeJobApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HTTP_ENQUEUE_TIMEOUT_S", 0.2)
    api.scripted_responses["POST"] = deque([ScriptedResponse(202, delay_s=0.5)])
    report = run(job(api))
    assert verdict(report)[:2] == (Outcome.FAIL, "timeout.first_byte")
    assert report.result.message.endswith(" while waiting for the first byte")


@pytest.mark.parametrize(
    ("fields", "answer", "problem"),
    [
        ({}, {"uuid": "7"}, "neither job_id nor id in its body"),
        ({}, {"id": None}, "neither job_id nor id in its body"),
        ({}, ["7"], "neither job_id nor id in its body"),
        ({"job_id": "body.uid"}, {"uuid": "7"}, "body.uid cannot be computed: body has no field 'uid'; it has 'uuid'"),
        ({"job_id": "body.uuid"}, {"uuid": ["7"]}, "body.uuid is not an id"),
        ({"job_id": "body.uuid"}, {"uuid": "7" * 501}, "body.uuid is not an id"),
    ],
)
def test_a_response_without_a_job_id(api: FakeJobApi, fields: dict[str, str], answer: Json, problem: str) -> None:
    api.scripted_responses["POST"] = deque([ScriptedResponse(200, answer)])
    message = f"the response to enqueue has no job id: {problem}"
    assert verdict(run(job(api, **fields))) == (Outcome.FAIL, "canary.job_id_missing", message)


@pytest.mark.parametrize(
    ("fields", "answer", "path"),
    [
        ({}, {"job_id": 17, "id": "x"}, "/jobs/17"),
        ({}, {"id": "a b?c=/d#é"}, "/jobs/a%20b%3Fc%3D%2Fd%23%C3%A9"),
        ({"job_id": "body.data.uuid"}, {"data": {"uuid": "7-8"}}, "/jobs/7-8"),
        ({"job_id": "headers['content-type']"}, {}, "/jobs/application%2Fjson"),
    ],
)
def test_the_job_id_in_the_response(api: FakeJobApi, fields: dict[str, str], answer: Json, path: str) -> None:
    api.scripted_responses = {
        "POST": deque([ScriptedResponse(200, answer)]),
        "GET": deque([ScriptedResponse(200, {"status": "completed"})]),
    }
    assert run(job(api, **fields)).result.outcome is Outcome.PASS
    assert api.received[-1].path == path


def test_a_job_that_is_identified_by_the_nonce(api: FakeJobApi) -> None:
    api.scripted_responses = {
        "POST": deque([ScriptedResponse(201)]),
        "GET": deque([ScriptedResponse(200, {"status": "completed"})]),
    }
    report = run(job(api, enqueue=f"{api.url}/jobs/{{nonce}}", poll=f"{api.url}/jobs/{{nonce}}"))
    key = derive_slot_idempotency_key("pipeline", report.result.slot)
    assert report.result.outcome is Outcome.PASS
    assert {request.path for request in api.received} == {f"/jobs/{key}"}
    assert report.evidence.facts["sentinel"] == key


def test_a_job_that_no_longer_exists_is_lost(api: FakeJobApi) -> None:
    api.scripted_responses["GET"] = deque([ScriptedResponse(200, {"status": "queued"}), ScriptedResponse(404)])
    report = run(job(api))
    assert verdict(report) == (Outcome.FAIL, "canary.lost", "canary job lost: poll returned HTTP 404")
    assert report.state_updates == {}


GONE = "body.error == 'no such job'"


@pytest.mark.parametrize(
    ("sentence", "fields", "response", "is_lost"),
    [
        ("a status word", {}, ScriptedResponse(200, {"status": "not_found"}), True),
        ("a state", {}, ScriptedResponse(200, {"state": "Gone"}), True),
        ("with a client error", {}, ScriptedResponse(400, {"status": "missing"}), True),
        ("410", {}, ScriptedResponse(410), True),
        ("404, and another expression refers to the status",
         {"done": "status == 200 && body.status == 'completed'"}, ScriptedResponse(404), True),
        ("an expression", {"lost": GONE}, ScriptedResponse(200, {"error": "no such job"}), True),
        ("an expression on an error response", {"lost": GONE}, ScriptedResponse(500, {"error": "no such job"}), True),
        ("an expression on the status", {"lost": "status == 422"}, ScriptedResponse(422), True),
        ("the expression replaces the status words", {"lost": GONE}, ScriptedResponse(200, {"status": "gone"}), False),
        ("the expression replaces 404", {"lost": GONE}, ScriptedResponse(404, {"error": "moved"}), False),
        ("a proxy's error page", {"lost": GONE}, ScriptedResponse(502), False),
        ("a server error with such a word", {}, ScriptedResponse(503, {"status": "missing"}), False),
        ("the word means something else here", {"started": "body.status == 'missing'"},
         ScriptedResponse(200, {"status": "missing"}), False),
    ],
)  # fmt: skip
def test_lost_jobs(
    api: FakeJobApi, sentence: str, fields: dict[str, str], response: ScriptedResponse, is_lost: bool
) -> None:
    api.scripted_responses["GET"] = deque([response])
    # A job that is not lost is polled until its limit: that of an earlier run has passed.
    report = run(job(api, **fields), state=None if is_lost else earlier_sentinel("job/1"))
    assert (report.result.reason == "canary.lost") is is_lost, (sentence, report.result.message)
    assert report.result.outcome is Outcome.FAIL
    assert (report.state_updates == {}) is is_lost


def test_a_failed_poll_is_retried(api: FakeJobApi) -> None:
    dropped, busy = ScriptedResponse(0, drop_connection=True), ScriptedResponse(503)
    api.scripted_responses["GET"] = deque(
        [dropped, busy, ScriptedResponse(429), ScriptedResponse(200, {"status": "completed"})]
    )
    assert verdict(run(job(api))) == (Outcome.PASS, "", "")


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (
            ScriptedResponse(0, drop_connection=True),
            "poll failed: connection closed by the server while waiting for the first byte",
        ),
        (ScriptedResponse(503, {"error": "busy"}), "poll returned HTTP 503: busy"),
        (ScriptedResponse(500, {"status": "failed"}), 'poll returned HTTP 500: {"status": "failed"}'),
    ],
)
def test_polls_that_fail_until_the_deadline(api: FakeJobApi, response: ScriptedResponse, message: str) -> None:
    api.scripted_responses["GET"] = deque([response])
    report = run(job(api), 3_000)
    assert verdict(report) == (Outcome.FAIL, "canary.poll_failed", message)
    assert list(report.result.phases) == ["enqueue"]
    assert report.evidence.facts["sentinel"] == "job/1"
    assert outstanding_ids(report) == ["job/1"]


def test_a_poll_by_post_has_no_idempotency_key(api: FakeJobApi) -> None:
    api.scripted_responses["POST"] = deque(
        [ScriptedResponse(200, {"id": 7}), ScriptedResponse(200, {"status": "completed"})]
    )
    poll = {"url": f"{api.url}/jobs/{{job_id}}", "method": "POST"}
    assert verdict(run(job(api, poll=poll))) == (Outcome.PASS, "", "")
    assert ["idempotency-key" in request.headers for request in api.received_posts()] == [True, False]


def test_expressions_on_the_status_of_a_poll(api: FakeJobApi) -> None:
    api.scripted_responses["GET"] = deque([ScriptedResponse(404), ScriptedResponse(410)])
    fields_by_status = job(api, done="status == 410", failed="status == 500", started="status == 404")
    assert verdict(run(fields_by_status)) == (Outcome.PASS, "", "")
    api.scripted_responses["GET"] = deque([ScriptedResponse(500, {"message": "out of paper"})])
    assert verdict(run(fields_by_status)) == (Outcome.FAIL, "job.failed", "the job failed: out of paper")


def test_an_expression_that_cannot_be_computed(api: FakeJobApi) -> None:
    report = run(job(api, done="body.state == 'completed'"), 3_000)
    problem = "body.state == 'completed' cannot be computed: body has no field 'state'; it has 'status'"
    assert verdict(report) == (
        Outcome.FAIL,
        "canary.not_finished",
        f"canary job not finished within 3{S}: {problem}",
    )


def test_secrets_in_responses_are_masked(api: FakeJobApi) -> None:
    text = f"""
probes:
  - name: Pipeline
    every: 5m
    canary:
      http:
        enqueue: {{url: "{api.url}/jobs", headers: {{X-Api-Key: hush-hush-1}}, auth: {{bearer: s3cret-of-api}}}}
        poll: "{api.url}/jobs/{{job_id}}"
        done: body.ok
"""
    api.scripted_responses["POST"] = deque([ScriptedResponse(401, {"error": "not hush-hush-1, nor s3cret-of-api"})])
    loaded = load_config(None, text, {})
    report = asyncio.run(run_probe(loaded.config.probes[0], mask=loaded.mask))
    assert api.received_posts()[0].headers["x-api-key"] == "hush-hush-1"
    assert api.received_posts()[0].headers["authorization"] == "Bearer s3cret-of-api"
    assert report.result.message == f"canary job not enqueued: POST {api.url}/jobs returned HTTP 401: not •••, nor •••"
    assert not {"hush-hush-1", "s3cret-of-api"} & {word.strip('",') for word in repr(report).split()}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"poll": "http://x/jobs"}, "expected a URL that contains either {job_id} or {nonce}"),
        ({"poll": "http://x/{job_id}/{nonce}"}, "expected a URL that contains either {job_id} or {nonce}"),
        ({"done": "body.status = 'x'"}, "write == instead of ="),
        ({"done": "1"}, "returns a whole number, not true or false"),
        ({"done": ""}, "an expression is empty"),
        ({"failed": "result.x"}, "unknown name 'result.x'"),
        ({"job_id": "string(body.id"}, "')' is missing at the end"),
        ({"enqueue": {"url": "http://x", "method": "GET", "json": 1}}, "GET requests have no body"),
        ({"enqueue": "http://{nonce}/"}, "invalid host name"),
    ],
)
def test_invalid_configuration_is_refused(api: FakeJobApi, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=r".") as caught:
        canary_probe({"http": job(api, **fields)})
    assert message in str(caught.value)


def test_unsupported_options_are_refused(api: FakeJobApi) -> None:
    with pytest.raises(
        ValidationError, match="HTTP does not show when a job is picked up: remove start_within, or set http"
    ):
        canary_probe({"http": job(api), "start_within": "1s"})
    with pytest.raises(ValidationError, match="not supported for HTTP"):
        canary_probe({"http": job(api), "payload": {"a": 1}})
    with pytest.raises(ValidationError, match=r"`every` must be at least 32s \(finish_within 30s \+ 2s\)"):
        canary_probe({"http": job(api)}, every="31s")
