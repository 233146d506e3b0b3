"""MCP over the standard input and output of a child process, which ends together with all processes it started."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.abc
from mcp import MCPError
from mcp.shared.message import SessionMessage
from mcp.types import CONNECTION_CLOSED, JSONRPCMessage, jsonrpc_message_adapter

from watchdog.domain.model import Json
from watchdog.net.errors import ProbeError, error_from_exception
from watchdog.net.mcp.client import MAX_ERROR_EXCERPT_CHARS, measure_phase
from watchdog.net.mcp.event_stream import BYTE_ORDER_MARK
from watchdog.net.phases import PhaseTimer

MAX_SESSION_STDOUT_BYTES = 4 << 20
"""Bytes that a server may write in one session."""
INHERITED_ENV_VARS = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER")
"""The variables that a server inherits; the others may hold secrets of other probes."""
SESSION_ID_ENV_VAR = "WATCHDOG_SESSION_ID"
"""Marks every process that a server starts, so that it is found again even in a session of its own."""
PROCESS_EXIT_TIMEOUT_S = 0.5
"""Time to exit after the end of its input, and again after SIGTERM."""
STDERR_DRAIN_TIMEOUT_S = 0.2
"""Time for the rest of standard error to arrive after the exit."""
EXIT_POLL_INTERVAL_S = 0.01
MAX_NON_MCP_LINES = 1_000
MAX_MESSAGE_STARTS = 8
"""Braces at which a message is tried to be read in a line that begins with other text."""


@dataclass(frozen=True, slots=True)
class McpServerCommand:
    """An MCP server to start."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""


class StdioTransport:
    """A running server process and its standard streams, as streams of MCP messages."""

    rejected_by_gateway = False

    def __init__(
        self, process: subprocess.Popen[bytes], sockets: Sequence[socket.socket], facts: dict[str, Json]
    ) -> None:
        self.process, self.facts, self._sockets = process, facts, sockets
        self._incoming_sender, self.incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        self.stderr_tail = b""
        self._stderr_closed = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def outgoing(self) -> StdioTransport:
        return self

    async def send(self, item: SessionMessage, /) -> None:
        """Never waits: messages are short, and a server that does not read must not block the session."""
        self._writers[0].write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")

    async def open_streams(self, task_group: anyio.abc.TaskGroup) -> None:
        for end, pump in zip(self._sockets, (None, self._read_messages, self._read_stderr), strict=True):
            reader, writer = await asyncio.open_unix_connection(sock=end, limit=MAX_SESSION_STDOUT_BYTES)
            self._writers.append(writer)
            if pump:
                task_group.start_soon(pump, reader)

    async def _read_messages(self, stdout: asyncio.StreamReader) -> None:
        size = 0
        while line := await _read_line(stdout):
            size += len(line)
            if size > MAX_SESSION_STDOUT_BYTES:
                raise _output_too_large_error()
            text, message = _parse_line(line)
            if text:
                self._record_non_mcp_line(text)
            if message is None:
                continue
            try:
                await self._incoming_sender.send(SessionMessage(message))
            except anyio.BrokenResourceError:
                return  # the session is over
        self._incoming_sender.close()

    def _record_non_mcp_line(self, line: bytes) -> None:
        """The protocol allows only MCP on standard output. A banner is tolerated, and kept as evidence."""
        self.facts["non_mcp_line_count"] = self.facts.get("non_mcp_line_count", 0) + 1
        self.facts.setdefault("first_non_mcp_line", line[:200].decode(errors="replace").strip())
        if self.facts["non_mcp_line_count"] > MAX_NON_MCP_LINES:
            raise ProbeError("mcp.not_mcp", f"the server wrote more than {MAX_NON_MCP_LINES} lines that are not MCP")

    async def _read_stderr(self, stderr: asyncio.StreamReader) -> None:
        while data := await stderr.read(4096):
            self.stderr_tail = (self.stderr_tail + data)[-MAX_ERROR_EXCERPT_CHARS:]
        self._stderr_closed.set()

    async def translate_error(self, error: MCPError, *, was_received: bool) -> ProbeError | None:
        if was_received or error.code != CONNECTION_CLOSED:
            return None
        if not await _wait_for_exit(self.process, PROCESS_EXIT_TIMEOUT_S):
            return ProbeError("connection.lost", "the server closed its output but is still running")
        with anyio.move_on_after(STDERR_DRAIN_TIMEOUT_S):
            await self._stderr_closed.wait()
        code = self.process.returncode
        ending = (
            f"exited with code {code}" if code >= 0 else f"was killed by signal {-code} ({signal.strsignal(-code)})"
        )
        exit_error = ProbeError("mcp.server_exited", f"the server {ending}")
        exit_error.facts["exit_code"] = code
        return exit_error

    async def shutdown(self, exit_timeout_s: float) -> None:
        """Ends the server as the protocol demands: closes its input, then sends SIGTERM."""
        self._writers[0].close()
        if not await _wait_for_exit(self.process, exit_timeout_s):
            os.killpg(self.process.pid, signal.SIGTERM)
            await _wait_for_exit(self.process, exit_timeout_s)

    def close(self) -> None:
        self.incoming.close()
        self._incoming_sender.close()
        for writer in self._writers:
            writer.transport.abort()
        for end in self._sockets[len(self._writers) :]:
            end.close()


