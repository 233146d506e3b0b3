"""The worker process: which process runs a function, what ends it, and that nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from tests.support import worker_functions as functions
from tests.support.polling import wait_until, wait_until_async
from tests.support.processes import child_pids
from watchdog.net import PhaseTimer, ProbeError, worker_program
from watchdog.net.worker_process import FunctionWorkerProcess

Script = Callable[[FunctionWorkerProcess], Awaitable[None]]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Script], None]:
    async def run_script(script: Script) -> None:
        worker = FunctionWorkerProcess()
        try:
            await script(worker)
        finally:
            pid = worker.pid
            worker.kill()
            await wait_until_async(lambda: pid is None or not is_alive(pid))

    return lambda script: request.param(run_script(script))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_one_process_runs_all_functions(run: Callable[[Script], None]) -> None:
    async def script(worker: FunctionWorkerProcess) -> None:
        assert worker.pid is None, "it starts with the first function"
        pids = await asyncio.gather(*(worker.run(PhaseTimer(), functions.get_pid) for _ in range(20)))
        assert set(pids) == {worker.pid}
        assert worker.pid != os.getpid()

    run(script)


def test_large_arguments_and_results_pass(run: Callable[[Script], None]) -> None:
    async def script(worker: FunctionWorkerProcess) -> None:
        data = os.urandom(1 << 20) * 16
        assert await worker.run(PhaseTimer(), bytes, data) == data

    run(script)


def test_an_exception_passes_and_the_process_goes_on(run: Callable[[Script], None]) -> None:
    async def script(worker: FunctionWorkerProcess) -> None:
        pid = await worker.run(PhaseTimer(), functions.get_pid)
        with pytest.raises(ProbeError) as caught:
            await worker.run(PhaseTimer(), functions.raise_probe_error)
        error = caught.value
        assert (error.reason, error.message, error.phase, error.excerpt) == ("json.invalid", "no JSON", "body", "{")
        assert (error.retryable, error.is_internal, error.facts) == (True, True, {"line": 3})
        with pytest.raises(RuntimeError, match="UnpicklableError: "):
            await worker.run(PhaseTimer(), functions.raise_unpicklable_error)
        assert await worker.run(PhaseTimer(), functions.get_pid) == pid

    run(script)


def test_a_cancelled_function_is_killed_and_the_next_one_gets_a_new_process(
    run: Callable[[Script], None], tmp_path: Path
) -> None:
    async def script(worker: FunctionWorkerProcess) -> None:
        first, started = await worker.run(PhaseTimer(), functions.get_pid), tmp_path / "started"
        timer = PhaseTimer()
        busy = asyncio.create_task(worker.run(timer, functions.compute_forever, str(started)))
        await wait_until_async(started.exists)
        queued = asyncio.create_task(worker.run(PhaseTimer(), functions.get_pid))
        await asyncio.sleep(0)
        busy.cancel()
        with pytest.raises(asyncio.CancelledError):
            await busy
        assert timer.current_phase == "judge"
        assert await queued not in (first, os.getpid())
        await wait_until_async(lambda: not is_alive(first))

    run(script)


def test_who_is_cancelled_in_the_queue_leaves_the_process_alone(run: Callable[[Script], None], tmp_path: Path) -> None:
    async def script(worker: FunctionWorkerProcess) -> None:
        pid, started = await worker.run(PhaseTimer(), functions.get_pid), tmp_path / "started"
        busy = asyncio.create_task(worker.run(PhaseTimer(), functions.compute_forever, str(started)))
        await wait_until_async(started.exists)
        timer = PhaseTimer()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker.run(timer, functions.get_pid), 0.05)
        assert timer.current_phase == "judge_queue"
        assert worker.pid == pid
        assert is_alive(pid)
        busy.cancel()

    run(script)


@pytest.mark.parametrize("turns", range(1, 5))
def test_a_cancelled_start_leaves_no_process(run: Callable[[Script], None], turns: int) -> None:
    async def script(worker: FunctionWorkerProcess) -> None:
        before = child_pids()
        started = asyncio.create_task(worker.run(PhaseTimer(), functions.get_pid))
        for _ in range(turns):
            await asyncio.sleep(0)
        started.cancel()
        await asyncio.wait([started])
        await wait_until_async(lambda: child_pids() <= before)

    run(script)


@pytest.mark.parametrize(
    ("function", "end"),
    [(functions.kill_itself, "was killed by SIGKILL"), (functions.exit_itself, "exited with code 7")],
)
def test_a_process_that_ends_by_itself_is_our_fault_and_is_replaced(
    run: Callable[[Script], None], function: Callable[[], None], end: str
) -> None:
    async def script(worker: FunctionWorkerProcess) -> None:
        with pytest.raises(ProbeError) as caught:
            await worker.run(PhaseTimer(), function)
        assert (caught.value.reason, caught.value.is_internal) == ("watchdog.response_not_judged", True)
        assert end in caught.value.message
        assert await worker.run(PhaseTimer(), functions.get_pid) == worker.pid

    run(script)


def test_sigterm_to_the_whole_service_leaves_the_judgement_to_its_deadline(run: Callable[[Script], None]) -> None:
    async def script(worker: FunctionWorkerProcess) -> None:
        pid = await worker.run(PhaseTimer(), functions.get_pid)
        os.kill(pid, signal.SIGTERM)
        assert await worker.run(PhaseTimer(), functions.get_pid) == pid

    run(script)


@pytest.mark.parametrize("received", [b"", b"\0" * 3, struct.pack("!Q", 1000) + b"\0" * 5])
def test_the_process_ends_if_a_request_breaks_off(received: bytes) -> None:
    own_end, other_end = socket.socketpair()
    with own_end, other_end:
        command = [sys.executable, "-I", worker_program.__file__, str(other_end.fileno())]
        with subprocess.Popen(command, pass_fds=[other_end.fileno()], stderr=subprocess.DEVNULL) as process:
            other_end.close()
            own_end.sendall(received)
            own_end.close()
            try:
                process.wait(10)
            finally:
                process.kill()


@pytest.mark.parametrize("is_busy", [True, False], ids=["busy", "idle"])
def test_nothing_is_left_after_kill_9_of_the_parent(tmp_path: Path, is_busy: bool) -> None:
    started = tmp_path / "started"
    program = f"""
        import asyncio
        from tests.support import worker_functions as functions
        from watchdog.net import PhaseTimer
        from watchdog.net.worker_process import FunctionWorkerProcess

        async def main():
            worker = FunctionWorkerProcess()
            print(await worker.run(PhaseTimer(), functions.get_pid), flush=True)
            if {is_busy}:
                await worker.run(PhaseTimer(), functions.compute_forever, {str(started)!r})
            await asyncio.sleep(60)

        asyncio.run(main())
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        if is_busy:
            wait_until(started.exists)
        assert is_alive(pid)
        parent.kill()
    wait_until(lambda: not is_alive(pid))
