"""Canary jobs behind an MCP server: a tool starts the job and a resource reports its state, or the tool itself returns
when its job is done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cached_property
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, model_validator

from watchdog.config_types import Duration, MultiFieldValidationError, SingleLineText
from watchdog.domain import reasons
from watchdog.domain.formatting import format_count_with_noun, format_duration
from watchdog.domain.model import Json
from watchdog.domain.observations import CanaryJobPollResult, CanaryJobStage, QueueStats
from watchdog.domain.reasons import build_reason_and_message
from watchdog.expressions import CelExpression
from watchdog.net.errors import ProbeError, build_timeout_error
from watchdog.net.phases import RESPONSE_PROCESSING_PHASES
from watchdog.net.targets import McpTarget
from watchdog.queues.base import CanaryConnection, CanaryDriver, CanaryJobRequest, QueueConnectContext
from watchdog.queues.job_status import (
    compile_canary_stage_expressions,
    create_cel_expression_validator,
    extract_status_as_snake_case,
    fill_braced_placeholders_in_json,
    find_canary_stage_of_status_word,
    find_canary_stage_of_true_expression,
    find_job_error_message,
    parse_job_id,
    parse_job_progress_and_total,
)

if TYPE_CHECKING:
    from watchdog.net.mcp import McpClient, WorkerParsedMcpResult

MCP_CANARY_CONNECT_TIMEOUT_S = 10.0
"""For starting the server, negotiating a version and listing the tools."""
MCP_CANARY_JOB_ID_TIMEOUT_S = 5.0
"""For the tool's response, if the job is polled through a resource."""
MCP_CANARY_EXPRESSION_VARIABLE_TYPES: Mapping[str, str] = {"resource": "dyn"}
_MCP_RESOURCE_NOT_FOUND_CODES = frozenset({-32002, -32602})
"""JSON-RPC codes that servers return for a resource that does not exist."""


