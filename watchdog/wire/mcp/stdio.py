"""A line to a child process over its standard input and output, which ends with everything that the child started."""

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
from mcp.types import CONNECTION_CLOSED, jsonrpc_message_adapter

from watchdog.model import Json
from watchdog.wire.faults import Fault, fault_of
from watchdog.wire.mcp.dialogue import SHOWN, phase
from watchdog.wire.trace import Trace

MOST = 4 << 20
"""Bytes that a server may write in one visit."""
INHERITED = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER")
"""Of our environment, which holds secrets of other probes, a server gets these alone."""
MARK = "WATCHDOG_VISIT"
"""An environment variable by which everything that a server started is found again, in whatever session it hides."""
GRACE = 0.5
"""Seconds to leave by itself after its input ended, and once more after SIGTERM."""
LAST_WORDS = 0.2
"""Seconds that its standard error may still be on its way after it ended."""
POLL = 0.01
STRANGE = 1_000
"""Lines of its output that need not be MCP."""


@dataclass(frozen=True, slots=True)
class Command:
    """An MCP server to start."""

    words: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""


class StdioLine:
    """A running server, its pipes pumped into streams of messages."""

    turned_away = False

    def __init__(self, process: subprocess.Popen[bytes], ends: Sequence[socket.socket], facts: dict[str, Json]) -> None:
        self.process, self.facts, self._ends = process, facts, ends
        self._inbox, self.incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        self.complaints = b""
        """The end of what it wrote to its standard error."""
        self._silent = asyncio.Event()
        self._open: list[asyncio.StreamWriter] = []

    @property
    def outgoing(self) -> StdioLine:
        return self

    async def send(self, item: SessionMessage, /) -> None:
        """Never waits: what we say is short, and a server that does not listen must not hold us."""
        self._open[0].write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")

    async def connect(self, pumps: anyio.abc.TaskGroup) -> None:
        for end, pump in zip(self._ends, (None, self._hear, self._overhear), strict=True):
            reader, writer = await asyncio.open_unix_connection(sock=end, limit=MOST)
            self._open.append(writer)
            if pump:
                pumps.start_soon(pump, reader)

    async def _hear(self, out: asyncio.StreamReader) -> None:
        size = 0
        while line := await _line(out):
            size += len(line)
            if size > MOST:
                raise _too_much()
            try:
                if not line.lstrip().startswith(b"{"):
                    raise ValueError
                message = jsonrpc_message_adapter.validate_json(line.decode(errors="replace"), by_name=False)
            except ValueError:
                self._strange(line)
                continue
            try:
                await self._inbox.send(SessionMessage(message))
            except anyio.BrokenResourceError:
                return  # nobody listens any more
        self._inbox.close()

    def _strange(self, line: bytes) -> None:
        """A server should keep its output for MCP. A banner does no harm, but may explain a lot."""
        if line.isspace():
            return
        self.facts["strange_lines"] = self.facts.get("strange_lines", 0) + 1
        self.facts.setdefault("strange_line", line[:200].decode(errors="replace").strip())
        if self.facts["strange_lines"] > STRANGE:
            raise Fault("mcp.not_mcp", f"writes more than {STRANGE} lines that are not MCP")

    async def _overhear(self, err: asyncio.StreamReader) -> None:
        while data := await err.read(4096):
            self.complaints = (self.complaints + data)[-SHOWN:]
        self._silent.set()

    async def explain(self, error: MCPError) -> Fault | None:
        if error.code != CONNECTION_CLOSED:
            return None
        if not await _gone(self.process, GRACE):
            return Fault("connection.lost", "the server closed its output but runs on")
        with anyio.move_on_after(LAST_WORDS):
            await self._silent.wait()
        code = self.process.returncode
        how = f"exited with code {code}" if code >= 0 else f"was ended by signal {-code}: {signal.strsignal(-code)}"
        fault = Fault("mcp.server_exited", f"the server {how}")
        fault.facts["exit_code"] = code
        return fault

    async def dismiss(self, grace: float) -> None:
        """End it as the protocol asks: no more input, then SIGTERM."""
        self._open[0].close()
        if not await _gone(self.process, grace):
            os.killpg(self.process.pid, signal.SIGTERM)
            await _gone(self.process, grace)

    def close(self) -> None:
        self.incoming.close()
        self._inbox.close()
        for writer in self._open:
            writer.transport.abort()
        for end in self._ends[len(self._open) :]:
            end.close()


