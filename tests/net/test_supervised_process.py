"""A command that Watchdog starts leaves no process behind: no matter what it started, and how it ends."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvloop

from tests.support.polling import wait_until
from tests.support.processes import processes_with
from watchdog.net.supervised_process import SupervisedCommandStartError, SupervisedProcess
from watchdog.net.supervisor import MAX_REMAINING_PROCESSES_REPORTED

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have process groups only")

SLEEP = "import time; time.sleep(600)"
DETACHED = f"""
import os, sys, time
# A process without anything in common with the command: double fork, own session, no environment, no descriptors.
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 256)
        os.execve(sys.executable, [sys.executable, "-c", {SLEEP!r}, sys.argv[1]], {{}})
    os._exit(0)
os.wait()
"""
FORKING = """
import os, sys, time
# Two processes that replace each other as fast as they can.
for _ in range(2):
    if os.fork() == 0:
        while True:
            if os.fork() == 0: continue
            os._exit(0)
"""
COMMANDS = {
    "a process": SLEEP,
    "a process that ignores signals": f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}",
    "a child": f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {SLEEP!r}, sys.argv[1]])\n{SLEEP}",
    "an orphan": f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {SLEEP!r}, sys.argv[1]])",
    "a detached process": DETACHED + SLEEP,
    "a detached process of a command that has ended": DETACHED,
    "a stopped process": f"import os, signal\nif os.fork() == 0: os.kill(os.getpid(), signal.SIGSTOP)\n{SLEEP}",
    "processes that fork all the time": FORKING + SLEEP,
}


@pytest.fixture
def null() -> Iterator[int]:
    """A descriptor of the null device."""
    with Path(os.devnull).open("r+b") as file:
        yield file.fileno()


def run_child(argv: list[str], cwd: str = "", env: dict[str, str] | None = None) -> SupervisedProcess:
    return SupervisedProcess(argv, {"PATH": os.environ["PATH"]} if env is None else env, cwd)


@pytest.mark.parametrize("program", COMMANDS.values(), ids=COMMANDS)
def test_closing_kills_every_process(program: str, tmp_path: Path, null: int) -> None:
    mark = str(tmp_path)

    async def go() -> None:
        child = run_child([sys.executable, "-c", program, mark])
        await child.start(null, null, null)
        await asyncio.to_thread(wait_until, lambda: bool(processes_with(mark)))
        await asyncio.sleep(0.2)
        await child.close()
        assert processes_with(mark) == []

    asyncio.run(go())


def cancel_task(_: anyio.CancelScope) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


CANCELLATIONS = {"a task": cancel_task, "a scope, which interrupts every wait": lambda scope: scope.cancel()}


@pytest.mark.parametrize("cancel", CANCELLATIONS.values(), ids=CANCELLATIONS)
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_cancellation_waits_until_every_process_is_killed(
    run: Callable[[Coroutine[Any, Any, None]], None],
    cancel: Callable[[anyio.CancelScope], None],
    tmp_path: Path,
    null: int,
) -> None:
    async def go() -> None:
        child = run_child([sys.executable, "-c", SLEEP, str(tmp_path)])
        await child.start(null, null, null)
        assert child._supervisor is not None
        child._supervisor.send_signal(signal.SIGSTOP)  # as on a busy machine
        asyncio.get_running_loop().call_later(0.3, child._supervisor.send_signal, signal.SIGCONT)
        with suppress(asyncio.CancelledError), anyio.CancelScope() as scope:
            cancel(scope)
            await child.close()
        assert child._supervisor.returncode == 0
        assert processes_with(str(tmp_path)) == []

    run(go())


HOLDER = """
import asyncio, os, signal, sys
from watchdog.net.supervised_process import SupervisedProcess

signal.signal(signal.SIGINT, signal.default_int_handler)  # the background jobs of a shell ignore it

async def go():
    child = SupervisedProcess(sys.argv[2:], {"PATH": os.environ["PATH"]}, "")
    null = os.open(os.devnull, os.O_RDWR)
    await child.start(null, null, null)
    print("started", flush=True)
    parent_ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(int(sys.argv[1]), parent_ended.set)
    await parent_ended.wait()