class McpCanary(McpTarget, CanaryDriver):
    """A canary job that an MCP tool starts. The tool returns when the job is done, or immediately with a `job_id`, in
    which case a resource is polled for the state of the job."""

    form_fields: ClassVar[tuple[str, ...]] = ("url", "tool", "resource", "done", "failed")
    kind: ClassVar[str] = "mcp"
    example: ClassVar[str] = """
        probes:
          - name: Export through MCP
            every: 10m
            canary:
              mcp:
                url: https://mcp.acme.example/mcp
                tool: export_data
                arguments: {format: csv, idempotency_key: "canary-{nonce}"}
                resource: "job:{job_id}"
              finish_within: 2m
    """
    name: ClassVar[str] = "MCP"
    deterministic_id: ClassVar[bool] = False
    poll_interval_range_ms: ClassVar[tuple[int, int]] = (100, 2_000)
    payload_field: ClassVar[str] = "arguments"
    pickup_hint: ClassVar[str] = "remove start_within, or set mcp.resource"

    tool: SingleLineText
    """The name of the tool to call."""
    arguments: dict[str, Json] = Field(default_factory=dict)
    """The arguments for the call. `{nonce}` in their string values is replaced by the id that Watchdog generates for
    the canary job."""
    resource: str = ""
    """The URI of the resource that reports the state of the job; contains `{job_id}` or `{nonce}`. Default:
    `poll_resource` of the tool's result, otherwise `job:{job_id}`. If `resource` is not set, a result with neither
    `poll_resource` nor `job_id` means that the job is done. If `resource` is set and contains `{job_id}`, a result
    without `job_id` is an error."""
    done: Annotated[str, create_cel_expression_validator(MCP_CANARY_EXPRESSION_VARIABLE_TYPES)] = ""
    """A CEL expression over the resource: true when the job is finished; default: its `status` or `state` is
    `completed`, `done` or the like."""
    failed: Annotated[str, create_cel_expression_validator(MCP_CANARY_EXPRESSION_VARIABLE_TYPES)] = ""
    """A CEL expression over the resource: true when the job has failed; default: its `status` or `state` is `failed`,
    `error` or `cancelled`."""
    lost: Annotated[str, create_cel_expression_validator(MCP_CANARY_EXPRESSION_VARIABLE_TYPES)] = ""
    """A CEL expression over the resource: true when the server no longer has the job; default: its `status` or
    `state` is `not_found`, `missing`, `expired`, `gone` or the like. A job whose resource does not exist is also
    lost."""
    started: Annotated[str, create_cel_expression_validator(MCP_CANARY_EXPRESSION_VARIABLE_TYPES)] = ""
    """A CEL expression over the resource: true when a worker has picked up the job; default: its `status` or `state` is
    `active`, `running`, `processing` or `in_progress`."""
    progress_within: Duration | None = None
    """The time within which the reported progress must change, if the job reports any."""

    @model_validator(mode="after")
    def _require_job_placeholder_in_resource_uri(self) -> Self:
        if self.resource and ("{job_id}" in self.resource) == ("{nonce}" in self.resource):
            raise MultiFieldValidationError(
                [(("resource",), "expected a URI that contains either {job_id} or {nonce}")]
            )
        return self

    @property
    def exposes_pickup(self) -> bool:
        return bool(self.resource)

    @cached_property
    def job_stage_conditions(self) -> tuple[tuple[CanaryJobStage, CelExpression], ...]:
        return compile_canary_stage_expressions(
            MCP_CANARY_EXPRESSION_VARIABLE_TYPES, self.failed, self.done, self.lost, self.started
        )

    def preload(self) -> None:
        import_module("watchdog.net.mcp")

    @asynccontextmanager
    async def connect(self, context: QueueConnectContext) -> AsyncIterator[CanaryConnection]:
        import asyncio

        import anyio

        from watchdog.net.mcp import McpSessionResult, connect_mcp_client, measure_phase_and_tag_errors

        started_monotonic, session = monotonic(), McpSessionResult(facts=context.facts)
        timeout_s = context.cap_timeout_to_run_end(MCP_CANARY_CONNECT_TIMEOUT_S)
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(timeout_s):
                    target = await self.prepare_mcp_endpoint_or_command(
                        context.network, context.allow_private_addresses, context.phase_timer, context.started_at
                    )
                    opening_client = connect_mcp_client(
                        context.network.connector,
                        target,
                        session,
                        context.phase_timer,
                        timeout_s=timeout_s - (monotonic() - started_monotonic),
                        now=context.started_at,
                        worker=context.network.cpu_worker,
                        tool_name=self.tool,
                    )
                    client = await stack.enter_async_context(opening_client)
                    with measure_phase_and_tag_errors(context.phase_timer, "list"):
                        await client.list_tools_into_result()
            except TimeoutError:
                raise build_timeout_error(timeout_s, context.phase_timer) from None
            if session.server_name:
                context.facts["server"] = f"{session.server_name} {session.server_version}".strip()
            if all(tool.name != self.tool for tool in (*session.tools, *session.callable_tools)):
                listed = format_count_with_noun(session.tool_count, "tool")
                raise ProbeError("mcp.tool_missing", f"tool {self.tool} is missing: {listed} listed")
            calls = await stack.enter_async_context(anyio.create_task_group())
            connection = _McpToolCallCanaryConnection(self, context, client, started_monotonic)
            calls.start_soon(connection.wait_for_send_then_call_tool_and_keep_outcome)
            yield connection
            calls.cancel_scope.cancel()