@asynccontextmanager
async def stdio_line(
    command: Command,
    trace: Trace,
    facts: dict[str, Json],
    timeout: float,  # noqa: ASYNC109 - the caller's, to know of
) -> AsyncIterator[StdioLine]:
    """`timeout`: seconds until the caller's deadline. Raises Fault, also inside groups."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    mark = secrets.token_hex(8)
    with phase(trace, "spawn"):
        process, ends = _spawn(command, mark)
    line = StdioLine(process, ends, facts)
    try:
        async with anyio.create_task_group() as pumps:
            await line.connect(pumps)
            try:
                yield line
            finally:
                with anyio.CancelScope(shield=True):
                    left = deadline - loop.time()
                    await line.dismiss(min(GRACE, max(left / 3, 0.05)) if left > 0 else GRACE)
                pumps.cancel_scope.cancel()
    except Exception as error:
        if fault := fault_of(error):
            fault.excerpt = fault.excerpt or line.complaints.decode(errors="replace")
            raise fault from None
        raise
    finally:
        line.close()
        await _end(process, mark)


def _spawn(command: Command, mark: str) -> tuple[subprocess.Popen[bytes], list[socket.socket]]:
    """The process, and our ends of its standard input, output and error. Those are sockets, as other clients give it
    too: event loops differ in who closes a pipe's descriptor, and agree on sockets.
    """
    env = {name: os.environ[name] for name in INHERITED if name in os.environ}
    pairs = [socket.socketpair() for _ in range(3)]
    ours, (stdin, stdout, stderr) = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    try:
        process = subprocess.Popen(  # noqa: S603 - running what the configuration says is the point
            list(command.words),
            env=env | dict(command.env) | {MARK: mark},
            cwd=command.cwd or None,
            stdin=stdin.fileno(),
            stdout=stdout.fileno(),
            stderr=stderr.fileno(),
            start_new_session=True,
        )
    except OSError as error:
        for end in ours:
            end.close()
        raise _not_started(command, error) from None
    finally:
        for end in (stdin, stdout, stderr):
            end.close()
    return process, ours


def _not_started(command: Command, error: OSError) -> Fault:
    if not isinstance(error, FileNotFoundError):
        return Fault("command.start_failed", f"cannot start {command.words[0]}: {error.strerror}", ours=True)
    if command.cwd and not Path(command.cwd).is_dir():
        return Fault("command.not_found", f"working directory not found: {command.cwd}", ours=True)
    return Fault("command.not_found", f"command not found: {command.words[0]}", ours=True)


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError:  # longer than the reader's limit
        raise _too_much() from None


def _too_much() -> Fault:
    return Fault("body.too_large", f"answers more than {MOST >> 20} MiB")


async def _gone(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it ended within that time. Asked again and again, for asyncio's own wait also waits for grandchildren."""
    for _ in range(round(seconds / POLL)):
        if process.poll() is not None:
            return True
        await asyncio.sleep(POLL)
    return process.poll() is not None


async def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """Kill the process and all that it started. However often this is cancelled, it is done before that shows."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    sweeping = asyncio.get_running_loop().run_in_executor(_SWEEPERS, _sweep, process, mark)
    cancelled = None
    with anyio.CancelScope(shield=True):
        while not sweeping.done():
            try:
                await asyncio.shield(sweeping)
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled


_SWEEPERS = ThreadPoolExecutor(2, "sweep")
"""Reading all of /proc takes long on a machine with many processes."""


def _sweep(process: subprocess.Popen[bytes], mark: str) -> None:
    for _ in range(10):  # what forks while we look is there in the next round
        relatives = list(_relatives(process, mark))
        for pid in relatives:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not relatives:
            break
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.5)


def _relatives(process: subprocess.Popen[bytes], mark: str) -> Iterator[int]:
    """Who lives in its session, or carries the mark."""
    marked = f"{MARK}={mark}".encode()
    taken_again = process.returncode is not None and Path(f"/proc/{process.pid}").exists()
    session = -1 if taken_again else process.pid  # a session keeps its number from being taken
    for entry in os.scandir("/proc") if Path("/proc/self").exists() else ():
        if entry.name.isdecimal():
            with suppress(OSError):
                state, _, _, its_session = _read(entry, "stat").rpartition(b")")[2].split()[:4]
                if state not in b"ZX" and (
                    int(its_session) == session or marked in _read(entry, "environ").split(b"\0")
                ):
                    yield int(entry.name)


def _read(entry: os.DirEntry[str], name: str) -> bytes:
    return Path(entry.path, name).read_bytes()
