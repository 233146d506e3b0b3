"""The tools that acknowledge, close, silence, pause and begin maintenance. Their descriptions address agents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from watchdog.api.serializers.acts import (
    serialize_forgotten_jobs,
    serialize_incident_acknowledgement,
    serialize_incident_closure,
    serialize_probe_pause,
    serialize_resent_notifications,
    serialize_silence,
    serialize_started_silence,
)
from watchdog.api.serializers.contracts import serialize_accepted_contract_drift
from watchdog.api.serializers.maintenance import serialize_maintenance_window, serialize_started_maintenance
from watchdog.api.serializers.receivers import serialize_receiver_test
from watchdog.config_types import parse_config_duration_ms
from watchdog.domain.acts import Actor, OperatorActRefusedError
from watchdog.domain.model import Severity
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.silencing import SilenceMatcher
from watchdog.mcp_server.context import McpToolContext
from watchdog.mcp_server.tool_jobs import McpToolRequestError
from watchdog.service.act_input import parse_act_instant
from watchdog.service.acts import (
    ActResultT,
    MaintenanceRequest,
    SilenceRequest,
    StartedMaintenance,
    accept_contract,
    acknowledge_incident,
    begin_maintenance,
    begin_silence,
    close_incident,
    end_maintenance,
    end_silence,
    forget_missing_jobs,
    pause_probe,
    remove_acknowledgement,
    resend_undelivered_notifications,
    resume_probe,
    silence_until_resolved,
)
from watchdog.store.database import Database

ActToolResult: TypeAlias = dict[str, Any]
ActToolContext: TypeAlias = Context[Any, Any]
OpenIncidentParameter = Annotated[str, Field(max_length=200, description="The id of an open incident.")]
ProbeParameter = Annotated[str, Field(max_length=200, description="A probe's id or name, as in list_probes.")]
DurationParameter = Annotated[str, Field(max_length=50, description="For how long, such as 30m, 4h or 2d.")]
EndParameter = Annotated[
    str, Field(max_length=50, description="Until when, with the time zone, such as 22:00Z or 2026-12-01T22:00+01:00.")
]
MatchedGroupParameter = Annotated[str, Field(description="The group of the probes.")]
MatchedTagsParameter = Annotated[list[str], Field(description="A probe must have all of them.")]
MatchedKindParameter = Annotated[str, Field(description="The kind of the probes, such as http.")]
MatchedSeverityParameter = Annotated[Severity | None, Field(description="The severity of the probes.")]
CommentParameter = Annotated[str, Field(description="Why, for people on call; at most 500 characters.")]


class ActTools:
    """The methods are the tools; their docstrings are the descriptions that clients see."""

    def __init__(self, context: McpToolContext):
        self._context = context

    async def acknowledge(
        self, incident: OpenIncidentParameter, ctx: ActToolContext, comment: CommentParameter = ""
    ) -> ActToolResult:
        """Show that someone is handling an open incident: {incident, acknowledgement: {at, by, through, comment}}.
        Pages and the Slack message show it. The first acknowledgement stays; safe to repeat. Requires an API key with
        role operator.
        """
        acknowledgement, _ = await self._run_act(
            ctx, lambda database, actor, now: acknowledge_incident(database, incident, actor, comment, now)
        )
        return {**serialize_incident_acknowledgement(incident, acknowledgement)}

    async def unacknowledge(
        self, incident: OpenIncidentParameter, ctx: ActToolContext, comment: CommentParameter = ""
    ) -> ActToolResult:
        """Remove the acknowledgement of an open incident, if it has any: {incident, acknowledgement: null}. Safe to
        repeat. Requires an API key with role operator.
        """
        await self._run_act(
            ctx, lambda database, actor, now: remove_acknowledgement(database, incident, actor, comment, now)
        )
        return {**serialize_incident_acknowledgement(incident, None)}

    async def close_incident(
        self, incident: OpenIncidentParameter, ctx: ActToolContext, comment: CommentParameter = ""
    ) -> ActToolResult:
        """Close an open incident whose failure people have handled outside Watchdog: {incident, closure: {at, by,
        through, comment}, outlook}. Destinations that were notified of it are notified of the end. If the failure
        continues, another incident opens: outlook states when, if that is known. Ask the person on call before you
        close. Safe to repeat: the first closure stays. Requires an API key with role operator.
        """
        closed = await self._run_act(
            ctx, lambda database, actor, now: close_incident(database, incident, actor, comment, now)
        )
        return {**serialize_incident_closure(incident, closed.closure, closed.outlook)}

    async def resend(
        self,
        incident: Annotated[str, Field(max_length=200, description="The id of an incident.")],
        ctx: ActToolContext,
        destination: Annotated[str, Field(description="Such as oncall/slack; empty: every destination.")] = "",
        comment: CommentParameter = "",
    ) -> ActToolResult:
        """Send the undelivered notifications of an incident again: {incident, destinations}. Requires an API key with
        role operator.
        """
        destinations = await self._run_act(
            ctx,
            lambda database, actor, now: resend_undelivered_notifications(
                database, incident, destination, actor, comment, now=now
            ),
        )
        return {**serialize_resent_notifications(incident, destinations)}

    async def test_receiver(
        self,
        receiver: Annotated[str, Field(max_length=200, description="A receiver, or a destination as oncall/slack.")],
        ctx: ActToolContext,
        comment: CommentParameter = "",
    ) -> ActToolResult:
        """Send a test alert and its end to a receiver: {receiver, destinations: [{destination, address, delivered,
        error, advice}]}. People get these messages: ask the person on call before you test. Each destination may be
        tested once in 30 s. Requires an API key with role operator.
        """
        try:
            actor = self._context.get_operator(ctx.request_context.request)
            results = await self._context.test_receiver(receiver, actor, comment)
        except McpToolRequestError as e:
            raise self._to_tool_error(e) from None
        return {**serialize_receiver_test(receiver, results)}

    async def silence(
        self,
        ctx: ActToolContext,
        duration: DurationParameter = "",
        until: EndParameter = "",
        probe: ProbeParameter = "",
        group: MatchedGroupParameter = "",
        tags: MatchedTagsParameter = [],  # noqa: B006 - only read
        kind: MatchedKindParameter = "",
        severity: MatchedSeverityParameter = None,
        subject: Annotated[
            str, Field(description=r"The incident's subject, such as a job. * is any text, \* a star.")
        ] = "",
        all: Annotated[bool, Field(description="Every incident; then no other condition may be given.")] = False,
        comment: CommentParameter = "",
    ) -> ActToolResult:
        """Hold back the notifications of some incidents for a duration or until an instant: {silence: {id, match,
        until, ...}, open_incident_count, probe_count, warnings}. A warning states that no probe matches, for example
        because of a misspelt group, or that the subject is not known. An incident must match every condition that is
        given; at least one is necessary, or all. Incidents open and resolve as before, and what is still open at the
        end is sent then. Ask the person on call before you silence. Each call begins another silence. Requires an API
        key with role operator.
        """
        matcher = SilenceMatcher(ProbeMatcher(severity, frozenset(tags), group, kind, probe), subject)
        compute_end = self._build_end_calculator(duration, until)
        started = await self._run_act(
            ctx,
            lambda database, actor, now: begin_silence(
                database, SilenceRequest(matcher, compute_end(now), comment, selects_everything=all), actor, now
            ),
        )
        return {**serialize_started_silence(*started)}

    async def silence_until_resolved(
        self, incident: OpenIncidentParameter, ctx: ActToolContext, comment: CommentParameter = ""
    ) -> ActToolResult:
        """Hold back the notifications of one open incident until it is resolved: {id, incident, match, until, ...}. Ask
        the person on call before you silence. Safe to repeat. Requires an API key with role operator.
        """
        silence = await self._run_act(
            ctx, lambda database, actor, now: silence_until_resolved(database, incident, actor, comment, now)
        )
        return {**serialize_silence(silence)}

    async def unsilence(
        self, id: Annotated[str, Field(max_length=200, description="The id of a silence.")], ctx: ActToolContext
    ) -> ActToolResult:
        """End a silence: {id, match, until, ended_at, ended_by, ...}. What it held back about incidents that are still
        open is sent at once. Requires an API key with role operator.
        """
        ended = await self._run_act(ctx, lambda database, actor, now: end_silence(database, id, actor, now))
        return {**serialize_silence(ended)}

    async def pause_probe(
        self,
        probe: ProbeParameter,
        ctx: ActToolContext,
        duration: DurationParameter = "",
        until: EndParameter = "",
        comment: CommentParameter = "",
    ) -> ActToolResult:
        """Stop running a probe for a duration, until an instant, or without both until resume_probe: {probe, pause:
        {since, until, by, through, comment}}. Nothing about it is reported, the time does not count for uptime, and an
        incident that is open stays open. If the probe is paused already, the end and the comment change. Ask the person
        on call before you pause; to hold back only notifications, use silence. Requires an API key with role operator.
        """
        compute_end = self._build_end_calculator(duration, until) if duration or until else None
        paused = await self._run_act(
            ctx,
            lambda database, actor, now: pause_probe(
                database, probe, None if compute_end is None else compute_end(now), actor, comment, now=now
            ),
        )
        return {**serialize_probe_pause(paused.probe_id, paused.pause)}

    async def resume_probe(
        self, probe: ProbeParameter, ctx: ActToolContext, comment: CommentParameter = ""
    ) -> ActToolResult:
        """Run a paused probe again, from its next slot on: {probe, pause: null}. Nothing is caught up. Requires an API
        key with role operator.
        """
        ended = await self._run_act(
            ctx, lambda database, actor, now: resume_probe(database, probe, actor, comment, now)
        )
        return {**serialize_probe_pause(ended.probe_id, None)}

    async def forget_jobs(
        self,
        probe: ProbeParameter,
        ctx: ActToolContext,
        job: Annotated[
            str, Field(max_length=1_000, description="The name of a missing job; empty: every missing job.")
        ] = "",
        comment: CommentParameter = "",
    ) -> ActToolResult:
        """Mark missing jobs, which their source no longer lists, as removed on purpose: {probe, jobs}. Their incident
        ends with the next run of the probe. A job that is listed again is monitored again. Ask the person on call
        before you use this tool. Requires an API key with role operator.
        """
        forgotten = await self._run_act(
            ctx,
            lambda database, actor, now: forget_missing_jobs(database, probe, job, actor, comment, now=now),
        )
        return {**serialize_forgotten_jobs(forgotten)}

    async def accept_contract(
        self,
        probe: ProbeParameter,
        ctx: ActToolContext,
        digest: Annotated[
            str, Field(max_length=200, description="drift.digest of get_contract; empty: what the server offers now.")
        ] = "",
        comment: CommentParameter = "",
    ) -> ActToolResult:
        """Accept what an MCP server offers now as its contract: {probe, digest, change_count, acceptance}. The incident
        about the changes ends with the next good runs of the probe. Read the changes with get_contract, and ask the
        person on call before you use this tool; never accept a suspicious text on your own. Requires an API key with
        role operator.
        """
        accepted = await self._run_act(
            ctx, lambda database, actor, now: accept_contract(database, probe, digest, actor, comment, now=now)
        )
        return {**serialize_accepted_contract_drift(accepted)}

    async def _run_act(self, ctx: ActToolContext, act: Callable[[Database, Actor, int], ActResultT]) -> ActResultT:
        """Raises ToolError."""
        try:
            actor = self._context.get_operator(ctx.request_context.request)
            return await self._context.run_act(lambda database, now: act(database, actor, now))
        except McpToolRequestError as e:
            raise self._to_tool_error(e) from None

    async def begin_maintenance(
        self,
        ctx: ActToolContext,
        duration: DurationParameter = "",
        until: EndParameter = "",
        starts_at: Annotated[
            str, Field(max_length=50, description="When it starts, with the time zone, as until; empty: now.")
        ] = "",
        probe: ProbeParameter = "",
        group: MatchedGroupParameter = "",
        tags: MatchedTagsParameter = [],  # noqa: B006 - only read
        kind: MatchedKindParameter = "",
        severity: MatchedSeverityParameter = None,
        all: Annotated[bool, Field(description="Every probe; then no other condition may be given.")] = False,
        comment: CommentParameter = "",
    ) -> ActToolResult:
        """Put some probes into maintenance: {maintenance: {id, match, until, ...}, probe_count}. A probe must match
        every condition that is given; at least one is necessary, or all. It starts now or at starts_at, and a
        duration counts from this start. The runs of the probes go on, but no incident of theirs opens, and the time
        does not count for uptime. What is still wrong at the end opens an incident then. Ask the person on call before
        you use this tool. Each call begins another window. Requires an API key with role operator.
        """
        matcher = ProbeMatcher(severity, frozenset(tags), group, kind, probe)
        compute_end = self._build_end_calculator(duration, until)

        def begin(database: Database, actor: Actor, now: int) -> tuple[StartedMaintenance, int]:
            start = _parse_instant("starts_at", starts_at, now) if starts_at else None
            ends_at = compute_end(now if start is None else start)
            request = MaintenanceRequest(matcher, ends_at, comment, selects_everything=all, starts_at=start)
            return begin_maintenance(database, request, actor, now), now

        (window, probe_count), now = await self._run_act(ctx, begin)
        return {**serialize_started_maintenance(window, probe_count, now)}

    async def end_maintenance(
        self,
        id: Annotated[str, Field(max_length=200, description="The id of a maintenance window.")],
        ctx: ActToolContext,
    ) -> ActToolResult:
        """End maintenance in effect, including a configured window, or cancel maintenance that a person planned: {id,
        match, until, ended_at, ended_by, ...}. What is still wrong opens an incident with the next bad run. Requires an
        API key with role operator.
        """
        now, ended = await self._run_act(
            ctx, lambda database, actor, now: (now, end_maintenance(database, id, actor, now))
        )
        return {**serialize_maintenance_window(ended, now)}

    def _build_end_calculator(self, duration: str, until: str) -> Callable[[int], int]:
        """How the end follows from now, in epoch ms. Raises ToolError."""
        if bool(duration) == bool(until):
            message = "give either duration (how long) or until (when it ends)"
            raise self._to_tool_error(McpToolRequestError(message))
        try:
            duration_ms = parse_config_duration_ms(duration) if duration else 0
        except ValueError as e:
            raise self._to_tool_error(McpToolRequestError(f"duration: {e}")) from None
        return lambda now: now + duration_ms if duration else _parse_instant("until", until, now)

    def _to_tool_error(self, error: McpToolRequestError) -> ToolError:
        return ToolError(self._context.runner.mask(str(error)))


def _parse_instant(name: str, text: str, now: int) -> int:
    """An instant with its time zone, in epoch ms. Raises OperatorActRefusedError."""
    try:
        return parse_act_instant(text, "", now)
    except OperatorActRefusedError as e:
        raise OperatorActRefusedError(e.refusal, f"{name}: {e}") from None
