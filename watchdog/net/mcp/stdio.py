"""MCP over the standard input and output of a child process, which ends together with all processes it started."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import anyio
import anyio.abc
from mcp import MCPError
from mcp.shared.message import SessionMessage
from mcp.types import CONNECTION_CLOSED, JSONRPCMessage, jsonrpc_message_adapter

from watchdog.domain.model import Evidence, Json
from watchdog.domain.reasons import build_reason_and_message
from watchdog.domain.text import truncate_with_ellipsis
from watchdog.net.body_limits import MIN_MCP_SESSION_BYTES_LIMIT
from watchdog.net.command_start import (
    COMMAND_OUTPUT_READ_CHUNK_BYTES,
    CommandToRun,
    create_supervised_process,
    describe_command_exit,
    start_command,
)
from watchdog.net.errors import ProbeError, build_probe_error_from_exception, refine_probe_error_until_deadline
from watchdog.net.mcp.client import measure_phase_and_tag_errors
from watchdog.net.mcp.event_stream import UTF8_BYTE_ORDER_MARK
from watchdog.net.mcp.large_messages import (
    build_mcp_session_too_large_error,
    find_mcp_message_starts,
    shorten_large_mcp_message_in_stdout_line,
)
from watchdog.net.mcp.message_text import normalize_jsonrpc_message
from watchdog.net.mcp.received_messages import McpMessageInspector
from watchdog.net.mcp.reply_errors import MAX_MCP_ERROR_EXCERPT_CHARS
from watchdog.net.supervised_process import SupervisedProcess

MCP_PROCESS_EXIT_TIMEOUT_S = 0.5
"""Time to exit after the end of its input, and again after SIGTERM."""
MCP_STDERR_DRAIN_TIMEOUT_S = 0.2
"""Time for the rest of standard error to arrive after the exit."""
MCP_OUTPUT_CLOSE_TIMEOUT_AFTER_FAILURE_S = 0.3
"""Time for the end of the output after the server has failed. If it takes longer, another process keeps it open."""
MCP_OUTPUT_CLOSE_TIMEOUT_AFTER_EXIT_0_S = 3.0
"""The same after an exit with code 0: a launcher may leave the session to a process that it has started."""
MAX_TOLERATED_NON_MCP_LINES = 1_000


@dataclass(frozen=True, slots=True)
class McpServerCommand(CommandToRun):
    """An MCP server to start."""

    max_session_bytes: int = MIN_MCP_SESSION_BYTES_LIMIT
    """Bytes that it may write in one session."""


class McpStdioTransport:
    """A running server process and its standard streams, as streams of MCP messages."""

    rejected_by_gateway = False

    def __init__(
        self,
        process: SupervisedProcess,
        sockets: Sequence[socket.socket],
        facts: dict[str, Json],
        received: McpMessageInspector,
        max_session_bytes: int,
    ) -> None:
        self._received, self._max_session_bytes = received, max_session_bytes
        self.process, self.facts, self._sockets = process, facts, sockets
        self._incoming_sender, self.incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        self.stderr_tail = b""
        self._unfinished_line = bytearray()
        self._stdout_closed = asyncio.Event()
        self._stderr_closed = asyncio.Event()
        self._message_count = 0
        self._is_closing = False
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def message_sender(self) -> McpStdioTransport:
        return self

    async def send(self, item: SessionMessage, /) -> None:
        """Never waits: messages are short, and a server that does not read must not block the session."""
        self._writers[0].write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")

    async def open_streams_and_start_readers(self, task_group: anyio.abc.TaskGroup) -> None:
        for end, pump in zip(
            self._sockets, (None, self._read_mcp_messages_from_stdout, self._read_stderr), strict=True
        ):
            reader, writer = await asyncio.open_unix_connection(sock=end, limit=self._max_session_bytes)
            self._writers.append(writer)
            if pump:
                task_group.start_soon(pump, reader)
        task_group.start_soon(self._raise_if_other_process_holds_output)

    async def _raise_if_other_process_holds_output(self) -> None:
        """Raises ProbeError if the server has ended and another process keeps its output open, because the session
        would wait until its deadline. A process that answers in its place is the server."""
        await self.process.ended.wait()
        message_count = self._message_count
        with anyio.move_on_after(
            MCP_OUTPUT_CLOSE_TIMEOUT_AFTER_FAILURE_S
            if self.process.returncode
            else MCP_OUTPUT_CLOSE_TIMEOUT_AFTER_EXIT_0_S
        ):
            await self._stdout_closed.wait()
        if self._stdout_closed.is_set() or self._is_closing or self._message_count > message_count:
            return
        names = sorted({left.name for left in self.process.left_processes if left.name})
        error = ProbeError(*build_reason_and_message(
            "mcp.output_held", ending=self._describe_exit(), holder=f" ({', '.join(names[:5])})" if names else "",
        ))  # fmt: skip
        error.facts["exit_code"] = self.process.returncode
        error.facts["left_processes"] = [f"{left.name} (pid {left.pid})" for left in self.process.left_processes[:20]]
        raise error

    async def _read_mcp_messages_from_stdout(self, stdout: asyncio.StreamReader) -> None:
        size = 0
        while data := await stdout.read(COMMAND_OUTPUT_READ_CHUNK_BYTES):
            size += len(data)
            if size > self._max_session_bytes:
                raise build_mcp_session_too_large_error(self._max_session_bytes)
            self._unfinished_line += data
            if b"\n" in data:
                *lines, self._unfinished_line = self._unfinished_line.split(b"\n")
                for line in lines:
                    if line.strip() and not await self._process_stdout_line(bytes(line)):
                        return  # the session is over
        await self._process_stdout_line(bytes(self._unfinished_line))
        self._stdout_closed.set()
        self._incoming_sender.close()

    async def _process_stdout_line(self, line: bytes) -> bool:
        """Passes a message on. Returns whether the session still reads."""
        if self._received.count_bytes_and_check_if_large(line):
            line = (
                await self._received.shorten_large_message_in_worker(shorten_large_mcp_message_in_stdout_line, line)
            ).data
        else:
            line = normalize_jsonrpc_message(line, self._received.requests.awaited_method_by_request_id)
        text, message = _split_stdout_line_into_text_and_message(line)
        if text:
            self._record_non_mcp_line(text)
        if message is None:
            return True
        self._message_count += 1
        try:
            await self._incoming_sender.send(SessionMessage(message))
        except anyio.BrokenResourceError:
            return False
        return True

    def build_server_output_evidence(self) -> Evidence:
        """Standard error, and the beginning of a line that has no end yet."""
        unfinished_line = self._unfinished_line[:200].decode(errors="replace").strip()
        facts = {"unfinished_line": unfinished_line} if unfinished_line else {}
        return Evidence(facts, self.stderr_tail.decode(errors="replace"))

    def _record_non_mcp_line(self, line: bytes) -> None:
        """The protocol allows only MCP on standard output. A banner is tolerated, and kept as evidence."""
        self.facts["non_mcp_line_count"] = self.facts.get("non_mcp_line_count", 0) + 1
        self.facts.setdefault("first_non_mcp_line", line[:200].decode(errors="replace").strip())
        if self.facts["non_mcp_line_count"] > MAX_TOLERATED_NON_MCP_LINES:
            first = truncate_with_ellipsis(self.facts["first_non_mcp_line"], 60)
            raise ProbeError.from_reason(
                "mcp.output_not_mcp", limit=str(MAX_TOLERATED_NON_MCP_LINES), first=repr(first)
            )

    async def _read_stderr(self, stderr: asyncio.StreamReader) -> None:
        while data := await stderr.read(4096):
            self.stderr_tail = (self.stderr_tail + data)[-MAX_MCP_ERROR_EXCERPT_CHARS:]
        self._stderr_closed.set()

    async def translate_error(self, error: MCPError, *, was_received: bool) -> ProbeError | None:
        if was_received or error.code != CONNECTION_CLOSED:
            return None
        closed = ProbeError.from_reason("mcp.output_closed")
        return await refine_probe_error_until_deadline(closed, self._explain_closed_output(closed))

    async def _explain_closed_output(self, closed: ProbeError) -> ProbeError:
        """The exit of the server, if that is why its output is closed."""
        if not await self._has_process_exited_within(MCP_PROCESS_EXIT_TIMEOUT_S):
            return closed
        with anyio.move_on_after(MCP_STDERR_DRAIN_TIMEOUT_S):
            await self._stderr_closed.wait()
        exit_error = ProbeError("mcp.server_exited", f"the server {self._describe_exit()}")
        exit_error.facts["exit_code"] = self.process.returncode
        return exit_error

    def _describe_exit(self) -> str:
        return describe_command_exit(self.process.returncode)

    async def _has_process_exited_within(self, timeout_s: float) -> bool:
        """Whether the process exits in time."""
        with anyio.move_on_after(timeout_s):
            await self.process.ended.wait()
        return self.process.ended.is_set()

    async def shutdown(self, exit_timeout_s: float) -> None:
        """Ends the server as the protocol demands: closes its input, then sends SIGTERM."""
        self._is_closing = True
        if self._writers:
            self._writers[0].close()
        if not await self._has_process_exited_within(exit_timeout_s):
            self.process.send_sigterm()
            await self._has_process_exited_within(exit_timeout_s)

    def close(self) -> None:
        self.incoming.close()
        self._incoming_sender.close()
        for writer in self._writers:
            writer.transport.abort()
        for end in self._sockets[len(self._writers) :]:
            end.close()


@asynccontextmanager
async def open_mcp_stdio_transport(
    command: McpServerCommand,
    received: McpMessageInspector,
    facts: dict[str, Json],
    timeout_s: float,
) -> AsyncIterator[McpStdioTransport]:
    """`timeout_s`: until the caller cancels. Raises ProbeError, possibly inside an exception group."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    process = create_supervised_process(command)
    transport: McpStdioTransport | None = None
    try:
        with measure_phase_and_tag_errors(received.phase_timer, "spawn"):
            sockets = await _start_with_sockets(process, command)
            transport = McpStdioTransport(process, sockets, facts, received, command.max_session_bytes)
        async with anyio.create_task_group() as readers:
            await transport.open_streams_and_start_readers(readers)
            try:
                yield transport
            finally:
                with anyio.CancelScope(shield=True):
                    remaining_s = deadline - loop.time()
                    exit_timeout_s = MCP_PROCESS_EXIT_TIMEOUT_S
                    if remaining_s > 0:
                        exit_timeout_s = min(MCP_PROCESS_EXIT_TIMEOUT_S, max(remaining_s / 3, 0.05))
                    await transport.shutdown(exit_timeout_s)
                readers.cancel_scope.cancel()
    except Exception as exception:
        if error := build_probe_error_from_exception(exception):
            if transport is not None:
                error.excerpt = error.excerpt or transport.stderr_tail.decode(errors="replace")
            raise error from None
        raise
    finally:
        if transport is not None:
            transport.close()
        await process.close()


