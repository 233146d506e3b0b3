"""Jobs behind an MCP server: a tool begins one and a resource tells how it is, or the tool answers when it is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cached_property
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, model_validator

from watchdog.config_types import Duration, FieldValidationError, SingleLineText
from watchdog.domain.formatting import DAY_MS, format_count, format_duration
from watchdog.domain.model import Json
from watchdog.domain.observations import JobStage, JobStatus, QueueStats
from watchdog.expressions import Expression
from watchdog.net.errors import ProbeError
from watchdog.net.targets import McpTarget
from watchdog.queues.base import CanaryConnection, CanaryDriver, ConnectContext, SentinelJob
from watchdog.queues.job_status import (
    STAGE_BY_STATUS_WORD,
    compile_stage_expressions,
    error_message,
    evaluate_stage,
    expression_validator,
    normalize_status,
    parse_job_id,
    parse_progress,
    substitute_placeholders,
)

if TYPE_CHECKING:
    from watchdog.net.mcp import McpClient

CONNECT_TIMEOUT_S = 10.0
"""Seconds for starting the server, agreeing on a version and listing the tools."""
JOB_ID_TIMEOUT_S = 5.0
"""Seconds for an answer that names the job."""
EXPRESSION_VARIABLES: Mapping[str, str] = {"resource": "dyn"}
TERMINAL_STAGES = (JobStage.DONE, JobStage.FAILED, JobStage.LOST)
_RESOURCE_NOT_FOUND_CODES = frozenset({-32002, -32602})
"""Codes of JSON-RPC with which servers say that there is no such resource."""


class McpCanary(McpTarget, CanaryDriver):
    """A canary job that an MCP tool starts, or a tool that returns when its job is done. If the tool returns a
    `job_id`, a resource is polled for the state of the job."""

    kind: ClassVar[str] = "mcp"
    name: ClassVar[str] = "MCP"
    deterministic_id: ClassVar[bool] = False
    deadline_margin_ms: ClassVar[int] = 23_000
    poll_interval_range_ms: ClassVar[tuple[int, int]] = (100, 2_000)
    blocking_period_ms: ClassVar[int | None] = DAY_MS
    payload_field: ClassVar[str] = "arguments"
    pickup_hint: ClassVar[str] = "remove start_within, or set mcp.resource"

    tool: SingleLineText
    """The name of the tool to call."""
    arguments: dict[str, Json] = Field(default_factory=dict)
    """The arguments of the call. `{nonce}` in their texts is replaced by the id of the canary job."""
    resource: str = ""
    """The URI of the resource with the state of the job; contains `{job_id}` or `{nonce}`. Default: `poll_resource` of
    the tool's result, otherwise `job:{job_id}`. A result without `job_id` means that the job is done."""
    done: Annotated[str, expression_validator(EXPRESSION_VARIABLES)] = ""
    """True when the job is finished, evaluated on the resource; default: its `status` or `state` is `completed`, `done`
    or the like."""
    failed: Annotated[str, expression_validator(EXPRESSION_VARIABLES)] = ""
    """True when the job has failed; default: its `status` or `state` is `failed`, `error` or `cancelled`."""
    started: Annotated[str, expression_validator(EXPRESSION_VARIABLES)] = ""
    """True when a worker has picked up the job; default: its `status` or `state` is `active`, `running`, `processing`
    or `in_progress`."""
    progress_within: Duration | None = None
    """The time within which the reported progress must change, if the job reports any."""

    @model_validator(mode="after")
    def _validate_resource_uri(self) -> Self:
        if self.resource and ("{job_id}" in self.resource) == ("{nonce}" in self.resource):
            raise FieldValidationError([(("resource",), "expected a URI that contains either {job_id} or {nonce}")])
        return self

    @property
    def exposes_pickup(self) -> bool:
        return bool(self.resource)

    @cached_property
    def stage_expressions(self) -> tuple[tuple[JobStage, Expression], ...]:
        return compile_stage_expressions(EXPRESSION_VARIABLES, self.failed, self.done, self.started)

    def prepare(self) -> None:
        import_module("watchdog.net.mcp")

    @asynccontextmanager
    async def connect(self, context: ConnectContext) -> AsyncIterator[CanaryConnection]:
        import anyio

        from watchdog.net.mcp import SessionResult, connect_mcp_client, measure_phase

        since, seen = monotonic(), SessionResult(facts=context.facts)
        opened = connect_mcp_client(
            context.network.connector,
            self.build_session_target(context.allow_private_addresses),
            seen,
            context.trace,
            timeout_s=CONNECT_TIMEOUT_S,
            now=context.started_at,
        )
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    talk = await stack.enter_async_context(opened)
                    with measure_phase(context.trace, "list"):
                        await talk.list_tools()
            except TimeoutError:
                raise ProbeError(
                    "timeout.exceeded",
                    f"timed out after {format_duration(CONNECT_TIMEOUT_S * 1000)}",
                    context.trace.current_phase,
                ) from None
            if seen.server_name:
                context.facts["server"] = f"{seen.server_name} {seen.server_version}".strip()
            if all(tool.name != self.tool for tool in seen.tools):
                listed = format_count(len(seen.tools), "tool")
                raise ProbeError("mcp.tool_missing", f"tool {self.tool} is missing: {listed} listed")
            calls = await stack.enter_async_context(anyio.create_task_group())
            line = _McpCanaryConnection(self, context, talk, since)
            calls.start_soon(line.call_tool)
            yield line
            calls.cancel_scope.cancel()


