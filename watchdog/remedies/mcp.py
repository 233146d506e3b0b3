"""A remedy behind an MCP server: one call of a tool, such as `trigger_task`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from watchdog.fields import FieldsError, Line
from watchdog.model import Json
from watchdog.queues.base import Reach
from watchdog.queues.told import filled, identifier, why
from watchdog.remedies.base import Act, Cause, known, placeholders
from watchdog.wire.faults import Fault
from watchdog.wire.targets import McpTarget
from watchdog.words import count

if TYPE_CHECKING:
    from watchdog.wire.mcp import Tool


class McpRemedy(McpTarget, Act):
    """A tool's call. In the texts of `arguments` parameters stand as `{subject}`."""

    tool: Line
    """The tool to call."""
    arguments: dict[str, Json] = Field(default_factory=dict)
    """What it is called with."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if wrong := known(self.arguments, "arguments"):
            raise FieldsError(wrong)
        return self

    @property
    def parameters(self) -> frozenset[str]:
        return placeholders(self.arguments)

    @property
    def shown(self) -> str:
        return f"tool {self.tool} of {self.target}"

    def prepare(self) -> None:
        import_module("watchdog.wire.mcp")

    async def apply(self, cause: Cause, reach: Reach, *, dry: bool) -> str:
        """A dry run visits the server, and looks whether the tool is listed."""
        from watchdog.wire.mcp import Agenda, Seen, Visit

        def choose(tools: Sequence[Tool]) -> tuple[str, Mapping[str, Json]] | None:
            if all(tool.name != self.tool for tool in tools):
                raise Fault("mcp.tool_missing", f"tool {self.tool} is missing: {count(len(tools), 'tool')} listed")
            return None if dry else (self.tool, filled(self.arguments, **cause._asdict()))

        seen, goal = Seen(), self.goal(reach.egress)
        await Visit(reach.wire, goal, Agenda(choose=choose), reach.trace, reach.patience, reach.now).make(seen)
        if dry:
            return "would call it: it is listed"
        if seen.is_error:
            raise Fault("mcp.tool_error", f"{self.tool} reports an error: {why(seen.result)}")
        job = identifier(seen.result.get("job_id")) if isinstance(seen.result, dict) else ""
        return f"begun as job {job}" if job else "called"
