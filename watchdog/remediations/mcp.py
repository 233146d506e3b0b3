"""Remediation by one call of an MCP tool, such as `trigger_task`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, model_validator

from watchdog.config_types import MultiFieldValidationError, SingleLineText
from watchdog.domain.formatting import format_count_with_noun
from watchdog.domain.model import Json
from watchdog.net.errors import ProbeError
from watchdog.net.targets import McpTarget
from watchdog.queues.base import QueueConnectContext
from watchdog.queues.job_status import fill_braced_placeholders_in_json, find_job_error_message, parse_job_id
from watchdog.remediations.base import (
    RemediationAction,
    RemediationParameters,
    find_remediation_placeholder_errors,
    find_remediation_placeholders,
)

if TYPE_CHECKING:
    from watchdog.net.mcp import McpTool


class McpRemediation(McpTarget, RemediationAction):
    """One MCP tool call. The string values in `arguments` can contain parameters such as `{id}` and
    `{subject}`."""

    kind: ClassVar[str] = "mcp"
    example: ClassVar[str] = """
        probes:
          - name: Search MCP
            mcp: https://mcp.acme.example/mcp
            remediation:
              on: task.stale
              mcp: {url: "https://mcp.acme.example/mcp", tool: trigger_task, arguments: {name: "{subject}"}}
    """

    tool: SingleLineText
    """The name of the tool to call."""
    arguments: dict[str, Json] = Field(default_factory=dict)
    """The arguments for the call."""

    @model_validator(mode="after")
    def _validate_placeholders(self) -> Self:
        if errors := find_remediation_placeholder_errors(self.arguments, "arguments"):
            raise MultiFieldValidationError(errors)
        return self

    @property
    def used_parameters(self) -> frozenset[str]:
        return find_remediation_placeholders(self.arguments)

    @property
    def description(self) -> str:
        return f"tool {self.tool} of {self.target}"

    def preload(self) -> None:
        import_module("watchdog.net.mcp")

    async def execute(
        self, context: RemediationParameters, connect_context: QueueConnectContext, *, dry_run: bool
    ) -> str:
        """A dry run connects to the server and checks whether the tool is listed."""
        from watchdog.net.mcp import McpSessionPlan, McpSessionResult, McpSessionRunner

        result = McpSessionResult()

        def choose_tool_call(tools: Sequence[McpTool]) -> tuple[str, Mapping[str, Json]] | None:
            if all(tool.name != self.tool for tool in tools):
                raise ProbeError(
                    "mcp.tool_missing",
                    f"tool {self.tool} is missing: {format_count_with_noun(result.tool_count, 'tool')} listed",
                )
            return (
                None if dry_run else (self.tool, fill_braced_placeholders_in_json(self.arguments, **context._asdict()))
            )

        target = await self.prepare_mcp_endpoint_or_command(
            connect_context.network,
            connect_context.allow_private_addresses,
            connect_context.phase_timer,
            connect_context.started_at,
        )
        session = McpSessionRunner(
            connect_context.network.connector,
            connect_context.network.cpu_worker,
            target,
            plan=McpSessionPlan(choose_tool_call=choose_tool_call, tool_name=self.tool),
            phase_timer=connect_context.phase_timer,
            timeout_s=connect_context.timeout_s,
            now=connect_context.started_at,
        )
        await session.run_mcp_session_into_result(result)
        if dry_run:
            return "would call the tool, which is listed"
        if result.tool_is_error:
            raise ProbeError(
                "mcp.tool_error", f"{self.tool} reports an error: {find_job_error_message(result.tool_result)}"
            )
        job_id = parse_job_id(result.tool_result.get("job_id")) if isinstance(result.tool_result, dict) else ""
        return f"started as job {job_id}" if job_id else "called"
