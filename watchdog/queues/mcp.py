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

from watchdog.expressions import Expression
from watchdog.fields import Duration, FieldsError, Line
from watchdog.model import Json
from watchdog.queues.base import Canary, CanarySystem, Depth, Look, Reach, Sentinel, Stage
from watchdog.queues.told import STAGES, compiled, expression, filled, identifier, judged, progress_of, status, why
from watchdog.wire.faults import Fault
from watchdog.wire.targets import McpTarget
from watchdog.words import DAY, count, span

if TYPE_CHECKING:
    from watchdog.wire.mcp import Dialogue

OPENING = 10.0
"""Seconds for starting the server, agreeing on a version and listing the tools."""
SENDING = 5.0
"""Seconds for an answer that names the job."""
VARIABLES: Mapping[str, str] = {"resource": "dyn"}
OVER = (Stage.DONE, Stage.FAILED, Stage.LOST)
_UNKNOWN = frozenset({-32002, -32602})
"""Codes of JSON-RPC with which servers say that there is no such resource."""


class McpCanary(McpTarget, CanarySystem):
    """A tool that begins a job and names it, or one that answers when its own job is done.

    An answer with `job_id` and `poll_resource` is followed by reading that resource.
    """

    name: ClassVar[str] = "MCP"
    derives_refs: ClassVar[bool] = False
    margin: ClassVar[int] = 23_000
    pace: ClassVar[tuple[int, int]] = (100, 2_000)
    blocks_for: ClassVar[int | None] = DAY
    sends: ClassVar[str] = "arguments"
    pickup_hint: ClassVar[str] = "say finish_within alone, or in `resource` where it is told"

    tool: Line
    """The tool to call."""
    arguments: dict[str, Json] = Field(default_factory=dict)
    """What it is called with. `{nonce}` in its texts stands for the sentinel's own id."""
    resource: str = ""
    """The URI that tells how the job is, with `{job_id}` or `{nonce}` in it; default: what the answer calls
    `poll_resource`, else `job:{job_id}`. An answer without a job_id is taken for the end of the job."""
    done: Annotated[str, expression(VARIABLES)] = ""
    """Holds, over `resource`, when the job is finished; default: its `status` or `state` is completed, done, ..."""
    failed: Annotated[str, expression(VARIABLES)] = ""
    """Holds when it failed; default: failed, error or cancelled."""
    started: Annotated[str, expression(VARIABLES)] = ""
    """Holds when it was picked up; default: active, running, processing or in_progress."""
    progress_within: Duration | None = None
    """How long its progress may stand still, if it reports any."""

    @model_validator(mode="after")
    def _names_the_job(self) -> Self:
        if self.resource and ("{job_id}" in self.resource) == ("{nonce}" in self.resource):
            raise FieldsError([(("resource",), "expected a URI with either {job_id} or {nonce} in it")])
        return self

    @property
    def shows_pickup(self) -> bool:
        return bool(self.resource)

    @cached_property
    def stages(self) -> tuple[tuple[Stage, Expression], ...]:
        return compiled(VARIABLES, self.failed, self.done, self.started)

    def prepare(self) -> None:
        import_module("watchdog.wire.mcp")

    @asynccontextmanager
    async def canary(self, reach: Reach) -> AsyncIterator[Canary]:
        import anyio

        from watchdog.wire.mcp import Seen, conversation, phase

        since, seen = monotonic(), Seen(facts=reach.facts)
        opened = conversation(reach.wire, self.goal(reach.egress), seen, reach.trace, OPENING, reach.now)
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(OPENING):
                    talk = await stack.enter_async_context(opened)
                    with phase(reach.trace, "list"):
                        await talk.list_tools()
            except TimeoutError:
                raise Fault("timeout.exceeded", f"timed out after {span(OPENING * 1000)}", reach.trace.under_way) from None
            if seen.server:
                reach.facts["server"] = f"{seen.server} {seen.version}".strip()
            if all(tool.name != self.tool for tool in seen.tools):
                listed = count(len(seen.tools), "tool")
                raise Fault("mcp.tool_missing", f"tool {self.tool} is missing: {listed} listed")
            calls = await stack.enter_async_context(anyio.create_task_group())
            line = _Mcp(self, reach, talk, since)
            calls.start_soon(line.calls)
            yield line
            calls.cancel_scope.cancel()