class _McpCanaryConnection:
    """Calls the tool at the side, since it may take as long as the job does."""

    def __init__(self, config: McpCanary, context: ConnectContext, client: McpClient, started_monotonic: float) -> None:
        """`since`: the monotonic clock when ours stood at `reach.now`."""
        self.config, self.context, self.client, self._started_monotonic = config, context, client, started_monotonic
        self._sent_sentinel: asyncio.Future[SentinelJob] = asyncio.get_running_loop().create_future()
        self._answered = asyncio.Event()
        self._answered_at = 0
        """When the tool answered, ms since the epoch."""
        self._call_error: ProbeError | None = None
        self._progress: tuple[float, float | None] | None = None
        self._progress_changed_monotonic = 0.0
        """When the progress changed, by the monotonic clock."""
        self._started_job_uri = ""
        """The URI of the job that was begun here."""
        self._finished_job_ids: set[str] = set()

    async def call_tool(self) -> None:
        sentinel = await self._sent_sentinel
        arguments = substitute_placeholders(self.config.arguments, nonce=sentinel.id)
        try:
            await self.client.call_tool(self.config.tool, arguments, self._on_progress)
        except ProbeError as fault:
            fault.retryable = False  # nobody calls it again
            self._call_error = fault
        self._answered_at = self.context.started_at + round((monotonic() - self._started_monotonic) * 1000)
        self._answered.set()

    async def send(self, sentinel: SentinelJob) -> str:
        self._sent_sentinel.set_result(sentinel)
        if self.config.resource:
            try:
                async with asyncio.timeout(JOB_ID_TIMEOUT_S):
                    await self._answered.wait()
            except TimeoutError:
                raise ProbeError(
                    "timeout.exceeded", f"{self.config.tool} named no job in {format_duration(JOB_ID_TIMEOUT_S * 1000)}"
                ) from None
        return ""

    async def poll(self, job_id: str) -> JobStatus:
        if not job_id:
            return self._status_from_call()
        look = await self._poll_resource(job_id)
        if look.stage in TERMINAL_STAGES:
            self._finished_job_ids.add(job_id)
        return look

    def _status_from_call(self) -> JobStatus:
        """What the call tells: it works, it ended well or not, or it named a job."""
        if not self._answered.is_set():
            return JobStatus(JobStage.SENT, progress=self._require_progress())
        if self._call_error is not None:
            raise self._call_error
        seen, said = self.client.result, self.client.result.tool_result
        told = said if isinstance(said, dict) else {}
        verdicts = [told[name] for name in ("ok", "healthy") if isinstance(told.get(name), bool)]
        if (
            seen.tool_is_error
            or False in verdicts
            or STAGE_BY_STATUS_WORD.get(normalize_status(told)) is JobStage.FAILED
        ):
            return JobStatus(JobStage.FAILED, finished_at=self._answered_at, error=error_message(said))
        if ref := self._resource_uri(told, finished=bool(verdicts)):
            self._started_job_uri, self._progress = ref, None
            return JobStatus(JobStage.SENT, job_id=ref)
        return JobStatus(JobStage.DONE, finished_at=self._answered_at)

    def _resource_uri(self, answer: Mapping[str, Json], *, finished: bool) -> str:
        """The URI to read; empty when there is none. `over`: the answer says how the job went."""
        job_id = parse_job_id(answer.get("job_id")) or parse_job_id(answer.get("jobId"))
        given = {"nonce": self._sent_sentinel.result().id} | ({"job_id": job_id} if job_id else {})
        if template := self.config.resource:
            if "{job_id}" in template and not job_id:
                fault = ProbeError("canary.job_id_missing", f"{self.config.tool} answers without a job_id")
                fault.excerpt = self.client.result.tool_result_text
                raise fault
            return str(substitute_placeholders(template, **given))
        if resource := parse_job_id(answer.get("poll_resource")):
            return str(substitute_placeholders(resource, **given))
        return f"job:{job_id}" if job_id and not finished else ""

    async def _poll_resource(self, uri: str) -> JobStatus:
        try:
            async with asyncio.timeout(self.context.timeout_s):
                await self.client.read_resource(uri)
        except TimeoutError:
            after = format_duration(self.context.timeout_s * 1000)
            raise ProbeError(
                "canary.poll_failed", f"{uri} cannot be read: timed out after {after}", retryable=True
            ) from None
        except ProbeError as fault:
            code = fault.facts.get("rpc_error_code")
            if code in _RESOURCE_NOT_FOUND_CODES or (
                code is not None and uri != self._started_job_uri
            ):  # an earlier run's: nothing to wait for
                return JobStatus(JobStage.LOST)
            if fault.is_internal or fault.reason == "mcp.server_exited":
                raise
            failed = ProbeError("canary.poll_failed", f"{uri} cannot be read: {fault.message}", retryable=True)
            failed.facts, failed.excerpt = fault.facts, fault.excerpt
            raise failed from None
        return self._status_from_resource(self.client.result.resource_content)

    def _status_from_resource(self, content: Json) -> JobStatus:
        stage, trouble = evaluate_stage(self.config.stage_expressions, {"resource": content})
        word = normalize_status(content)
        meant = STAGE_BY_STATUS_WORD.get(word)
        if stage is None and meant not in [stage for stage, _ in self.config.stage_expressions]:
            stage = meant
        if stage is None:
            trouble = trouble or (f"its status is {word!r}" if word else "it tells no status")
            stage = JobStage.SENT
        far = parse_progress(content)
        if stage is JobStage.RUNNING and far is not None:
            self._record_progress(far)
            self._require_progress()
        return JobStatus(
            stage, error=error_message(content) if stage is JobStage.FAILED else trouble, progress=far and far[0]
        )

    async def _on_progress(self, progress: float, total: float | None, message: str | None) -> None:
        self._record_progress((progress, total))

    def _record_progress(self, progress: tuple[float, float | None]) -> None:
        if progress != self._progress:
            self._progress, self._progress_changed_monotonic = progress, monotonic()

    def _require_progress(self) -> float | None:
        """How far it is. Raises Fault when that has been the same for too long."""
        if self._progress is None:
            return None
        done, total = self._progress
        stood, limit = (monotonic() - self._progress_changed_monotonic) * 1000, self.config.progress_within
        if limit is not None and stood >= limit:
            of = "" if total is None else f" of {total:g}"
            raise ProbeError("canary.progress_stalled", f"stuck at {done:g}{of} for {format_duration(stood)}")
        return done

    async def cancel(self, job_id: str) -> bool:
        """A call ends with its line. A job cannot be taken back: whether it is over."""
        return not job_id or job_id in self._finished_job_ids or (await self.poll(job_id)).stage in TERMINAL_STAGES

    async def fetch_queue_stats(self) -> QueueStats:
        return QueueStats()
