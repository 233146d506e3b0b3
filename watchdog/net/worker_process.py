"""One long-lived process that runs pure functions which would hold the event loop for too long.

It ends with Watchdog, also by `kill -9`, because its socket closes then.
"""

from __future__ import annotations

import asyncio
import pickle
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, TypeVarTuple, Unpack

from watchdog.net import worker_program
from watchdog.net.errors import ProbeError
from watchdog.net.phases import PhaseTimer
from watchdog.net.threads import reap_in_daemon_thread, run_in_daemon_thread

WORKER_REQUEST_WRITE_CHUNK_BYTES = 64 << 10
_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class _WorkerProcessHandles(NamedTuple):
    process: subprocess.Popen[bytes]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class FunctionWorkerProcess:
    """Runs functions one after another. The process starts with the first one, and is replaced once it was killed."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._worker: _WorkerProcessHandles | None = None

    @property
    def pid(self) -> int | None:
        """The process that runs; None: none does."""
        return self._worker.process.pid if self._worker else None

    async def run(self, phase_timer: PhaseTimer, function: Callable[[Unpack[_Ts]], _T], *args: *_Ts) -> _T:
        """Runs a function of a module, and returns or raises what it does. Function, arguments and result are pickled.

        Callers wait in line. Each run of a probe is one caller at most, so the limit of concurrent runs bounds the
        line. If a caller is cancelled while its function runs, the process is killed. Raises ProbeError if the process
        ends by itself.
        """
        if self._turn.locked():
            with phase_timer.measure("judge_queue"):
                await self._turn.acquire()
        else:
            await self._turn.acquire()
        try:
            with phase_timer.measure("judge"):
                self._worker = self._worker or await _start_worker_process()
                has_returned, value = await _call_worker_process(self._worker, pickle.dumps((function, args)))
        except BaseException:
            self.kill()
            raise
        finally:
            self._turn.release()
        if not has_returned:
            raise value
        return value  # type: ignore[no-any-return] # what the function returns, unpickled

    def kill(self) -> None:
        """Ends the process, if one runs."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.writer.transport.abort()
            worker.process.kill()
            reap_in_daemon_thread(worker.process)


async def _start_worker_process() -> _WorkerProcessHandles:
    own_end, other_end = socket.socketpair()
    with other_end:
        try:
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - a program of our own
                [sys.executable, "-I", str(Path(worker_program.__file__)), str(other_end.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[other_end.fileno()],
                start_new_session=True,  # the signals of a terminal are for Watchdog
            )
        except OSError:
            own_end.close()
            raise
    try:
        worker = _WorkerProcessHandles(process, *await asyncio.open_unix_connection(sock=own_end))
        await _send_length_prefixed_message(worker.writer, pickle.dumps(sys.path))
    except BaseException:
        process.kill()
        reap_in_daemon_thread(process)
        raise
    return worker


async def _call_worker_process(worker: _WorkerProcessHandles, request: bytes) -> tuple[bool, Any]:
    """Whether the function has returned, and its result, or else what it has raised."""
    try:
        await _send_length_prefixed_message(worker.writer, request)
        [size] = struct.unpack(
            worker_program.MESSAGE_LENGTH_PREFIX_STRUCT_FORMAT,
            await worker.reader.readexactly(worker_program.MESSAGE_LENGTH_PREFIX_BYTES),
        )
        response: tuple[bool, Any] = pickle.loads(  # noqa: S301 - from a process of our own
            await worker.reader.readexactly(size)
        )
    except (OSError, asyncio.IncompleteReadError):
        code = await run_in_daemon_thread(worker.process.wait, "worker-end")
        end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        problem = f"the process that evaluates such responses {end}"
        raise ProbeError.from_reason("watchdog.response_not_judged", problem=problem) from None
    return response


async def _send_length_prefixed_message(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(struct.pack(worker_program.MESSAGE_LENGTH_PREFIX_STRUCT_FORMAT, len(data)))
    for start in range(0, len(data), WORKER_REQUEST_WRITE_CHUNK_BYTES):
        writer.write(data[start : start + WORKER_REQUEST_WRITE_CHUNK_BYTES])
        await writer.drain()
