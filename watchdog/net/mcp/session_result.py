"""What a session requests, and what it returned."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from watchdog.domain.model import Evidence, Json
from watchdog.net.body_limits import MAX_JSON_ELEMENTS_IN_EVENT_LOOP
from watchdog.net.mcp.large_messages import WorkerParsedMcpResult
from watchdog.net.mcp.results import McpTool


@dataclass(frozen=True, slots=True)
class McpSessionPlan:
    """What a session requests."""

    protocol_era: str = ""
    """LEGACY_MCP_PROTOCOL_ERA or a modern version, if the server's era is known. Empty: negotiate it."""
    choose_tool_call: Callable[[Sequence[McpTool]], tuple[str, Mapping[str, Json]] | None] = lambda tools: None
    """Chooses the tool to call and its arguments from the listed tools. None: call none."""
    resource_uri: str = ""
    """URI of a resource to read. Empty: read none."""
    tool_name: str = ""
    """The tool that may be called."""


@dataclass(slots=True)
class McpSessionResult:
    """What a session returned. It is filled in step by step: after an error it shows how far the session came."""

    token_days: int | None = None
    """Whole days until the bearer token that is sent expires, negative once it has; None: it does not show that."""
    last_method: str = ""
    """The request that was sent last, such as "tools/list"."""
    protocol_era: str = ""
    protocol_version: str = ""
    server_name: str = ""
    server_version: str = ""
    instructions: str = ""
    """The server's text about its use, for models."""
    capabilities: tuple[str, ...] = ()
    """Such as "tools" and "tools.listChanged", in order."""
    has_refused_modern_era: bool = False
    """Whether the server has refused `server/discover`, or dropped the connection. False: it was not requested, or not
    answered in time."""
    tools: list[McpTool] = field(default_factory=list)
    """Without those of large responses."""
    callable_tools: list[McpTool] = field(default_factory=list)
    """Of the tools in large responses, the one that may be called."""
    large_results: list[WorkerParsedMcpResult] = field(default_factory=list)
    """What was read in the worker process. The other fields hold a summary of it."""
    tool_page_count: int = 0
    called_tool: str = ""
    tool_is_error: bool = False
    tool_result: Json = None
    """The tool's structured content, else its text parsed as JSON, else its text."""
    tool_result_text: str = ""
    resource_content: Json = None
    """The resource's text, parsed as JSON if it is."""
    elapsed_ms: float | None = None
    """From the start of the session to the last response, without Watchdog's own work on large responses."""
    facts: dict[str, Json] = field(default_factory=dict)
    """From the transport: address, exit code, ..."""
    build_server_output_evidence: Callable[[], Evidence] = Evidence
    """What the server has sent outside the responses that were read: evidence, if the session is interrupted."""

    @property
    def is_modern(self) -> bool:
        """Whether the protocol was negotiated by `server/discover`."""
        return bool(self.protocol_era) and self.protocol_era == self.protocol_version

    @property
    def tool_count(self) -> int:
        return len(self.tools) + sum(result.tool_count for result in self.large_results)

    @property
    def has_many_json_elements(self) -> bool:
        """Whether a loop over the elements of what was returned may take long."""
        contents = (json.dumps(self.tool_result), json.dumps(self.resource_content))
        elements = sum(content.count(character) for content in contents for character in ",[{")
        return elements + len(self.tools) > MAX_JSON_ELEMENTS_IN_EVENT_LOOP

    def detach(self) -> McpSessionResult:
        """A copy that can be pickled."""
        return replace(self, build_server_output_evidence=Evidence)

    def with_large_results_unpacked(self) -> McpSessionResult:
        """With the whole of its large results. May take long."""
        whole = replace(self, tools=[*self.tools], large_results=[])
        for large in self.large_results:
            match large.method:
                case "tools/list":
                    whole.tools += [McpTool(*fields) for fields in large.unpack()]
                case "tools/call":
                    whole.tool_result, whole.tool_result_text = large.unpack()
                case "resources/read":
                    whole.resource_content = large.unpack()
        return whole