class _Mcp:
    """Calls the tool at the side, since it may take as long as the job does."""

    def __init__(self, config: McpCanary, reach: Reach, talk: Dialogue, since: float) -> None:
        """`since`: the monotonic clock when ours stood at `reach.now`."""
        self.config, self.reach, self.talk, self._since = config, reach, talk, since
        self._sent: asyncio.Future[Sentinel] = asyncio.get_running_loop().create_future()
        self._answered = asyncio.Event()
        self._ended = 0
        """When the tool answered, ms since the epoch."""
        self._fault: Fault | None = None
        self._progress: tuple[float, float | None] | None = None
        self._moved = 0.0
        """When the progress changed, by the monotonic clock."""
        self._own = ""
        """The URI of the job that was begun here."""
        self._over: set[str] = set()

    async def calls(self) -> None:
        sentinel = await self._sent
        arguments = filled(self.config.arguments, nonce=sentinel.id)
        try:
            await self.talk.call(self.config.tool, arguments, self._hear)
        except Fault as fault:
            fault.retryable = False  # nobody calls it again
            self._fault = fault
        self._ended = self.reach.now + round((monotonic() - self._since) * 1000)
        self._answered.set()

    async def send(self, sentinel: Sentinel) -> str:
        self._sent.set_result(sentinel)
        if self.config.resource:
            try:
                async with asyncio.timeout(SENDING):
                    await self._answered.wait()
            except TimeoutError:
                raise Fault("timeout.exceeded", f"{self.config.tool} named no job in {span(SENDING * 1000)}") from None
        return ""

    async def look(self, ref: str) -> Look:
        if not ref:
            return self._called()
        look = await self._read(ref)
        if look.stage in OVER:
            self._over.add(ref)
        return look

    def _called(self) -> Look:
        """What the call tells: it works, it ended well or not, or it named a job."""
        if not self._answered.is_set():
            return Look(Stage.SENT, progress=self._moving())
        if self._fault is not None:
            raise self._fault
        seen, said = self.talk.seen, self.talk.seen.result
        told = said if isinstance(said, dict) else {}
        verdicts = [told[name] for name in ("ok", "healthy") if isinstance(told.get(name), bool)]
        if seen.is_error or False in verdicts or STAGES.get(status(told)) is Stage.FAILED:
            return Look(Stage.FAILED, finished=self._ended, error=why(said))
        if ref := self._named(told, over=bool(verdicts)):
            self._own, self._progress = ref, None
            return Look(Stage.SENT, ref=ref)
        return Look(Stage.DONE, finished=self._ended)

    def _named(self, told: Mapping[str, Json], *, over: bool) -> str:
        """The URI to read; empty when there is none. `over`: the answer says how the job went."""
        job_id = identifier(told.get("job_id")) or identifier(told.get("jobId"))
        given = {"nonce": self._sent.result().id} | ({"job_id": job_id} if job_id else {})
        if template := self.config.resource:
            if "{job_id}" in template and not job_id:
                fault = Fault("canary.job_id_missing", f"{self.config.tool} answers without a job_id")
                fault.excerpt = self.talk.seen.text
                raise fault
            return str(filled(template, **given))
        if resource := identifier(told.get("poll_resource")):
            return str(filled(resource, **given))
        return f"job:{job_id}" if job_id and not over else ""

    async def _read(self, uri: str) -> Look:
        try:
            async with asyncio.timeout(self.reach.patience):
                await self.talk.read(uri)
        except TimeoutError:
            after = span(self.reach.patience * 1000)
            raise Fault("canary.poll_failed", f"{uri} cannot be read: timed out after {after}", retryable=True) from None
        except Fault as fault:
            code = fault.facts.get("code")
            if code in _UNKNOWN or (code is not None and uri != self._own):  # an earlier run's: nothing to wait for
                return Look(Stage.LOST)
            if fault.ours or fault.reason == "mcp.server_exited":
                raise
            failed = Fault("canary.poll_failed", f"{uri} cannot be read: {fault.message}", retryable=True)
            failed.facts, failed.excerpt = fault.facts, fault.excerpt
            raise failed from None
        return self._told(self.talk.seen.resource)

    def _told(self, said: Json) -> Look:
        stage, trouble = judged(self.config.stages, {"resource": said})
        word = status(said)
        meant = STAGES.get(word)
        if stage is None and meant not in [stage for stage, _ in self.config.stages]:
            stage = meant
        if stage is None:
            trouble = trouble or (f"its status is {word!r}" if word else "it tells no status")
            stage = Stage.SENT
        far = progress_of(said)
        if stage is Stage.RUNNING and far is not None:
            self._note(far)
            self._moving()
        return Look(stage, error=why(said) if stage is Stage.FAILED else trouble, progress=far and far[0])

    async def _hear(self, progress: float, total: float | None, message: str | None) -> None:
        self._note((progress, total))

    def _note(self, far: tuple[float, float | None]) -> None:
        if far != self._progress:
            self._progress, self._moved = far, monotonic()

    def _moving(self) -> float | None:
        """How far it is. Raises Fault when that has been the same for too long."""
        if self._progress is None:
            return None
        done, total = self._progress
        stood, limit = (monotonic() - self._moved) * 1000, self.config.progress_within
        if limit is not None and stood >= limit:
            of = "" if total is None else f" of {total:g}"
            raise Fault("canary.progress_stalled", f"stuck at {done:g}{of} for {span(stood)}")
        return done

    async def cancel(self, ref: str) -> bool:
        """A call ends with its line. A job cannot be taken back: whether it is over."""
        return not ref or ref in self._over or (await self.look(ref)).stage in OVER

    async def depth(self) -> Depth:
        return Depth()
