"""Canary jobs behind an HTTP API: one request enqueues the job, another returns its status."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar, Self, TypeVar, TypeVarTuple, Unpack
from urllib.parse import quote

from pydantic import model_validator

from watchdog.config_types import MultiFieldValidationError
from watchdog.domain.model import Json
from watchdog.domain.observations import CanaryJobPollResult, CanaryJobStage, QueueStats
from watchdog.domain.reasons import build_reason_and_message
from watchdog.expressions import CelExpression, CelExpressionError, compile_expression
from watchdog.net.errors import ProbeError, build_timeout_error
from watchdog.net.http_evidence import (
    build_http_response_evidence_facts,
    build_response_head_and_body_excerpt,
    parse_response_body,
)
from watchdog.net.phases import PhaseTimer
from watchdog.net.targets import HttpActionTarget, HttpTarget
from watchdog.net.url import parse_http_url
from watchdog.queues.base import CanaryConnection, CanaryDriver, CanaryJobRequest, QueueConnectContext
from watchdog.queues.job_status import (
    compile_canary_stage_expressions,
    create_cel_expression_validator,
    describe_http_status_and_json_error,
    fill_braced_placeholders_in_json,
    find_canary_stage_of_status_word,
    find_canary_stage_of_true_expression,
    find_job_error_message,
    parse_job_id,
    parse_job_progress_and_total,
)

if TYPE_CHECKING:
    from watchdog.net.http import HttpResponse

HTTP_ENQUEUE_TIMEOUT_S = 10.0
_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
HTTP_CANARY_EXPRESSION_VARIABLE_TYPES: Mapping[str, str] = {
    "status": "int",
    "headers": "map(string, string)",
    "body": "dyn",
    "elapsed_ms": "int",
}


class HttpEnqueueRequest(HttpActionTarget):
    """The request that starts the canary job. `{nonce}` in its URL, headers and body is replaced by the id that
    Watchdog generates for the canary job."""


class HttpCanary(CanaryDriver):
    """A canary job that one HTTP request starts and another one polls. Expressions can use `status`, `headers`, `body`
    and `elapsed_ms`."""

    form_fields: ClassVar[tuple[str, ...]] = ("enqueue", "poll", "done", "failed")
    kind: ClassVar[str] = "http"
    example: ClassVar[str] = """
        probes:
          - name: Thumbnails
            every: 5m
            canary:
              http:
                enqueue: {url: "https://api.acme.example/jobs", method: POST, json: {kind: noop}}
                poll: "https://api.acme.example/jobs/{job_id}"
                done: "body.status == 'completed'"
                failed: "body.status == 'failed'"
              finish_within: 1m
    """
    name: ClassVar[str] = "HTTP"
    deterministic_id: ClassVar[bool] = False
    poll_interval_range_ms: ClassVar[tuple[int, int]] = (250, 2_000)
    payload_field: ClassVar[str] = "enqueue"
    pickup_hint: ClassVar[str] = "remove start_within, or set http.started"

    enqueue: HttpEnqueueRequest
    """The request that starts the job, sent with an `Idempotency-Key`. A 2xx status is expected."""
    poll: HttpTarget
    """The request that returns the state of the job. Its URL contains `{job_id}`, or `{nonce}` if the service finds the
    job by the id that Watchdog generated."""
    done: Annotated[str, create_cel_expression_validator(HTTP_CANARY_EXPRESSION_VARIABLE_TYPES)]
    """A CEL expression over the response to `poll`: true when the job is finished, such as `body.status ==
    'completed'`."""
    failed: Annotated[str, create_cel_expression_validator(HTTP_CANARY_EXPRESSION_VARIABLE_TYPES)] = ""
    """A CEL expression over the response to `poll`: true when the job has failed."""
    lost: Annotated[str, create_cel_expression_validator(HTTP_CANARY_EXPRESSION_VARIABLE_TYPES)] = ""
    """A CEL expression over the response to `poll`, even if its HTTP status is not 2xx: true when the service no longer
    has the job; default: the HTTP status is 404 or 410, or `status` or `state` in the body is `not_found`, `missing`,
    `expired`, `gone` or the like."""
    started: Annotated[str, create_cel_expression_validator(HTTP_CANARY_EXPRESSION_VARIABLE_TYPES)] = ""
    """A CEL expression over the response to `poll`: true when a worker has picked up the job. Required for
    `start_within`."""
    job_id: Annotated[
        str, create_cel_expression_validator(HTTP_CANARY_EXPRESSION_VARIABLE_TYPES, must_be_bool=False)
    ] = ""
    """A CEL expression over the response to `enqueue`: the id of the job; default: `body.job_id` or `body.id`."""
    error: Annotated[
        str, create_cel_expression_validator(HTTP_CANARY_EXPRESSION_VARIABLE_TYPES, must_be_bool=False)
    ] = ""
    """A CEL expression over the response to `poll`: the error of a failed job; default: a field such as `error` or
    `message`."""

    @model_validator(mode="after")
    def _require_placeholder_in_poll_url(self) -> Self:
        if ("{job_id}" in self.poll.url) == ("{nonce}" in self.poll.url):
            raise MultiFieldValidationError([(("poll",), "expected a URL that contains either {job_id} or {nonce}")])
        return self

    @property
    def exposes_pickup(self) -> bool:
        return bool(self.started)

    @property
    def target(self) -> str:
        return self.enqueue.target

    @property
    def sends_http_requests(self) -> bool:
        return True

    @property
    def host(self) -> str:
        return parse_http_url(self.enqueue.url).host

    @cached_property
    def job_stage_conditions(self) -> tuple[tuple[CanaryJobStage, CelExpression], ...]:
        return compile_canary_stage_expressions(
            HTTP_CANARY_EXPRESSION_VARIABLE_TYPES, self.failed, self.done, self.lost, self.started
        )

    @cached_property
    def has_looping_expression(self) -> bool:
        """Whether an expression is evaluated for each element of a body."""
        texts = (self.job_id, self.error)
        others = [
            compile_expression(text, HTTP_CANARY_EXPRESSION_VARIABLE_TYPES, must_be_bool=False)
            for text in texts
            if text
        ]
        return any(expression.loops for expression in (*others, *(e for _, e in self.job_stage_conditions)))

    @asynccontextmanager
    async def connect(self, context: QueueConnectContext) -> AsyncIterator[CanaryConnection]:
        yield _HttpCanaryConnection(self, context)


class _HttpCanaryConnection:
    def __init__(self, config: HttpCanary, context: QueueConnectContext) -> None:
        self.config, self.context = config, context

    async def send(self, sentinel: CanaryJobRequest) -> str:
        enqueue = self.config.enqueue
        templates = enqueue.model_fields_set & {"url", "headers", "body", "json_body"}
        request = enqueue.model_copy(
            update={
                name: fill_braced_placeholders_in_json(getattr(enqueue, name), nonce=sentinel.id) for name in templates
            }
        )
        timeout_s = min(HTTP_ENQUEUE_TIMEOUT_S, sentinel.send_within_s)
        response = await self._send_request(request, sentinel.id, timeout_s)
        self.context.facts["address"] = response.peer_address
        return await self._apply_function_to_response_within_time_left(
            parse_enqueue_response_job_id, response, self.config, sentinel.id
        )

    async def poll(self, job_id: str) -> CanaryJobPollResult:
        poll, encoded_id = self.config.poll, quote(job_id, safe="")
        url = fill_braced_placeholders_in_json(poll.url, job_id=encoded_id, nonce=encoded_id)
        try:
            response = await self._send_request(poll.model_copy(update={"url": url}), "", self.context.timeout_s)
        except ProbeError as error:
            raise _wrap_http_poll_error(error) from None
        self.context.facts["polled"] = poll.model_copy(update={"url": url}).target
        return await self._apply_function_to_response_within_time_left(
            build_poll_result_from_response, response, self.config
        )

    async def cancel(self, job_id: str) -> bool:
        """Jobs cannot be cancelled."""
        return False

    async def fetch_queue_stats(self) -> QueueStats:
        return QueueStats()

    async def _apply_function_to_response_within_time_left(
        self, function: Callable[[HttpResponse, Unpack[_Ts]], _T], response: HttpResponse, *args: *_Ts
    ) -> _T:
        """Within the time that is left, because a run that is cut off could not remember its sentinel."""
        import asyncio

        context, timer = self.context, PhaseTimer()
        timeout_s = context.cap_timeout_to_run_end(context.timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                in_worker = response.needs_worker_process(loops=self.config.has_looping_expression)
                return await context.network.run_cpu_work_inline_or_in_worker(
                    timer, function, response, *args, in_worker=in_worker
                )
        except TimeoutError:
            raise build_timeout_error(timeout_s, timer) from None

    async def _send_request(self, request: HttpTarget, idempotency_key: str, timeout_s: float) -> HttpResponse:
        import asyncio

        context, timer = self.context, PhaseTimer()
        timeout_s = context.cap_timeout_to_run_end(timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                return await context.network.send_http_request(
                    request.build_http_request(idempotency_key, context.allow_private_addresses),
                    timer,
                    now=context.started_at,
                )
        except TimeoutError:
            raise build_timeout_error(timeout_s, timer) from None


def parse_enqueue_response_job_id(response: HttpResponse, config: HttpCanary, sentinel_id: str) -> str:
    """The id of the job. Raises ProbeError."""
    if not 200 <= response.status < 300:
        answer = (
            f"{config.enqueue.method} {config.enqueue.target} returned {describe_http_status_and_json_error(response)}"
        )
        error = ProbeError(*build_reason_and_message("canary.enqueue_failed", answer))
        raise _add_http_response_to_error(error, response)
    return sentinel_id if "{nonce}" in config.poll.url else _extract_job_id(response, config)


def _extract_job_id(response: HttpResponse, config: HttpCanary) -> str:
    body, problem = parse_response_body(response), "neither job_id nor id in its body"
    try:
        if config.job_id:
            problem = f"{config.job_id} is not an id"
            expression = compile_expression(config.job_id, HTTP_CANARY_EXPRESSION_VARIABLE_TYPES, must_be_bool=False)
            candidates = [expression.evaluate_value(_build_http_expression_values(response))]
        else:
            candidates = [body.get("job_id"), body.get("id")] if isinstance(body, dict) else []
    except CelExpressionError as error:
        candidates, problem = [], f"{config.job_id} cannot be computed: {error}"
    if job_id := next(filter(None, map(parse_job_id, candidates)), ""):
        return job_id
    missing = ProbeError("canary.job_id_missing", f"the response to enqueue has no job id: {problem}")
    raise _add_http_response_to_error(missing, response)


def build_poll_result_from_response(response: HttpResponse, config: HttpCanary) -> CanaryJobPollResult:
    """An error status is an error of the poll, unless the job is lost or an expression refers to `status`. Raises
    ProbeError."""
    try:
        response.received_body.decompress()
    except ProbeError as decoding_error:
        raise _wrap_http_poll_error(decoding_error) from None
    values, is_error_status = _build_http_expression_values(response), not 200 <= response.status < 300
    expressions = [
        (stage, expression)
        for stage, expression in config.job_stage_conditions
        if not is_error_status or stage is CanaryJobStage.LOST or "status" in expression.used_variables
    ]
    stage, problem = find_canary_stage_of_true_expression(expressions, values)
    if stage is None and response.body_problem:
        raise _add_http_response_to_error(ProbeError(*response.body_problem, is_internal=True), response)
    body = parse_response_body(response)
    if stage is CanaryJobStage.LOST or (stage is None and _is_http_canary_job_lost(config, response.status, body)):
        return CanaryJobPollResult(
            CanaryJobStage.LOST, error=f"poll returned {describe_http_status_and_json_error(response)}"
        )
    if stage is None and is_error_status:
        error = ProbeError(
            "canary.poll_failed", f"poll returned {describe_http_status_and_json_error(response)}", retryable=True
        )
        raise _add_http_response_to_error(error, response)
    progress = parse_job_progress_and_total(body)
    if stage is None:
        stage = CanaryJobStage.QUEUED if config.started else CanaryJobStage.SENT
    elif stage is CanaryJobStage.FAILED:
        problem = _describe_canary_job_failure(config, values, body)
    return CanaryJobPollResult(
        stage,
        error=problem,
        progress=progress and progress[0],
        response_excerpt="" if stage is CanaryJobStage.DONE else build_response_head_and_body_excerpt(response),
    )


def _wrap_http_poll_error(error: ProbeError) -> ProbeError:
    """The error of a poll without a usable response."""
    if error.is_internal:
        return error
    message = f"poll failed: {error.message}"
    poll_error = ProbeError("canary.poll_failed", message, error.phase, retryable=True, excerpt=error.excerpt)
    poll_error.facts = error.facts
    return poll_error


def _is_http_canary_job_lost(config: HttpCanary, status: int, body: Json) -> bool:
    if config.lost:
        return False
    return status in (404, 410) or (status < 500 and find_canary_stage_of_status_word(body) is CanaryJobStage.LOST)


def _describe_canary_job_failure(config: HttpCanary, values: Mapping[str, Json], body: Json) -> str:
    if not config.error:
        return find_job_error_message(body)
    try:
        expression = compile_expression(config.error, HTTP_CANARY_EXPRESSION_VARIABLE_TYPES, must_be_bool=False)
        return find_job_error_message(expression.evaluate_value(values))
    except CelExpressionError as error:
        return f"{config.error} cannot be computed: {error}"


def _build_http_expression_values(response: HttpResponse) -> dict[str, Json]:
    body = None if response.body_problem else parse_response_body(response)
    return {
        "status": response.status,
        "headers": response.headers,
        "body": body,
        "elapsed_ms": round(response.elapsed_ms),
    }


def _add_http_response_to_error(error: ProbeError, response: HttpResponse) -> ProbeError:
    error.facts |= build_http_response_evidence_facts(response)
    error.excerpt = build_response_head_and_body_excerpt(response)
    return error
