"""Jobs behind an HTTP API: one request begins a job, another asks how it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar, Self
from urllib.parse import quote

from pydantic import model_validator

from watchdog.expressions import Expression, ExpressionError, compile_expression
from watchdog.fields import FieldsError
from watchdog.model import Json
from watchdog.queues.base import Canary, CanarySystem, Depth, Look, Reach, Sentinel, Stage
from watchdog.queues.told import compiled, expression, filled, identifier, judged, progress_of, why
from watchdog.wire.answers import body_of, excerpt, facts
from watchdog.wire.faults import Fault
from watchdog.wire.targets import HttpTarget, Method
from watchdog.wire.trace import Trace
from watchdog.words import DAY, span

if TYPE_CHECKING:
    from watchdog.wire.http import Exchange

SENDING = 10.0
"""Seconds that the first request may take."""
VARIABLES: Mapping[str, str] = {"status": "int", "headers": "map(string, string)", "body": "dyn", "elapsed_ms": "int"}


class Enqueue(HttpTarget):
    """The request that begins a job. `{nonce}` in its URL, headers and body stands for the sentinel's own id."""

    method: Method = "POST"


class HttpCanary(CanarySystem):
    """A job that one request begins and another asks for. Expressions may use status, headers, body and elapsed_ms."""

    name: ClassVar[str] = "HTTP"
    derives_refs: ClassVar[bool] = False
    margin: ClassVar[int] = 18_000
    pace: ClassVar[tuple[int, int]] = (250, 2_000)
    blocks_for: ClassVar[int | None] = DAY
    sends: ClassVar[str] = "enqueue"
    pickup_hint: ClassVar[str] = "say finish_within alone, or in `started` how to tell"

    enqueue: Enqueue
    """Begins the job, with a header Idempotency-Key. A 2xx is expected."""
    poll: HttpTarget
    """Asks for it. `{job_id}` stands in its URL, or `{nonce}` where the sentinel's own id names the job."""
    done: Annotated[str, expression(VARIABLES)]
    """Holds when the job is finished: `body.status == 'completed'`."""
    failed: Annotated[str, expression(VARIABLES)] = ""
    """Holds when it failed."""
    started: Annotated[str, expression(VARIABLES)] = ""
    """Holds when somebody has picked it up. Without it nobody can tell."""
    job_id: Annotated[str, expression(VARIABLES, judges=False)] = ""
    """The job's id, from the answer to `enqueue`; default: body.job_id or body.id."""
    error: Annotated[str, expression(VARIABLES, judges=False)] = ""
    """Why it failed, from the answer to `poll`; default: what stands under a name such as error or message."""

    @model_validator(mode="after")
    def _names_the_job(self) -> Self:
        if ("{job_id}" in self.poll.url) == ("{nonce}" in self.poll.url):
            raise FieldsError([(("poll",), "expected a URL with either {job_id} or {nonce} in it")])
        return self

    @property
    def shows_pickup(self) -> bool:
        return bool(self.started)

    @property
    def target(self) -> str:
        return self.enqueue.target

    @property
    def host(self) -> str:
        return self.enqueue.host

    @cached_property
    def stages(self) -> tuple[tuple[Stage, Expression], ...]:
        return compiled(VARIABLES, self.failed, self.done, self.started)

    @asynccontextmanager
    async def canary(self, reach: Reach) -> AsyncIterator[Canary]:
        yield _Http(self, reach)


