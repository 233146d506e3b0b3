"""A sentinel through a job API over HTTP: every stage, and every way to fail."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from tests.support.job_api import FakeJobApi, ScriptedResponse
from tests.support.probe_runs import canary_probe, run_probe, short_canary_probe
from tests.support.third_party import find_free_port
from watchdog.config.load import load_config
from watchdog.domain.model import Json, Outcome, RecordedResult
from watchdog.probes.base import derive_idempotency_key
from watchdog.queues import http
from watchdog.service.clock import wall_clock_ms

MS = "\N{NO-BREAK SPACE}ms"
STARTED = "body.status == 'running'"


@pytest.fixture
def api() -> Iterator[FakeJobApi]:
    with FakeJobApi() as api:
        yield api


def job(api: FakeJobApi, **fields: Any) -> dict[str, Any]:
    """A job of this API as configured."""
    return {
        "enqueue": {"url": f"{api.url}/jobs", "json": {"kind": "noop"}},
        "poll": f"{api.url}/jobs/{{job_id}}",
        "done": "body.status == 'completed'",
        "failed": "body.status == 'failed'",
        **fields,
    }


def run(
    http: dict[str, Any], finish: int = 2_000, *, slot: int | None = None, memory: Any = None, **more: Any
) -> RecordedResult:
    return asyncio.run(run_probe(short_canary_probe({"http": http, **more}, finish), slot, probe_state=memory))


def told(report: RecordedResult) -> tuple[Outcome, str, str]:
    return report.result.outcome, report.result.reason, report.result.message


def test_a_job_that_is_done_passes_with_its_stages(api: FakeJobApi) -> None:
    report = run(job(api, started=STARTED), start_within="1s")
    assert told(report) == (Outcome.PASS, "", "")
    assert list(report.result.phases) == ["enqueue", "pick_up", "finish"]
    assert 200 <= (report.result.duration or 0) < 2_000
    assert report.evidence.facts["sentinel"] == "job/1"
    assert "picked_up" not in report.evidence.facts
    assert report.state_updates == {}


def test_it_is_sent_once_with_its_own_id(api: FakeJobApi) -> None:
    enqueue = {
        "url": f"{api.url}/jobs?canary={{nonce}}",
        "headers": {"X-Canary": "{nonce}"},
        "json": {"kind": "noop", "tags": ["canary-{nonce}"]},
    }
    report = run(job(api, enqueue=enqueue))
    (post,) = api.received_posts()
    key = derive_idempotency_key("pipeline", report.result.slot)
    assert post.path == f"/jobs?canary={key}"
    assert (post.headers["idempotency-key"], post.headers["x-canary"]) == (key, key)
    assert post.json == {"kind": "noop", "tags": [f"canary-{key}"]}
    assert {asked.path for asked in api.received if asked.method == "GET"} == {"/jobs/job%2F1"}


def test_a_stage_that_is_not_shown_is_not_made_up(api: FakeJobApi) -> None:
    report = run(job(api))
    assert report.result.outcome is Outcome.PASS
    assert list(report.result.phases) == ["enqueue", "finish"]
    assert report.evidence.facts["picked_up"] == "not shown by HTTP"


def test_nobody_works(api: FakeJobApi) -> None:
    api.worker_behavior = "nothing"
    seen = run(job(api, started=STARTED), start_within="500ms")
    assert told(seen) == (Outcome.FAIL, "canary.not_picked_up", f"not picked up within 500{MS}")
    unseen = run(job(api), 600)
    assert told(unseen) == (Outcome.FAIL, "canary.not_finished", f"not finished within 600{MS}")
    assert unseen.state_updates == {"sentinel": {"job_id": "job/2", "slot": unseen.result.slot}}


def test_a_job_that_hangs_is_not_followed_by_another_until_it_is_gone(api: FakeJobApi) -> None:
    api.worker_behavior = "hang"
    first = run(job(api, started=STARTED), 600)
    slot = first.result.slot
    assert told(first)[1:] == ("canary.not_finished", first.result.message)
    assert first.result.message.startswith("picked up after ")
    assert first.evidence.facts["progress"] == 50
    assert first.state_updates == {"sentinel": {"job_id": "job/1", "slot": slot}}

    soon = run(job(api), 600, slot=slot + 1_000, memory=first.state_updates)
    assert told(soon)[:2] == (Outcome.ERROR, "canary.in_flight")
    late = run(job(api), 600, slot=slot, memory={"sentinel": {"job_id": "job/1", "slot": slot - 3_600_000}})
    assert told(late)[:2] == (Outcome.FAIL, "canary.not_finished")
    assert late.result.message.endswith("still running, so no other was sent")
    assert late.state_updates == {"sentinel": {"job_id": "job/1", "slot": slot - 3_600_000}}
    assert len(api.received_posts()) == 1

    del api.jobs["job/1"]
    api.worker_behavior = "return"
    again = run(job(api), slot=slot, memory=late.state_updates)
    assert told(again) == (Outcome.PASS, "", "")
    assert again.state_updates == {"sentinel": None}


def test_one_that_is_said_to_run_for_ever_is_forgotten_after_a_day(api: FakeJobApi) -> None:
    api.jobs["job/0"] = {"id": "job/0", "status": "running"}
    slot, day = wall_clock_ms(), 86_400_000
    blocked = run(job(api), slot=slot, memory={"sentinel": {"job_id": "job/0", "slot": slot - day}})
    assert told(blocked)[1] == "canary.not_finished"
    assert api.received_posts() == []
    assert (
        run(job(api), slot=slot, memory={"sentinel": {"job_id": "job/0", "slot": slot - day - 1}}).result.outcome
        is Outcome.PASS
    )


def test_one_that_ended_meanwhile_lets_the_next_be_sent(api: FakeJobApi) -> None:
    for status in ("completed", "failed"):
        api.jobs["job/0"] = {"id": "job/0", "status": status}
        assert (
            run(job(api), memory={"sentinel": {"job_id": "job/0", "slot": wall_clock_ms() - 60_000}}).result.outcome
            is Outcome.PASS
        )
        assert api.received[0].path == "/jobs/job%2F0"


def test_nothing_is_sent_while_nobody_can_say_how_the_last_one_is(api: FakeJobApi) -> None:
    api.scripted_responses["GET"] = deque([ScriptedResponse(503)])
    report = run(job(api), memory={"sentinel": {"job_id": "job/0", "slot": wall_clock_ms() - 60_000}})
    assert told(report) == (Outcome.FAIL, "canary.poll_failed", "poll returned HTTP 503")
    assert api.received_posts() == []
    assert report.state_updates == {}


def test_a_job_that_fails_tells_why(api: FakeJobApi) -> None:
    api.worker_behavior = "throw"
    assert told(run(job(api))) == (Outcome.FAIL, "job.failed", "the job failed: no template for noop")
    own = run(job(api, error="'code ' + string(body.error.code)"))
    assert told(own) == (Outcome.FAIL, "job.failed", "the job failed: code 7")
    wrong = run(job(api, error="body.errors"))
    assert told(wrong)[2].startswith("the job failed: body.errors cannot be computed: body has no field 'errors'")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            ScriptedResponse(503, {"error": "redis: connection refused"}),
            "enqueue returned HTTP 503: redis: connection refused",
        ),
        (ScriptedResponse(303), "enqueue returned HTTP 303"),
    ],
)
def test_a_job_that_is_not_taken(api: FakeJobApi, said: ScriptedResponse, message: str) -> None:
    api.scripted_responses["POST"] = deque([said])
    report = run(job(api))
    assert told(report) == (Outcome.FAIL, "canary.enqueue_failed", message)
    assert report.evidence.facts["status"] == said.status
    assert report.evidence.excerpt.startswith(f"HTTP/1.0 {said.status} ")
    assert report.state_updates == {}


def test_a_server_that_is_down(api: FakeJobApi) -> None:
    enqueue = {"url": f"http://127.0.0.1:{find_free_port()}/jobs"}
    assert told(run(job(api, enqueue=enqueue))) == (Outcome.FAIL, "connection.refused", "connection refused")


def test_a_server_that_takes_too_long(api: FakeJobApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ENQUEUE_TIMEOUT_S", 0.2)
    api.scripted_responses["POST"] = deque([ScriptedResponse(202, delay_s=0.5)])
    report = run(job(api))
    assert told(report)[:2] == (Outcome.FAIL, "timeout.exceeded")
    assert report.result.message.endswith(" while waiting for the first byte")


@pytest.mark.parametrize(
    ("fields", "answer", "why"),
    [
        ({}, {"uuid": "7"}, "neither job_id nor id in its body"),
        ({}, {"id": None}, "neither job_id nor id in its body"),
        ({}, ["7"], "neither job_id nor id in its body"),
        ({"job_id": "body.uid"}, {"uuid": "7"}, "body.uid cannot be computed: body has no field 'uid'; it has 'uuid'"),
        ({"job_id": "body.uuid"}, {"uuid": ["7"]}, "body.uuid is not an id"),
        ({"job_id": "body.uuid"}, {"uuid": "7" * 501}, "body.uuid is not an id"),
    ],
)
def test_an_answer_that_names_no_job(api: FakeJobApi, fields: dict[str, str], answer: Json, why: str) -> None:
    api.scripted_responses["POST"] = deque([ScriptedResponse(200, answer)])
    message = f"the response to enqueue has no job id: {why}"
    assert told(run(job(api, **fields))) == (Outcome.FAIL, "canary.job_id_missing", message)


@pytest.mark.parametrize(
    ("fields", "answer", "path"),
    [
        ({}, {"job_id": 17, "id": "x"}, "/jobs/17"),
        ({}, {"id": "a b?c=/d#é"}, "/jobs/a%20b%3Fc%3D%2Fd%23%C3%A9"),
        ({"job_id": "body.data.uuid"}, {"data": {"uuid": "7-8"}}, "/jobs/7-8"),
        ({"job_id": "headers['content-type']"}, {}, "/jobs/application%2Fjson"),
    ],
)
def test_where_the_id_of_a_job_is_found(api: FakeJobApi, fields: dict[str, str], answer: Json, path: str) -> None:
    api.scripted_responses = {
        "POST": deque([ScriptedResponse(200, answer)]),
        "GET": deque([ScriptedResponse(200, {"status": "completed"})]),
    }
    assert run(job(api, **fields)).result.outcome is Outcome.PASS
    assert api.received[-1].path == path


def test_a_job_that_is_named_by_us(api: FakeJobApi) -> None:
    api.scripted_responses = {
        "POST": deque([ScriptedResponse(201)]),
        "GET": deque([ScriptedResponse(200, {"status": "completed"})]),
    }
    report = run(job(api, enqueue=f"{api.url}/jobs/{{nonce}}", poll=f"{api.url}/jobs/{{nonce}}"))
    key = derive_idempotency_key("pipeline", report.result.slot)
    assert report.result.outcome is Outcome.PASS
    assert {asked.path for asked in api.received} == {f"/jobs/{key}"}
    assert report.evidence.facts["sentinel"] == key


def test_a_job_that_is_not_there_any_more_has_vanished(api: FakeJobApi) -> None:
    api.scripted_responses["GET"] = deque([ScriptedResponse(200, {"status": "queued"}), ScriptedResponse(404)])
    message = "the sentinel job disappeared before it was picked up"
    report = run(job(api))
    assert told(report) == (Outcome.FAIL, "canary.lost", message)
    assert report.state_updates == {}


def test_a_poll_that_fails_is_tried_again(api: FakeJobApi) -> None:
    cut, busy = ScriptedResponse(0, drop_connection=True), ScriptedResponse(503)
    api.scripted_responses["GET"] = deque(
        [cut, busy, ScriptedResponse(429), ScriptedResponse(200, {"status": "completed"})]
    )
    assert told(run(job(api))) == (Outcome.PASS, "", "")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            ScriptedResponse(0, drop_connection=True),
            "poll failed: connection closed by the server while waiting for the first byte",
        ),
        (ScriptedResponse(503, {"error": "busy"}), "poll returned HTTP 503"),
        (ScriptedResponse(500, {"status": "failed"}), "poll returned HTTP 500"),
    ],
)
def test_a_poll_that_fails_until_it_is_too_late(api: FakeJobApi, said: ScriptedResponse, message: str) -> None:
    api.scripted_responses["GET"] = deque([said])
    report = run(job(api), 600)
    assert told(report) == (Outcome.FAIL, "canary.poll_failed", message)
    assert list(report.result.phases) == ["enqueue"]
    assert report.evidence.facts["sentinel"] == "job/1"
    assert report.state_updates == {"sentinel": {"job_id": "job/1", "slot": report.result.slot}}


def test_a_poll_that_is_a_post_is_not_answered_from_a_memory_of_keys(api: FakeJobApi) -> None:
    api.scripted_responses["POST"] = deque(
        [ScriptedResponse(200, {"id": 7}), ScriptedResponse(200, {"status": "completed"})]
    )
    poll = {"url": f"{api.url}/jobs/{{job_id}}", "method": "POST"}
    assert told(run(job(api, poll=poll))) == (Outcome.PASS, "", "")
    assert ["idempotency-key" in asked.headers for asked in api.received_posts()] == [True, False]


def test_the_status_of_a_poll_may_be_what_tells(api: FakeJobApi) -> None:
    api.scripted_responses["GET"] = deque([ScriptedResponse(404), ScriptedResponse(410)])
    gone = job(api, done="status == 410", failed="status == 500", started="status == 404")
    assert told(run(gone)) == (Outcome.PASS, "", "")
    api.scripted_responses["GET"] = deque([ScriptedResponse(500, {"message": "out of paper"})])
    assert told(run(gone)) == (Outcome.FAIL, "job.failed", "the job failed: out of paper")


def test_an_expression_that_cannot_be_computed_says_why(api: FakeJobApi) -> None:
    report = run(job(api, done="body.state == 'completed'"), 600)
    why = "body.state == 'completed' cannot be computed: body has no field 'state'; it has 'status'"
    assert told(report) == (Outcome.FAIL, "canary.not_finished", f"not finished within 600{MS}: {why}")


def test_a_secret_that_comes_back_is_masked(api: FakeJobApi) -> None:
    text = f"""