async def _start_with_sockets(process: SupervisedProcess, command: McpServerCommand) -> Sequence[socket.socket]:
    """Starts the server. Returns the other ends of its standard input, output and error.

    These are sockets, because event loops differ in who closes the descriptor of a pipe.
    """
    pairs = [socket.socketpair() for _ in range(3)]
    own_ends, (stdin, stdout, stderr) = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    try:
        await start_command(process, command, (stdin.fileno(), stdout.fileno(), stderr.fileno()))
    except BaseException:
        for end in own_ends:
            end.close()
        raise
    finally:
        for end in (stdin, stdout, stderr):
            end.close()
    return own_ends


def _split_stdout_line_into_text_and_message(line: bytes) -> tuple[bytes, JSONRPCMessage | None]:
    """The text before the message, and the message; if the line contains none, the whole text and None.

    Programs print a banner without a newline, and byte-order marks, in front of their first message.
    """
    line = line.removeprefix(UTF8_BYTE_ORDER_MARK).strip()
    for start in find_mcp_message_starts(line):
        with suppress(ValueError):
            message = jsonrpc_message_adapter.validate_json(line[start:].decode(errors="replace"), by_name=False)
            return line[:start].removesuffix(UTF8_BYTE_ORDER_MARK).strip(), message
    return line, None
