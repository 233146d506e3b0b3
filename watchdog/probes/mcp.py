"""The `mcp` probe: opens a session, lists the tools, calls one, and reads the tasks that it reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import model_validator

from watchdog.config_types import MultiFieldValidationError
from watchdog.domain.formatting import DAY_MS, HOUR_MS, format_iso8601
from watchdog.domain.mcp_contract.drift import DiscoveryOutcome
from watchdog.domain.mcp_contract.stored import MCP_CONTRACT_STATE_KEYS
from watchdog.domain.model import Json, Observation
from watchdog.domain.probe_state import (
    MCP_TARGET_DIGEST_STATE_KEY,
    NEGOTIATED_MCP_ERA_STATE_KEY,
    NEVER_RUN_MCP_TASKS_STATE_KEY,
    NegotiatedMcpEraRecord,
)
from watchdog.net.errors import ProbeError
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.probes.expectations import build_observation_from_error
from watchdog.probes.mcp_contract import McpContractReviewer
from watchdog.probes.mcp_judgement import (
    McpSessionCriteria,
    McpSessionRunTimesAndState,
    build_interrupted_mcp_session_evidence,
    build_mcp_session_measurements,
    judge_mcp_session,
)
from watchdog.probes.mcp_settings import McpProbeSettings

if TYPE_CHECKING:
    from watchdog.net.mcp import McpSessionResult, McpSessionRunner

NEAR_TOKEN_EXPIRY_DAYS = 14
MCP_PROTOCOL_ERA_TTL_MS = 24 * HOUR_MS
"""How long a negotiated protocol era is reused."""
_MCP_SERVER_STATE_KEYS = (NEGOTIATED_MCP_ERA_STATE_KEY, NEVER_RUN_MCP_TASKS_STATE_KEY, *MCP_CONTRACT_STATE_KEYS)


class McpProbe(Probe):
    """Opens a session with an MCP server (initialize, tools/list), calls the tool that `call` names (by default
    `health_check`, if there is one), and reads `resource` if it is set. Regardless of `expect`, the server must list
    the required tools, and the tool call must not report an error. `token_days` is the number of days until the bearer
    token that is sent expires, if it is a JSON Web Token."""

    kind: ClassVar[str] = "mcp"
    example: ClassVar[str] = """
        probes:
          - name: Search MCP
            mcp:
              url: https://mcp.acme.example/mcp
              auth: {bearer: "${MCP_TOKEN}"}
              tools: [search, fetch]
              call: {tool: health_check}
              tasks: {registry_sync: 15m, "*": 2h}
            expect: ["result.healthy"]
            prefer: ["token_days >= 7"]
    """
    reason_prefixes: ClassVar[tuple[str, ...]] = ("task.",)
    cards: ClassVar[tuple[str, ...]] = ("tasks", "contract", "latency", "phases")
    expression_variables: ClassVar[Mapping[str, str]] = {
        "result": "dyn",
        "is_error": "bool",
        "tools": "list(string)",
        "resource": "dyn",
        "server": "map(string, string)",
        "protocol": "string",
        "elapsed_ms": "int",
        "token_days": "int",
    }
    form_fields: ClassVar[tuple[str, ...]] = ("mcp.url",)

    mcp: McpProbeSettings
    """The MCP server. The short form is its URL."""

    @model_validator(mode="after")
    def _reject_unavailable_expression_variables(self) -> Self:
        unavailable = {}
        if self.mcp.call == "off":
            unavailable = dict.fromkeys(("result", "is_error"), "no tool is called: remove `call: off`")
        if not self.mcp.resource:
            unavailable["resource"] = "no resource is read: set resource"
        if self.mcp.command:
            unavailable["token_days"] = "a command is sent no bearer token: remove the expression"
        errors = [
            ((field, i), f"{name} has no value, because {unavailable[name]}")
            for field, expressions in (
                ("expect", self.expectation_expressions),
                ("prefer", self.preference_expressions),
            )
            for i, expression in enumerate(expressions)
            for name in sorted(expression.used_variables & unavailable.keys())
        ]
        if errors:
            raise MultiFieldValidationError(errors)
        return self

    @property
    def target(self) -> str:
        return self.mcp.target

    @property
    def sends_http_requests(self) -> bool:
        return self.mcp.sends_http_requests

    @property
    def may_change_target(self) -> bool:
        return self.mcp.call is not None and self.mcp.call != "off"

    @property
    def may_run_without_store(self) -> bool:
        return not self.may_change_target

    @property
    def network_endpoint(self) -> str:
        return self.mcp.network_endpoint

    @property
    def max_task_ages(self) -> Mapping[str, int]:
        return self.mcp.tasks

    def preload(self) -> None:
        import_module("watchdog.net.mcp")

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        import asyncio  # not when a configuration is only read

        from watchdog.net.mcp import McpSessionResult

        remembered, state_updates = self._load_mcp_state_forgetting_other_server(context)
        era, result = _read_remembered_protocol_era(remembered, context.started_at), McpSessionResult()
        self._note_token_expiry(result, context.started_at)
        context.phase_timer.describe_response = lambda: build_interrupted_mcp_session_evidence(result)
        try:
            session = await self._prepare_session(context, era)
            await session.run_mcp_session_into_result(result)
        except ProbeError as error:
            if era and not error.is_internal:
                state_updates[NEGOTIATED_MCP_ERA_STATE_KEY] = None
            return self._build_failed_observation(error, result, context, state_updates)
        except asyncio.CancelledError:
            if result.protocol_era != era:
                state_updates[NEGOTIATED_MCP_ERA_STATE_KEY] = _build_negotiated_mcp_era_json(
                    result.protocol_era, context
                )
            context.state_updates_on_timeout.update(state_updates)
            raise
        if result.protocol_era != era:
            state_updates[NEGOTIATED_MCP_ERA_STATE_KEY] = _build_negotiated_mcp_era_json(result.protocol_era, context)
        try:
            observation = await self._judge_session_and_contract(
                result, context, remembered, is_era_remembered=bool(era)
            )
        except ProbeError as error:  # of the worker process
            return self._build_failed_observation(error, result, context, state_updates)
        return replace(
            observation,
            phases=context.phase_timer.phase_durations_ms,
            state_updates={**state_updates, **observation.state_updates},
        )

    async def _judge_session_and_contract(
        self,
        session: McpSessionResult,
        context: ProbeAttemptContext,
        remembered: Mapping[str, Json],
        *,
        is_era_remembered: bool,
    ) -> Observation:
        """Without phases. Raises ProbeError."""
        reviewer = McpContractReviewer(context, remembered, self.mcp.drift_mode)
        observation, session_contract = await context.network.run_cpu_work_inline_or_in_worker(
            context.phase_timer,
            judge_mcp_session,
            session.detach(),
            McpSessionCriteria(self.mcp, self.expectation_expressions, self.preference_expressions),
            McpSessionRunTimesAndState(
                context.started_at,
                context.slot,
                remembered.get(NEVER_RUN_MCP_TASKS_STATE_KEY),
                reviewer.accepted_digest,
            ),
            in_worker=bool(session.large_results) or (self._has_looping_expression and session.has_many_json_elements),
        )
        if session_contract is None:
            removed: dict[str, Json] = {key: None for key in MCP_CONTRACT_STATE_KEYS if key in remembered}
            return replace(observation, state_updates={**observation.state_updates, **removed})
        return await reviewer.add_review_to_observation(
            observation, session_contract, _find_discovery_outcome(session, is_era_remembered=is_era_remembered)
        )

    async def _prepare_session(self, context: ProbeAttemptContext, era: str) -> McpSessionRunner:
        """Raises ProbeError if no access token can be obtained."""
        from watchdog.net.mcp import McpSessionPlan, McpSessionRunner

        started = monotonic()
        target = await self.mcp.prepare_mcp_endpoint_or_command(
            context.network, self.allow_private_addresses, context.phase_timer, context.started_at
        )
        return McpSessionRunner(
            context.network.connector,
            context.network.cpu_worker,
            target,
            plan=McpSessionPlan(era, self.mcp.choose_tool_call, self.mcp.resource, self.mcp.name_of_tool_to_call),
            phase_timer=context.phase_timer,
            timeout_s=context.remaining_s - (monotonic() - started),
            now=context.started_at,
        )

    @cached_property
    def _has_looping_expression(self) -> bool:
        return any(expression.loops for expression in (*self.expectation_expressions, *self.preference_expressions))

    def _load_mcp_state_forgetting_other_server(
        self, context: ProbeAttemptContext
    ) -> tuple[Mapping[str, Json], dict[str, Json]]:
        """What earlier runs remembered of this server, and the state updates that forget another server."""
        if context.probe_state.get(MCP_TARGET_DIGEST_STATE_KEY) == self.mcp.server_identity_digest:
            return context.probe_state, {}
        forgotten: dict[str, Json] = {key: None for key in _MCP_SERVER_STATE_KEYS if key in context.probe_state}
        return {}, {MCP_TARGET_DIGEST_STATE_KEY: self.mcp.server_identity_digest, **forgotten}

    def _note_token_expiry(self, session: McpSessionResult, now: int) -> None:
        """In the measurements, and in the evidence if it is near."""
        if (expires_at := self.mcp.bearer_token_expires_at) is not None:
            session.token_days = (expires_at - now) // DAY_MS
            if session.token_days < NEAR_TOKEN_EXPIRY_DAYS:
                session.facts["token_expires_at"] = format_iso8601(expires_at)

    def _build_failed_observation(
        self, error: ProbeError, session: McpSessionResult, context: ProbeAttemptContext, state_updates: dict[str, Json]
    ) -> Observation:
        observation = build_observation_from_error(error, context.phase_timer)
        is_connected = "address" in session.facts or (self.mcp.command and not error.is_internal)
        return replace(
            observation,
            duration=observation.duration if is_connected else None,
            measurements=build_mcp_session_measurements(session),
            state_updates=state_updates,
        )


def _find_discovery_outcome(session: McpSessionResult, *, is_era_remembered: bool) -> DiscoveryOutcome:
    if session.is_modern or session.has_refused_modern_era:
        return DiscoveryOutcome.DECIDED
    return DiscoveryOutcome.NOT_REQUESTED if is_era_remembered else DiscoveryOutcome.UNANSWERED


def _build_negotiated_mcp_era_json(era: str, context: ProbeAttemptContext) -> Json:
    """What later runs remember; None: nothing, because no era was negotiated."""
    return NegotiatedMcpEraRecord(era, context.started_at).to_json() if era else None


def _read_remembered_protocol_era(remembered: Mapping[str, Json], now: int) -> str:
    """The era negotiated in an earlier run. Empty: negotiate it again."""
    stored = remembered.get(NEGOTIATED_MCP_ERA_STATE_KEY)
    if not stored:
        return ""
    record = NegotiatedMcpEraRecord.from_json(stored)
    return record.era if 0 <= now - record.negotiated_at < MCP_PROTOCOL_ERA_TTL_MS else ""