probes:
  - name: Pipeline
    every: 5m
    canary:
      http:
        enqueue: {{url: "{api.url}/jobs", headers: {{X-Api-Key: hush-hush-1}}, auth: {{bearer: s3cret}}}}
        poll: "{api.url}/jobs/{{job_id}}"
        done: body.ok
"""
    api.scripted_responses["POST"] = deque([ScriptedResponse(401, {"error": "not hush-hush-1, nor s3cret"})])
    loaded = load_config(None, text, {})
    report = asyncio.run(run_probe(loaded.config.probes[0], mask=loaded.mask))
    assert api.received_posts()[0].headers["x-api-key"] == "hush-hush-1"
    assert api.received_posts()[0].headers["authorization"] == "Bearer s3cret"
    assert report.result.message == "enqueue returned HTTP 401: not •••, nor •••"
    assert not {"hush-hush-1", "s3cret"} & {word.strip('",') for word in repr(report).split()}


@pytest.mark.parametrize(
    ("fields", "complaint"),
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
def test_what_is_refused(api: FakeJobApi, fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=r".") as caught:
        canary_probe({"http": job(api, **fields)})
    assert complaint in str(caught.value)


def test_what_no_job_api_can_keep_is_refused(api: FakeJobApi) -> None:
    with pytest.raises(
        ValidationError, match="HTTP does not show when a job is picked up: remove start_within, or set http"
    ):
        canary_probe({"http": job(api), "start_within": "1s"})
    with pytest.raises(ValidationError, match="not supported for HTTP"):
        canary_probe({"http": job(api), "payload": {"a": 1}})
    with pytest.raises(ValidationError, match=r"`every` must be at least 48s \(finish_within 30s \+ 18s\)"):
        canary_probe({"http": job(api)}, every="40s")
