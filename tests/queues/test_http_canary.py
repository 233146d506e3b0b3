"""A sentinel through a job API over HTTP: every stage, and every way to fail."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from tests.mcp_peers import free_port
from tests.queues.job_api import JobApi, Said
from tests.queues.runs import brief, canary, once
from watchdog.config import load
from watchdog.model import Json, Outcome, Report
from watchdog.probes.base import idempotency_key
from watchdog.queues import http
from watchdog.service.clock import wall

MS = "\N{NO-BREAK SPACE}ms"
STARTED = "body.status == 'running'"


@pytest.fixture
def api() -> Iterator[JobApi]:
    with JobApi() as api:
        yield api


def job(api: JobApi, **fields: Any) -> dict[str, Any]:
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
) -> Report:
    return asyncio.run(once(brief({"http": http, **more}, finish), slot, memory=memory))


def told(report: Report) -> tuple[Outcome, str, str]:
    return report.result.outcome, report.result.reason, report.result.message


def test_a_job_that_is_done_passes_with_its_stages(api: JobApi) -> None:
    report = run(job(api, started=STARTED), start_within="1s")
    assert told(report) == (Outcome.PASS, "", "")
    assert list(report.result.phases) == ["enqueue", "pick_up", "finish"]
    assert 200 <= (report.result.duration or 0) < 2_000
    assert report.evidence.facts["sentinel"] == "job/1"
    assert "picked_up" not in report.evidence.facts
    assert report.remember == {}


def test_it_is_sent_once_with_its_own_id(api: JobApi) -> None:
    enqueue = {
        "url": f"{api.url}/jobs?canary={{nonce}}",
        "headers": {"X-Canary": "{nonce}"},
        "json": {"kind": "noop", "tags": ["canary-{nonce}"]},
    }
    report = run(job(api, enqueue=enqueue))
    (post,) = api.posts()
    key = idempotency_key("pipeline", report.result.slot)
    assert post.path == f"/jobs?canary={key}"
    assert (post.headers["idempotency-key"], post.headers["x-canary"]) == (key, key)
    assert post.json == {"kind": "noop", "tags": [f"canary-{key}"]}
    assert {asked.path for asked in api.heard if asked.method == "GET"} == {"/jobs/job%2F1"}


def test_a_stage_that_is_not_shown_is_not_made_up(api: JobApi) -> None:
    report = run(job(api))
    assert report.result.outcome is Outcome.PASS
    assert list(report.result.phases) == ["enqueue", "finish"]
    assert report.evidence.facts["picked_up"] == "HTTP does not show it"


def test_nobody_works(api: JobApi) -> None:
    api.does = "nothing"
    seen = run(job(api, started=STARTED), start_within="500ms")
    assert told(seen) == (Outcome.FAIL, "canary.not_picked_up", f"not picked up in 500{MS}")
    unseen = run(job(api), 600)
    assert told(unseen) == (Outcome.FAIL, "canary.not_finished", f"not finished in 600{MS}")
    assert unseen.remember == {"flight": ["job/2", unseen.result.slot]}


def test_a_job_that_hangs_is_not_followed_by_another_until_it_is_gone(api: JobApi) -> None:
    api.does = "hang"
    first = run(job(api, started=STARTED), 600)
    slot = first.result.slot
    assert told(first)[1:] == ("canary.not_finished", first.result.message)
    assert first.result.message.startswith("picked up after ")
    assert first.evidence.facts["progress"] == 50
    assert first.remember == {"flight": ["job/1", slot]}

    soon = run(job(api), 600, slot=slot + 1_000, memory=first.remember)
    assert told(soon)[:2] == (Outcome.ERROR, "canary.in_flight")
    late = run(job(api), 600, slot=slot, memory={"flight": ["job/1", slot - 3_600_000]})
    assert told(late)[:2] == (Outcome.FAIL, "canary.not_finished")
    assert late.result.message.endswith("still in flight: no other is sent")
    assert late.remember == {"flight": ["job/1", slot - 3_600_000]}
    assert len(api.posts()) == 1

    del api.jobs["job/1"]
    api.does = "return"
    again = run(job(api), slot=slot, memory=late.remember)
    assert told(again) == (Outcome.PASS, "", "")
    assert again.remember == {"flight": None}


def test_one_that_is_said_to_run_for_ever_is_forgotten_after_a_day(api: JobApi) -> None:
    api.jobs["job/0"] = {"id": "job/0", "status": "running"}
    slot, day = wall(), 86_400_000
    blocked = run(job(api), slot=slot, memory={"flight": ["job/0", slot - day]})
    assert told(blocked)[1] == "canary.not_finished"
    assert api.posts() == []
    assert run(job(api), slot=slot, memory={"flight": ["job/0", slot - day - 1]}).result.outcome is Outcome.PASS


def test_one_that_ended_meanwhile_lets_the_next_be_sent(api: JobApi) -> None:
    for status in ("completed", "failed"):
        api.jobs["job/0"] = {"id": "job/0", "status": status}
        assert run(job(api), memory={"flight": ["job/0", wall() - 60_000]}).result.outcome is Outcome.PASS
        assert api.heard[0].path == "/jobs/job%2F0"


def test_nothing_is_sent_while_nobody_can_say_how_the_last_one_is(api: JobApi) -> None:
    api.says["GET"] = deque([Said(503)])
    report = run(job(api), memory={"flight": ["job/0", wall() - 60_000]})
    assert told(report) == (Outcome.FAIL, "canary.poll_failed", "poll got 503")
    assert api.posts() == []
    assert report.remember == {}


def test_a_job_that_fails_tells_why(api: JobApi) -> None:
    api.does = "throw"
    assert told(run(job(api))) == (Outcome.FAIL, "job.failed", "the job failed: no template for noop")
    own = run(job(api, error="'code ' + string(body.error.code)"))
    assert told(own) == (Outcome.FAIL, "job.failed", "the job failed: code 7")
    wrong = run(job(api, error="body.errors"))
    assert told(wrong)[2].startswith("the job failed: body.errors cannot be computed: body has no field 'errors'")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (Said(503, {"error": "redis: connection refused"}), "enqueue got 503: redis: connection refused"),
        (Said(303), "enqueue got 303"),
    ],
)
def test_a_job_that_is_not_taken(api: JobApi, said: Said, message: str) -> None:
    api.says["POST"] = deque([said])
    report = run(job(api))
    assert told(report) == (Outcome.FAIL, "canary.enqueue_failed", message)
    assert report.evidence.facts["status"] == said.status
    assert report.evidence.excerpt.startswith(f"HTTP/1.0 {said.status} ")
    assert report.remember == {}


def test_a_server_that_is_down(api: JobApi) -> None:
    enqueue = {"url": f"http://127.0.0.1:{free_port()}/jobs"}
    assert told(run(job(api, enqueue=enqueue))) == (Outcome.FAIL, "connection.refused", "connection refused")


def test_a_server_that_takes_too_long(api: JobApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SENDING", 0.2)
    api.says["POST"] = deque([Said(202, hang=0.5)])
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
        ({"job_id": "body.uuid"}, {"uuid": ["7"]}, "body.uuid gives none"),
        ({"job_id": "body.uuid"}, {"uuid": "7" * 501}, "body.uuid gives none"),
    ],
)
def test_an_answer_that_names_no_job(api: JobApi, fields: dict[str, str], answer: Json, why: str) -> None:
    api.says["POST"] = deque([Said(200, answer)])
    message = f"the answer to enqueue names no job: {why}"
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
def test_where_the_id_of_a_job_is_found(api: JobApi, fields: dict[str, str], answer: Json, path: str) -> None:
    api.says = {"POST": deque([Said(200, answer)]), "GET": deque([Said(200, {"status": "completed"})])}
    assert run(job(api, **fields)).result.outcome is Outcome.PASS
    assert api.heard[-1].path == path


def test_a_job_that_is_named_by_us(api: JobApi) -> None:
    api.says = {"POST": deque([Said(201)]), "GET": deque([Said(200, {"status": "completed"})])}
    report = run(job(api, enqueue=f"{api.url}/jobs/{{nonce}}", poll=f"{api.url}/jobs/{{nonce}}"))
    key = idempotency_key("pipeline", report.result.slot)
    assert report.result.outcome is Outcome.PASS
    assert {asked.path for asked in api.heard} == {f"/jobs/{key}"}
    assert report.evidence.facts["sentinel"] == key


def test_a_job_that_is_not_there_any_more_has_vanished(api: JobApi) -> None:
    api.says["GET"] = deque([Said(200, {"status": "queued"}), Said(404)])
    message = "the sentinel vanished, before anybody was seen to pick it up"
    report = run(job(api))
    assert told(report) == (Outcome.FAIL, "canary.lost", message)
    assert report.remember == {}


def test_a_poll_that_fails_is_tried_again(api: JobApi) -> None:
    cut, busy = Said(0, cut=True), Said(503)
    api.says["GET"] = deque([cut, busy, Said(429), Said(200, {"status": "completed"})])
    assert told(run(job(api))) == (Outcome.PASS, "", "")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (Said(0, cut=True), "poll failed: connection closed by the server while waiting for the first byte"),
        (Said(503, {"error": "busy"}), "poll got 503"),
        (Said(500, {"status": "failed"}), "poll got 500"),
    ],
)
def test_a_poll_that_fails_until_it_is_too_late(api: JobApi, said: Said, message: str) -> None:
    api.says["GET"] = deque([said])
    report = run(job(api), 600)
    assert told(report) == (Outcome.FAIL, "canary.poll_failed", message)
    assert list(report.result.phases) == ["enqueue"]
    assert report.evidence.facts["sentinel"] == "job/1"
    assert report.remember == {"flight": ["job/1", report.result.slot]}


def test_a_poll_that_is_a_post_is_not_answered_from_a_memory_of_keys(api: JobApi) -> None:
    api.says["POST"] = deque([Said(200, {"id": 7}), Said(200, {"status": "completed"})])
    poll = {"url": f"{api.url}/jobs/{{job_id}}", "method": "POST"}
    assert told(run(job(api, poll=poll))) == (Outcome.PASS, "", "")
    assert ["idempotency-key" in asked.headers for asked in api.posts()] == [True, False]


def test_the_status_of_a_poll_may_be_what_tells(api: JobApi) -> None:
    api.says["GET"] = deque([Said(404), Said(410)])
    gone = job(api, done="status == 410", failed="status == 500", started="status == 404")
    assert told(run(gone)) == (Outcome.PASS, "", "")
    api.says["GET"] = deque([Said(500, {"message": "out of paper"})])
    assert told(run(gone)) == (Outcome.FAIL, "job.failed", "the job failed: out of paper")


def test_an_expression_that_cannot_be_computed_says_why(api: JobApi) -> None:
    report = run(job(api, done="body.state == 'completed'"), 600)
    why = "body.state == 'completed' cannot be computed: body has no field 'state'; it has 'status'"
    assert told(report) == (Outcome.FAIL, "canary.not_finished", f"not finished in 600{MS}: {why}")


def test_a_secret_that_comes_back_is_masked(api: JobApi) -> None:
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
    api.says["POST"] = deque([Said(401, {"error": "not hush-hush-1, nor s3cret"})])
    loaded = load(None, text, {})
    report = asyncio.run(once(loaded.config.probes[0], mask=loaded.mask))
    assert api.posts()[0].headers["x-api-key"] == "hush-hush-1"
    assert api.posts()[0].headers["authorization"] == "Bearer s3cret"
    assert report.result.message == "enqueue got 401: not •••, nor •••"
    assert not {"hush-hush-1", "s3cret"} & {word.strip('",') for word in repr(report).split()}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"poll": "http://x/jobs"}, "expected a URL with either {job_id} or {nonce} in it"),
        ({"poll": "http://x/{job_id}/{nonce}"}, "expected a URL with either {job_id} or {nonce} in it"),
        ({"done": "body.status = 'x'"}, "write == instead of ="),
        ({"done": "1"}, "gives a whole number, not true or false"),
        ({"done": ""}, "an expression is empty"),
        ({"failed": "result.x"}, "unknown name 'result.x'"),
        ({"job_id": "string(body.id"}, "a ) is missing at the end"),
        ({"enqueue": {"url": "http://x", "method": "GET", "json": 1}}, "a GET carries no body"),
        ({"enqueue": "http://{nonce}/"}, "not a host name"),
    ],
)
def test_what_is_refused(api: JobApi, fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=r".") as caught:
        canary({"http": job(api, **fields)})
    assert complaint in str(caught.value)


def test_what_no_job_api_can_keep_is_refused(api: JobApi) -> None:
    with pytest.raises(
        ValidationError, match="HTTP does not show when a job is picked up: say finish_within alone, or"
    ):
        canary({"http": job(api), "start_within": "1s"})
    with pytest.raises(ValidationError, match="what is sent stands in enqueue"):
        canary({"http": job(api), "payload": {"a": 1}})
    with pytest.raises(ValidationError, match=r"at least finish_within and 18s \(48s\)"):
        canary({"http": job(api)}, every="40s")
