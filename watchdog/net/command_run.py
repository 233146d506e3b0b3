"""Runs one command to its end, with all processes that it starts: bounded in time and output."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from watchdog.domain.formatting import format_duration
from watchdog.domain.model import Evidence, Json
from watchdog.net.command_start import (
    COMMAND_OUTPUT_READ_CHUNK_BYTES,
    CommandToRun,
    create_supervised_process,
    start_command,
)
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.phases import PhaseTimer
from watchdog.net.supervised_process import LeftoverProcess, SupervisedProcess

MAX_COMMAND_OUTPUT_READ_BYTES = 64 << 20
"""A command that writes more to one of its streams never stops, probably."""
COMMAND_STDERR_TAIL_BYTES = 16 << 10
COMMAND_OUTPUT_CLOSE_TIMEOUT_S = 0.3
"""Time for the rest of the output to arrive after the end of the command. If it takes longer, another process keeps it
open."""
MAX_STDOUT_EXCERPT_CHARS, MAX_STDERR_EXCERPT_CHARS = 2_500, 1_400
"""Together at most as much as is stored of an excerpt."""


@dataclass(slots=True)
class CommandOutput:
    """What a command has written so far, and how it has ended."""

    max_stdout_bytes: int
    stdout: bytearray = field(default_factory=bytearray)
    """The beginning, at most `max_stdout_bytes`."""
    stdout_size_bytes: int = 0
    stderr: bytes = b""
    """The end, at most COMMAND_STDERR_TAIL_BYTES."""
    stderr_size_bytes: int = 0
    returncode: int = 0
    """Of a command that has ended; negative: the signal that killed it."""
    left_processes: Sequence[LeftoverProcess] = ()
    """Processes that the command left behind. They are killed."""
    elapsed_ms: float = 0.0

    @property
    def is_stdout_cut(self) -> bool:
        return self.stdout_size_bytes > len(self.stdout)

    @property
    def stdout_text(self) -> str:
        """Without the last line end."""
        return self.stdout.decode(errors="replace").removesuffix("\n").removesuffix("\r")

    @property
    def stderr_text(self) -> str:
        return self.stderr.decode(errors="replace").strip()

    def add_stdout(self, data: bytes) -> None:
        self.stdout_size_bytes += len(data)
        self.stdout += data[: self.max_stdout_bytes - len(self.stdout)]

    def add_stderr(self, data: bytes) -> None:
        self.stderr_size_bytes += len(data)
        self.stderr = (self.stderr + data)[-COMMAND_STDERR_TAIL_BYTES:]

    def build_evidence(self) -> Evidence:
        """Both streams as text, and what has been cut or left."""
        facts: dict[str, Json] = {}
        if self.is_stdout_cut:
            facts["output_bytes"] = self.stdout_size_bytes
            facts["output_cut_after_bytes"] = len(self.stdout)
        if self.stderr_size_bytes > COMMAND_STDERR_TAIL_BYTES:
            facts["standard_error_bytes"] = self.stderr_size_bytes
        if self.left_processes:
            facts["left_processes"] = [f"{left.name} (pid {left.pid})" for left in self.left_processes[:20]]
        parts = [self._build_stdout_excerpt()]
        if self.stderr_text:
            parts.append(f"standard error:\n{self._build_stderr_excerpt()}")
        return Evidence(facts, "\n\n".join(filter(None, parts)))

    def _build_stdout_excerpt(self) -> str:
        """Cut between words: it is not masked yet, and half of a secret would not be recognised."""
        text = self.stdout_text
        if len(text) <= MAX_STDOUT_EXCERPT_CHARS and not self.is_stdout_cut:
            return text
        return re.sub(r"\s\S*$", " …", text[:MAX_STDOUT_EXCERPT_CHARS])

    def _build_stderr_excerpt(self) -> str:
        text = self.stderr_text
        is_cut = len(text) > MAX_STDERR_EXCERPT_CHARS or self.stderr_size_bytes > COMMAND_STDERR_TAIL_BYTES
        return re.sub(r"^\S*\s", "… ", text[-MAX_STDERR_EXCERPT_CHARS:]) if is_cut else text


async def run_command(
    command: CommandToRun, output: CommandOutput, phase_timer: PhaseTimer, ready_within_ms: int | None = None
) -> None:
    """Runs it until it ends, or until the caller cancels. `output` is filled in as the command writes. In any case, no
    process is left afterwards. Times the phases `spawn` and `run`. Raises ProbeError.

    `ready_within_ms`: how long the first line may take.
    """
    process = create_supervised_process(command)
    readers: list[_OutputReader] = []
    try:
        with phase_timer.measure("spawn"):
            await _start_with_pipes(process, command, readers, output)
        started = perf_counter()
        with phase_timer.measure("run"):
            await _wait_until_end(process, readers, output, ready_within_ms)
        output.elapsed_ms = (perf_counter() - started) * 1000
    finally:
        for reader in readers:
            reader.close()
        await process.close()


async def _start_with_pipes(
    process: SupervisedProcess, command: CommandToRun, readers: list[_OutputReader], output: CommandOutput
) -> None:
    """With pipes as its output: scripts open /dev/stderr by its name, which is impossible with sockets."""
    descriptors: list[int] = []
    try:
        descriptors.append(os.open(os.devnull, os.O_RDONLY))
        for receive in (output.add_stdout, output.add_stderr):
            read_end, write_end = os.pipe()
            descriptors.append(write_end)
            readers.append(_OutputReader(read_end, receive))
        await start_command(process, command, descriptors)
    except OSError as error:  # there is no free descriptor
        raise build_probe_error_from_exception(error) or error from None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


async def _wait_until_end(
    process: SupervisedProcess,
    readers: Sequence[_OutputReader],
    output: CommandOutput,
    ready_within_ms: int | None,
) -> None:
    """Raises ProbeError."""
    ended, overflows = asyncio.ensure_future(process.ended.wait()), [reader.has_overflown for reader in readers]
    try:
        if ready_within_ms is not None:
            # A command that ends before it has written a line is judged by its end.
            finished = await _wait_for_any(ended, readers[0].has_line, *overflows, timeout_s=ready_within_ms / 1000)
            if not finished:
                raise ProbeError.from_reason("command.not_ready", "run", limit=format_duration(ready_within_ms))
        await _wait_for_any(ended, *overflows)
        if any(overflow.done() for overflow in overflows):
            limit = f"{MAX_COMMAND_OUTPUT_READ_BYTES >> 20} MiB"
            raise ProbeError.from_reason("command.too_much_output", "run", limit=limit)
        output.returncode, output.left_processes = process.returncode, process.left_processes
        await asyncio.wait([reader.is_closed for reader in readers], timeout=COMMAND_OUTPUT_CLOSE_TIMEOUT_S)
    finally:
        ended.cancel()


async def _wait_for_any(*futures: asyncio.Future[Any], timeout_s: float | None = None) -> bool:
    """Whether any is done in time."""
    finished, _ = await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    return bool(finished)


class _OutputReader:
    """Passes on what comes from a pipe, as long as a process holds its other end open."""

    def __init__(self, descriptor: int, receive: Callable[[bytes], None]) -> None:
        self._descriptor, self._receive, self._size_bytes = descriptor, receive, 0
        self._loop = asyncio.get_running_loop()
        self.has_line: asyncio.Future[None] = self._loop.create_future()
        self.has_overflown: asyncio.Future[None] = self._loop.create_future()
        self.is_closed: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read_chunk)

    def _read_chunk(self) -> None:
        try:
            data = os.read(self._descriptor, COMMAND_OUTPUT_READ_CHUNK_BYTES)
        except BlockingIOError:
            return
        self._size_bytes += len(data)
        self._receive(data)
        if b"\n" in data and not self.has_line.done():
            self.has_line.set_result(None)
        if self._size_bytes > MAX_COMMAND_OUTPUT_READ_BYTES:
            self.has_overflown.set_result(None)
        if not data or self.has_overflown.done():
            self._loop.remove_reader(self._descriptor)
            self.is_closed.set_result(None)

    def close(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