@asynccontextmanager
async def open_stdio_transport(
    command: McpServerCommand,
    phase_timer: PhaseTimer,
    facts: dict[str, Json],
    timeout_s: float,
) -> AsyncIterator[StdioTransport]:
    """`timeout_s`: until the caller cancels. Raises ProbeError, possibly inside an exception group."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    session_id = secrets.token_hex(8)
    with measure_phase(phase_timer, "spawn"):
        process, sockets = _spawn_process(command, session_id)
    transport = StdioTransport(process, sockets, facts)
    try:
        async with anyio.create_task_group() as readers:
            await transport.open_streams(readers)
            try:
                yield transport
            finally:
                with anyio.CancelScope(shield=True):
                    remaining_s = deadline - loop.time()
                    exit_timeout_s = PROCESS_EXIT_TIMEOUT_S
                    if remaining_s > 0:
                        exit_timeout_s = min(PROCESS_EXIT_TIMEOUT_S, max(remaining_s / 3, 0.05))
                    await transport.shutdown(exit_timeout_s)
                readers.cancel_scope.cancel()
    except Exception as exception:
        if error := error_from_exception(exception):
            error.excerpt = error.excerpt or transport.stderr_tail.decode(errors="replace")
            raise error from None
        raise
    finally:
        transport.close()
        await _kill_process_tree(process, session_id)


def _spawn_process(command: McpServerCommand, session_id: str) -> tuple[subprocess.Popen[bytes], list[socket.socket]]:
    """The process, and Watchdog's ends of its standard input, output and error.

    These are sockets, because event loops differ in who closes the descriptor of a pipe.
    """
    env = {name: os.environ[name] for name in INHERITED_ENV_VARS if name in os.environ}
    pairs = [socket.socketpair() for _ in range(3)]
    own_ends, (stdin, stdout, stderr) = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    try:
        process = subprocess.Popen(  # noqa: S603 - the configuration names the command
            list(command.argv),
            env=env | dict(command.env) | {SESSION_ID_ENV_VAR: session_id},
            cwd=command.cwd or None,
            stdin=stdin.fileno(),
            stdout=stdout.fileno(),
            stderr=stderr.fileno(),
            start_new_session=True,
        )
    except OSError as error:
        for end in own_ends:
            end.close()
        raise _spawn_error(command, error) from None
    finally:
        for end in (stdin, stdout, stderr):
            end.close()
    return process, own_ends


def _spawn_error(command: McpServerCommand, error: OSError) -> ProbeError:
    if not isinstance(error, FileNotFoundError):
        return ProbeError("command.start_failed", f"cannot start {command.argv[0]}: {error.strerror}", is_internal=True)
    if command.cwd and not Path(command.cwd).is_dir():
        return ProbeError("command.not_found", f"working directory not found: {command.cwd}", is_internal=True)
    return ProbeError("command.not_found", f"command not found: {command.argv[0]}", is_internal=True)


def _parse_line(line: bytes) -> tuple[bytes, JSONRPCMessage | None]:
    """The text before the message, and the message; if the line contains none, the whole text and None.

    Programs print a banner without a newline, and byte-order marks, in front of their first message.
    """
    line = line.removeprefix(BYTE_ORDER_MARK).strip()
    start = line.find(b"{") if b'"jsonrpc"' in line else -1
    for _ in range(MAX_MESSAGE_STARTS):
        if start < 0:
            break
        with suppress(ValueError):
            message = jsonrpc_message_adapter.validate_json(line[start:].decode(errors="replace"), by_name=False)
            return line[:start].strip(), message
        start = line.find(b"{", start + 1)
    return line, None


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError:  # longer than the reader's limit
        raise _output_too_large_error() from None


def _output_too_large_error() -> ProbeError:
    message = f"the server sent more than {MAX_SESSION_STDOUT_BYTES >> 20} MiB, Watchdog's limit"
    return ProbeError("body.too_large", message, is_internal=True)


async def _wait_for_exit(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Whether the process exits in time. Polls, because asyncio's own wait also waits for grandchildren."""
    for _ in range(round(timeout_s / EXIT_POLL_INTERVAL_S)):
        if process.poll() is not None:
            return True
        await asyncio.sleep(EXIT_POLL_INTERVAL_S)
    return process.poll() is not None


async def _kill_process_tree(process: subprocess.Popen[bytes], session_id: str) -> None:
    """Kills the process and all processes that it started. A cancellation takes effect only when that is done."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    killing = asyncio.get_running_loop().run_in_executor(_KILL_EXECUTOR, _kill_descendants, process, session_id)
    cancelled = None
    with anyio.CancelScope(shield=True):
        while not killing.done():
            try:
                await asyncio.shield(killing)
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled


_KILL_EXECUTOR = ThreadPoolExecutor(2, "mcp-kill")
"""Reading all of /proc takes a while on a machine with many processes."""


def _kill_descendants(process: subprocess.Popen[bytes], session_id: str) -> None:
    for _ in range(10):  # a process that forks meanwhile is killed in the next round
        pids = list(_find_descendant_pids(process, session_id))
        for pid in pids:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not pids:
            break
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.5)


def _find_descendant_pids(process: subprocess.Popen[bytes], session_id: str) -> Iterator[int]:
    """Processes in the session of `process`, and those with the session id in their environment."""
    marker = f"{SESSION_ID_ENV_VAR}={session_id}".encode()
    # While the session has members, its number is not given to another process.
    is_reused = process.returncode is not None and Path(f"/proc/{process.pid}").exists()
    session = -1 if is_reused else process.pid
    for entry in os.scandir("/proc") if Path("/proc/self").exists() else ():
        if entry.name.isdecimal():
            with suppress(OSError):
                state, _, _, pid_session = _read_proc_file(entry, "stat").rpartition(b")")[2].split()[:4]
                if state not in b"ZX" and (
                    int(pid_session) == session or marker in _read_proc_file(entry, "environ").split(b"\0")
                ):
                    yield int(entry.name)


def _read_proc_file(entry: os.DirEntry[str], file_name: str) -> bytes:
    return Path(entry.path, file_name).read_bytes()