class _Http:
    def __init__(self, config: HttpCanary, reach: Reach) -> None:
        self.config, self.reach = config, reach
        self._over: set[str] = set()

    async def send(self, sentinel: Sentinel) -> str:
        enqueue, nonce = self.config.enqueue, {"nonce": sentinel.id}
        texts = enqueue.model_fields_set & {"url", "headers", "body", "json_body"}
        request = enqueue.model_copy(update={name: filled(getattr(enqueue, name), **nonce) for name in texts})
        answer = await self._ask(request, sentinel.id, SENDING)
        self.reach.facts["address"] = answer.address
        if not 200 <= answer.status < 300:
            said = why(body_of(answer)) if "json" in answer.headers.get("content-type", "") else ""
            raise _told(Fault("canary.enqueue_failed", f"enqueue got {answer.status}{said and f': {said}'}"), answer)
        return sentinel.id if "{nonce}" in self.config.poll.url else self._job_id(answer)

    def _job_id(self, answer: Exchange) -> str:
        body, missing = body_of(answer), "neither job_id nor id in its body"
        try:
            if self.config.job_id:
                missing = f"{self.config.job_id} gives none"
                found = [compile_expression(self.config.job_id, VARIABLES, judges=False).value(_values(answer))]
            else:
                found = [body.get("job_id"), body.get("id")] if isinstance(body, dict) else []
        except ExpressionError as error:
            found, missing = [], f"{self.config.job_id} cannot be computed: {error}"
        if job_id := next(filter(None, map(identifier, found)), ""):
            return job_id
        raise _told(Fault("canary.job_id_missing", f"the answer to enqueue names no job: {missing}"), answer)

    async def look(self, ref: str) -> Look:
        poll, id_ = self.config.poll, quote(ref, safe="")
        request = poll.model_copy(update={"url": filled(poll.url, job_id=id_, nonce=id_)})
        try:
            answer = await self._ask(request, "", self.reach.patience)
        except Fault as fault:
            if fault.ours:
                raise
            failed = Fault("canary.poll_failed", f"poll failed: {fault.message}", fault.phase, retryable=True)
            failed.facts, failed.excerpt = fault.facts, fault.excerpt
            raise failed from None
        look = self._read(answer)
        if look.stage in (Stage.DONE, Stage.FAILED, Stage.LOST):
            self._over.add(ref)
        return look

    def _read(self, answer: Exchange) -> Look:
        values, odd = _values(answer), not 200 <= answer.status < 300
        stage, trouble = judged(
            [(stage, one) for stage, one in self.config.stages if not odd or "status" in one.names], values
        )
        if stage is None and answer.status in (404, 410):
            return Look(Stage.LOST)
        if stage is None and odd:
            raise _told(Fault("canary.poll_failed", f"poll got {answer.status}", retryable=True), answer)
        body = body_of(answer)
        done = progress_of(body)
        if stage is None:
            stage = Stage.QUEUED if self.config.started else Stage.SENT
        elif stage is Stage.FAILED:
            trouble = self._why(values, body)
        return Look(stage, error=trouble, progress=done and done[0])

    def _why(self, values: Mapping[str, Json], body: Json) -> str:
        if self.config.error:
            try:
                return why(compile_expression(self.config.error, VARIABLES, judges=False).value(values))
            except ExpressionError as error:
                return f"{self.config.error} cannot be computed: {error}"
        return why(body)

    async def cancel(self, ref: str) -> bool:
        """Nothing can be taken back. Whether it is over."""
        return ref in self._over or (await self.look(ref)).stage in (Stage.DONE, Stage.FAILED, Stage.LOST)

    async def depth(self) -> Depth:
        return Depth()

    async def _ask(self, request: HttpTarget, key: str, seconds: float) -> Exchange:
        reach, trace = self.reach, Trace()
        try:
            async with asyncio.timeout(seconds):
                return await reach.wire.exchange(request.request(key, reach.egress, trace, reach.now))
        except TimeoutError:
            fault = Fault("timeout.exceeded", f"timed out after {span(seconds * 1000)}", retryable=True)
            fault.locate(trace)
            raise fault from None


def _values(answer: Exchange) -> dict[str, Json]:
    body = None if answer.unread else body_of(answer)
    return {
        "status": answer.status,
        "headers": answer.headers,
        "body": body,
        "elapsed_ms": round(answer.elapsed),
    }


def _told(fault: Fault, answer: Exchange) -> Fault:
    fault.facts |= facts(answer)
    fault.excerpt = excerpt(answer)
    return fault
