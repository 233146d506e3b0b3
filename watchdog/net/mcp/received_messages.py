"""What is read from the messages of a session before the SDK gets them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mcp.types import ErrorData

from watchdog.net.body_limits import MAX_BODY_BYTES_IN_EVENT_LOOP
from watchdog.net.errors import ProbeError
from watchdog.net.mcp.large_messages import LargeMcpMessageReadInputs, LargeMcpMessageReplacement, WorkerParsedMcpResult
from watchdog.net.mcp.sent_requests import SentMcpRequests
from watchdog.net.mcp.tool_schema import ToolSchemaCheckBudget
from watchdog.net.phases import PhaseTimer
from watchdog.net.worker_process import FunctionWorkerProcess


class McpMessageInspector:
    """What the SDK does not expose of messages, and the worker process for messages that are too large for the event
    loop."""

    def __init__(self, worker: FunctionWorkerProcess | None, phase_timer: PhaseTimer, tool_name: str) -> None:
        """`worker`: None: messages of any size are read in the event loop. `tool_name`: the tool that may be called."""
        self.requests = SentMcpRequests()
        self.errors: list[ErrorData] = []
        """Every JSON-RPC error."""
        self.tool_problems: dict[str, str] = {}
        """Tool -> what is invalid about its schemas."""
        self.unusable_tools: dict[str, str] = {}
        """Tool -> why MCP clients must not call it."""
        self.input_required_errors: dict[str, ProbeError] = {}
        """Method -> the error of its result, which asks for input."""
        self.schema_budget = ToolSchemaCheckBudget()
        self.protocol_version = ""
        self._worker, self.phase_timer, self._tool_name = worker, phase_timer, tool_name
        self._response_bytes = 0
        self._large_results: dict[str, WorkerParsedMcpResult] = {}

    def count_bytes_and_check_if_large(self, data: bytes, *, is_cut: bool = False) -> bool:
        """Whether a message has to be replaced in the worker process: it is longer than 64 KiB, or the results of the
        session are by now. `is_cut`: the data is only the beginning of a longer message."""
        if self._worker is None or is_cut:
            return self._worker is not None
        if b'"result"' in data:
            self._response_bytes += len(data)
        return max(len(data), self._response_bytes if b'"result"' in data else 0) > MAX_BODY_BYTES_IN_EVENT_LOOP

    async def shorten_large_message_in_worker(
        self, function: Callable[..., LargeMcpMessageReplacement], *args: object
    ) -> LargeMcpMessageReplacement:
        """Calls one of the functions that replace a message, in the worker process. Raises ProbeError."""
        if self._worker is None:
            raise RuntimeError("there is no worker process")
        context = LargeMcpMessageReadInputs(
            self.requests.methods, self.protocol_version, self._tool_name, self.schema_budget
        )
        replacement = await self._worker.run(self.phase_timer, partial(function, *args, context))
        self.schema_budget = replacement.schema_budget
        if replacement.result is not None:
            self._large_results[replacement.result.method] = replacement.result
            self.unusable_tools |= replacement.result.unusable_tools
        return replacement

    def find_error_of_result(self, method: str) -> ProbeError | None:
        """Why a result that the SDK accepts is not to be used: a large one is invalid, or it asks for input."""
        large = self._large_results.get(method)
        return self.input_required_errors.get(method) or (large.error if large else None)

    def take_large_mcp_result(self, method: str) -> WorkerParsedMcpResult | None:
        """The last response to the method, if it was large."""
        return self._large_results.pop(method, None)
