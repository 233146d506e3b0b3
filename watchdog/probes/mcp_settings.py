"""The configuration of the `mcp` probe's server and of what is requested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from watchdog.config_types import ConfigModel, Duration, FieldPath, SingleLineText
from watchdog.domain.mcp_contract.drift import DriftMode
from watchdog.domain.model import Json
from watchdog.net.targets import McpTarget

if TYPE_CHECKING:
    from watchdog.net.mcp import McpTool

DEFAULT_CALLED_MCP_TOOL_NAME = "health_check"
"""The tool that is called by default."""


class McpToolCallSettings(ConfigModel):
    """An MCP tool call. The short form is the name of the tool."""

    shorthand_field: ClassVar[str] = "tool"

    tool: SingleLineText
    """The name of the tool."""
    arguments: dict[str, Json] = Field(default_factory=dict)
    """The arguments for the call."""


class McpProbeSettings(McpTarget):
    """An MCP server: exactly one of `url`, `sse` and `command`. The short form is the URL alone."""

    shorthand_field: ClassVar[str] = "url"

    tools: tuple[SingleLineText, ...] = ()
    """Tools that the server must list."""
    call: Literal["off"] | McpToolCallSettings | None = None
    """The tool to call, or `off`; default: `health_check`, if the server lists it and it requires no arguments."""
    drift: Literal["breaking", "any", "off"] = "breaking"
    """Which differences from the accepted contract of the server make the probe degraded until a person accepts them
    (docs/mcp-contracts.md). `breaking`: an older version of the protocol, a lost capability, a change of the tools
    that refuses calls which were valid, and a new text that seems to instruct models. `any`: every difference. `off`:
    none, and no contract is stored."""
    resource: str = ""
    """The URI of a resource to read."""
    tasks: dict[SingleLineText, Duration] = Field(default_factory=dict)
    """The maximum age of the last run of each scheduled task, by name; `*` for all other tasks. Watchdog reads the
    tasks from the result of the tool call (docs/health-check.md)."""

    def _validation_errors(self) -> list[tuple[FieldPath, str]]:
        errors = super()._validation_errors()
        if self.call == "off" and self.tasks:
            message = "tasks are read from the result of a tool call: remove tasks or `call: off`"
            errors.append((("tasks",), message))
        return errors

    @property
    def drift_mode(self) -> DriftMode:
        """With `off`, nothing is compared."""
        return DriftMode.ANY if self.drift == "any" else DriftMode.BREAKING

    @property
    def name_of_tool_to_call(self) -> str:
        """The tool that is called if it is listed; empty: none."""
        if self.call == "off":
            return ""
        return self.call.tool if self.call else DEFAULT_CALLED_MCP_TOOL_NAME

    @property
    def required_tools(self) -> tuple[str, ...]:
        """Tools that must be listed, those of `call` and `tasks` included."""
        if isinstance(self.call, McpToolCallSettings):
            return (*self.tools, self.call.tool)
        return (*self.tools, DEFAULT_CALLED_MCP_TOOL_NAME) if self.tasks else self.tools

    def choose_tool_call(self, listed_tools: Sequence[McpTool]) -> tuple[str, Mapping[str, Json]] | None:
        """The tool to call, and its arguments. None: none is called."""
        if self.call is None:
            callable_ = any(
                tool.name == DEFAULT_CALLED_MCP_TOOL_NAME and not tool.needs_arguments for tool in listed_tools
            )
            return (DEFAULT_CALLED_MCP_TOOL_NAME, {}) if callable_ else None
        if self.call == "off" or all(tool.name != self.call.tool for tool in listed_tools):
            return None
        return self.call.tool, self.call.arguments