class _McpToolCallCanaryConnection:
    """Sends a sentinel by calling the tool.

    The call runs in a task of its own, because it may take as long as the job: polling looks at the call first, and at
    the resource once the call has returned a job id.
    """

    def __init__(
        self, config: McpCanary, context: QueueConnectContext, client: McpClient, started_monotonic: float
    ) -> None:
        """`started_monotonic`: the monotonic clock at `context.started_at`."""
        import asyncio

        self.config, self.context, self.client, self._started_monotonic = config, context, client, started_monotonic
        self._sent_sentinel: asyncio.Future[CanaryJobRequest] = asyncio.get_running_loop().create_future()
        self._call_finished = asyncio.Event()
        self._call_finished_at = 0
        """When the tool returned, in ms since the epoch."""
        self._call_error: ProbeError | None = None
        self._progress: tuple[float, float | None] | None = None
        self._progress_changed_monotonic = 0.0
        self._started_job_uri = ""
        """The URI of the job that this connection started."""

    async def wait_for_send_then_call_tool_and_keep_outcome(self) -> None:
        """Waits for `send`, then calls the tool."""
        sentinel = await self._sent_sentinel
        arguments = fill_braced_placeholders_in_json(self.config.arguments, nonce=sentinel.id)
        try:
            await self.client.call_tool_into_result(self.config.tool, arguments, self._record_tool_call_progress)
        except ProbeError as error:
            error.retryable = False  # polling does not repeat the call
            self._call_error = error
            is_refusal = "rpc_error_code" in error.facts or reasons.get_reason_family(error.reason) == "http"
            if is_refusal and self._progress is None:
                self._call_error = self._build_enqueue_error(error.message, error.excerpt)
                self._call_error.facts = error.facts
        self._call_finished_at = self.context.started_at + round((monotonic() - self._started_monotonic) * 1000)
        self._call_finished.set()

    async def send(self, sentinel: CanaryJobRequest) -> str:
        import asyncio

        self._sent_sentinel.set_result(sentinel)
        if self.config.resource:
            timeout_s = self.context.cap_timeout_to_run_end(min(MCP_CANARY_JOB_ID_TIMEOUT_S, sentinel.send_within_s))
            try:
                async with asyncio.timeout(timeout_s):
                    await self._call_finished.wait()
            except TimeoutError:
                self._raise_timeout_if_still_processing_response(timeout_s)
                message = f"{self.config.tool} returned no job id within {format_duration(timeout_s * 1000)}"
                raise ProbeError("timeout.call", message) from None
        return ""

    def _build_enqueue_error(self, answer: str, excerpt: str) -> ProbeError:
        """The server did not accept the call."""
        reason, message = build_reason_and_message("canary.enqueue_failed", f"tool {self.config.tool}: {answer}")
        return ProbeError(reason, message, excerpt=excerpt)

    async def poll(self, job_id: str) -> CanaryJobPollResult:
        return await self._poll_resource(job_id) if job_id else self._build_poll_result_from_call()

    def _build_poll_result_from_call(self) -> CanaryJobPollResult:
        """The call is running, or has returned the job's outcome or the job's id."""
        if not self._call_finished.is_set():
            return CanaryJobPollResult(CanaryJobStage.SENT, progress=self._require_recent_progress())
        if self._call_error is not None:
            raise self._call_error
        session = self.client.result
        result = session.tool_result if isinstance(session.tool_result, dict) else {}
        verdicts = [result[name] for name in ("ok", "healthy") if isinstance(result.get(name), bool)]
        has_failed_status = find_canary_stage_of_status_word(result) is CanaryJobStage.FAILED
        if session.tool_is_error or False in verdicts or has_failed_status:
            message = find_job_error_message(session.tool_result)
            if self.config.resource and not self._parse_job_id(result):  # the tool only starts the job
                raise self._build_enqueue_error(message or "no error message", session.tool_result_text)
            return CanaryJobPollResult(CanaryJobStage.FAILED, finished_at=self._call_finished_at, error=message)
        if uri := self._find_resource_uri(result, finished=bool(verdicts)):
            self._started_job_uri, self._progress = uri, None
            return CanaryJobPollResult(CanaryJobStage.SENT, job_id=uri)
        return CanaryJobPollResult(CanaryJobStage.DONE, finished_at=self._call_finished_at)

    @staticmethod
    def _parse_job_id(result: Mapping[str, Json]) -> str:
        return parse_job_id(result.get("job_id")) or parse_job_id(result.get("jobId"))

    def _find_resource_uri(self, result: Mapping[str, Json], *, finished: bool) -> str:
        """The URI to read; empty if there is none. `finished`: the tool's result already contains the outcome."""
        job_id = self._parse_job_id(result)
        values = {"nonce": self._sent_sentinel.result().id} | ({"job_id": job_id} if job_id else {})
        if template := self.config.resource:
            if "{job_id}" in template and not job_id:
                message, text = f"{self.config.tool} returned no job_id", self.client.result.tool_result_text
                raise ProbeError("canary.job_id_missing", message, excerpt=text)
            return str(fill_braced_placeholders_in_json(template, **values))
        if resource := parse_job_id(result.get("poll_resource")):
            return str(fill_braced_placeholders_in_json(resource, **values))
        return f"job:{job_id}" if job_id and not finished else ""

    async def _poll_resource(self, uri: str) -> CanaryJobPollResult:
        import asyncio

        timeout_s = self.context.cap_timeout_to_run_end(self.context.timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                await self.client.read_resource_into_result(uri)
                stage, problem = await self._determine_job_stage()
        except TimeoutError:
            self._raise_timeout_if_still_processing_response(timeout_s)
            message = f"{uri} cannot be read: timed out after {format_duration(timeout_s * 1000)}"
            raise ProbeError("canary.poll_failed", message, retryable=True) from None
        except ProbeError as error:
            code = error.facts.get("rpc_error_code")
            is_earlier_job = uri != self._started_job_uri
            if code in _MCP_RESOURCE_NOT_FOUND_CODES or (code is not None and is_earlier_job):
                return CanaryJobPollResult(CanaryJobStage.LOST, error=f"{uri}: {error.message}")
            if error.is_internal or error.reason == "mcp.server_exited":
                raise
            message = f"{uri} cannot be read: {error.message}"
            poll_error = ProbeError("canary.poll_failed", message, retryable=True, excerpt=error.excerpt)
            poll_error.facts = error.facts
            raise poll_error from None
        return self._build_poll_result_from_resource(self.client.result.resource_content, stage, problem)

    def _raise_timeout_if_still_processing_response(self, timeout_s: float) -> None:
        """Raises ProbeError if a time limit has ended while Watchdog was judging a large response."""
        phase_timer = self.context.phase_timer
        if phase_timer.current_phase in RESPONSE_PROCESSING_PHASES:
            raise build_timeout_error(timeout_s, phase_timer)

    async def _determine_job_stage(self) -> tuple[CanaryJobStage | None, str]:
        """The stage by the configured expressions, and why one of them could not be computed."""
        session, expressions = self.client.result, self.config.job_stage_conditions
        large_results, session.large_results = session.large_results, []
        network, timer = self.context.network, self.context.phase_timer
        if large_results and large_results[-1].method == "resources/read":
            return await network.run_cpu_work_inline_or_in_worker(
                timer, find_canary_stage_in_large_mcp_resource, large_results[-1], expressions, in_worker=True
            )
        loops = any(expression.loops for _, expression in expressions)
        values = {"resource": session.resource_content}
        return await network.run_cpu_work_inline_or_in_worker(
            timer,
            find_canary_stage_of_true_expression,
            expressions,
            values,
            in_worker=loops and session.has_many_json_elements,
        )

    def _build_poll_result_from_resource(
        self, content: Json, stage: CanaryJobStage | None, problem: str
    ) -> CanaryJobPollResult:
        """By the stage of the configured expressions; the status word counts only for stages without an expression."""
        word = extract_status_as_snake_case(content)
        if stage is None:
            stage_of_word = find_canary_stage_of_status_word(content)
            if stage_of_word not in [configured for configured, _ in self.config.job_stage_conditions]:
                stage = stage_of_word
        if stage is None:
            problem = problem or (f"its status is {word!r}" if word else "it reports no status")
            stage = CanaryJobStage.SENT
        progress = parse_job_progress_and_total(content)
        if stage is CanaryJobStage.RUNNING and progress is not None:
            self._record_progress_and_time_of_change(progress)
            self._require_recent_progress()
        message = find_job_error_message(content) if stage in (CanaryJobStage.FAILED, CanaryJobStage.LOST) else problem
        return CanaryJobPollResult(stage, error=message, progress=progress and progress[0])

    async def _record_tool_call_progress(self, progress: float, total: float | None, message: str | None) -> None:
        self._record_progress_and_time_of_change((progress, total))

    def _record_progress_and_time_of_change(self, progress: tuple[float, float | None]) -> None:
        if progress != self._progress:
            self._progress, self._progress_changed_monotonic = progress, monotonic()

    def _require_recent_progress(self) -> float | None:
        """The progress so far. Raises ProbeError if it has not changed for `progress_within`."""
        if self._progress is None:
            return None
        done, total = self._progress
        unchanged_ms, limit_ms = (monotonic() - self._progress_changed_monotonic) * 1000, self.config.progress_within
        if limit_ms is not None and unchanged_ms >= limit_ms:
            of_total = "" if total is None else f" of {total:g}"
            message = f"progress is unchanged at {done:g}{of_total} for {format_duration(unchanged_ms)}"
            raise ProbeError("canary.progress_stalled", message)
        return done

    async def cancel(self, job_id: str) -> bool:
        """A call ends with its connection. A job cannot be cancelled."""
        return not job_id

    async def fetch_queue_stats(self) -> QueueStats:
        return QueueStats()


def find_canary_stage_in_large_mcp_resource(
    large_result: WorkerParsedMcpResult, expressions: tuple[tuple[CanaryJobStage, CelExpression], ...]
) -> tuple[CanaryJobStage | None, str]:
    """As `find_canary_stage_of_true_expression`."""
    return find_canary_stage_of_true_expression(expressions, {"resource": large_result.unpack()})