asyncio.run(go())
"""
"""Holds a command as Watchdog does, until it is killed or its parent ends: the other end of the pipe in its first
argument closes with this process, also by SIGKILL."""


@contextmanager
def holder(program: str, mark: str) -> Iterator[subprocess.Popen[bytes]]:
    read_fd, write_fd = os.pipe()
    argv = [sys.executable, "-c", HOLDER, str(read_fd), sys.executable, "-c", program, mark]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, pass_fds=[read_fd]) as process:
        os.close(read_fd)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"started\n"
            yield process
        finally:
            os.close(write_fd)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("program", COMMANDS.values(), ids=COMMANDS)
def test_the_end_of_watchdog_kills_every_process(program: str, number: int, tmp_path: Path) -> None:
    mark = str(tmp_path)
    with holder(program, mark) as watchdog:
        time.sleep(0.2)
        watchdog.send_signal(number)
        watchdog.wait()
    wait_until(lambda: not processes_with(mark))


def test_the_end_of_the_tests_ends_what_they_hold(tmp_path: Path) -> None:
    """Nothing of these tests outlives them, even if they are killed."""
    mark = str(tmp_path)
    program = f"""
import time
from pathlib import Path
from tests.net.test_supervised_process import SLEEP, holder
with holder(SLEEP, {mark!r}):
    print("started", flush=True)
    time.sleep(600)
"""
    argv = [sys.executable, "-c", program]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as tests:
        assert tests.stdout is not None
        assert tests.stdout.readline() == b"started\n"
        assert processes_with(mark)
        tests.kill()
    wait_until(lambda: not processes_with(mark))


@pytest.mark.parametrize("has_unread_request", [False, True])
def test_the_end_of_the_supervisor_kills_the_command(tmp_path: Path, has_unread_request: bool) -> None:
    async def go() -> int:
        child = run_child([sys.executable, "-c", SLEEP, str(tmp_path)])
        await child.start(0, 1, 2)
        assert child._supervisor is not None
        if has_unread_request:  # the socket is reset then
            child._supervisor.send_signal(signal.SIGSTOP)
            child.send_sigterm()
        child._supervisor.kill()
        async with asyncio.timeout(10):
            await child.ended.wait()
        await child.close()
        return child.returncode

    assert asyncio.run(go()) == -signal.SIGKILL
    wait_until(lambda: not processes_with(str(tmp_path)))


@pytest.mark.parametrize(
    ("argv", "cwd", "error_number", "step"),
    [
        (["no-such-command"], "", errno.ENOENT, "exec"),
        (["/etc/passwd"], "", errno.EACCES, "exec"),
        (["/"], "", errno.EACCES, "exec"),
        ([sys.executable], "/nowhere", errno.ENOENT, "cwd"),
        ([sys.executable], "/etc/passwd", errno.ENOTDIR, "cwd"),
    ],
)
def test_a_command_that_cannot_be_started(argv: list[str], cwd: str, error_number: int, step: str) -> None:
    async def go() -> None:
        child = run_child(argv, cwd)
        with pytest.raises(SupervisedCommandStartError) as error:
            await child.start(0, 1, 2)
        assert (error.value.error_number, error.value.step) == (error_number, step)
        await child.close()

    asyncio.run(go())


@pytest.mark.parametrize(
    ("program", "returncode"),
    [("exit(0)", 0), ("exit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9), ("import os; os.abort()", -6)],
)
def test_the_end_of_the_command_is_reported(program: str, returncode: int) -> None:
    async def go() -> int:
        child = run_child([sys.executable, "-c", program])
        await child.start(0, 1, 2)
        await child.ended.wait()
        await child.close()
        return child.returncode

    assert asyncio.run(go()) == returncode


@pytest.mark.parametrize(("count", "named"), [(1, 1), (MAX_REMAINING_PROCESSES_REPORTED + 1, 100)])
def test_processes_that_are_left_are_named(count: int, named: int) -> None:
    async def go() -> list[str]:
        program = f"import subprocess\nfor _ in range({count}): subprocess.Popen(['sleep', '600'])"
        child = run_child([sys.executable, "-c", program])
        await child.start(0, 1, 2)
        await child.ended.wait()
        await child.close()
        return [left.name for left in child.left_processes]

    assert asyncio.run(go()) == ["sleep"] * named


def test_the_command_has_default_signals_and_no_descriptor_of_the_supervisor(null: int) -> None:
    program = """
import os, signal
open_fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
ignored = next(line for line in open("/proc/self/status") if line.startswith("SigIgn"))
exit(1 if len(open_fds) > 4 or int(ignored.split()[1], 16) & ~(1 << 12 | 1 << 24) else 0)
"""

    async def go() -> int:
        child = run_child([sys.executable, "-c", program])
        await child.start(null, null, null)
        await child.ended.wait()
        await child.close()
        return child.returncode

    assert asyncio.run(go()) == 0
