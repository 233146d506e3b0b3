"""Runs one command and kills every process that it started, however they detached, when its control socket closes.

A program of its own, with the standard library alone: `python -I -S supervisor.py FD`. FD is the control socket. Its
other end closes with the process that holds it, also by `kill -9`, so nothing that the command started outlives it.

On Linux it is a subreaper: descendants that lose their parent become its children, in any session and with any
environment. On other systems only the process group of the command is killed.

The control socket carries JSON lines. It receives {"argv", "env", "cwd"}, then "terminate". It sends {"pid"}, or
{"errno", "step"} if the command cannot be started, and {"returncode", "remaining"} when the command has ended;
`remaining` names the processes that are left: [name, pid].
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # takes as long to import as everything else

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SUPERVISOR_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
DESCENDANTS_KILL_TIMEOUT_S = 10.0
"""Seconds after which processes that cannot be killed are given up: those of another user, or stuck in the kernel."""
MAX_DESCENDANTS_KILL_INTERVAL_S = 0.1
MAX_REMAINING_PROCESSES_REPORTED = 100
"""A report has to fit into a line of 64 KiB."""
IS_LINUX = sys.platform == "linux"


class ProcessTreeSupervisor:
    """Owns the command and its descendants."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._command_pid = 0
        self._has_ended = False
        self._wakeup_fd, wakeup_write_fd = os.pipe()
        os.set_blocking(self._wakeup_fd, False)
        os.set_blocking(wakeup_write_fd, False)
        signal.set_wakeup_fd(wakeup_write_fd, warn_on_full_buffer=False)
        for number in (*SUPERVISOR_STOP_SIGNALS, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        set_prctl_option(PR_SET_CHILD_SUBREAPER, 1)

    def supervise_until_no_process_is_left(self) -> None:
        """Returns when the control socket has closed and no process is left."""
        request = self._control.makefile("r").readline()
        if request and self._start_command(json.loads(request)):
            self._reap_and_signal_until_closed()
        self._kill_descendants()

    def _start_command(self, request: dict[str, Any]) -> bool:
        error_fd, error_write_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            exec_in_new_session(request, error_write_fd)
        os.close(error_write_fd)
        redirect_standard_streams_to_null()  # they belong to the command; it would never see their end otherwise
        problem = os.read(error_fd, 100)
        os.close(error_fd)
        if problem:
            self._send_json_line_to_watchdog_process(json.loads(problem))
            return False
        self._command_pid = pid
        self._send_json_line_to_watchdog_process({"pid": pid})
        return True

    def _reap_and_signal_until_closed(self) -> None:
        while True:
            self._reap_exited_processes()
            ready, _, _ = select.select([self._control.fileno(), self._wakeup_fd], [], [])
            if self._wakeup_fd in ready and set(os.read(self._wakeup_fd, 1024)) & set(SUPERVISOR_STOP_SIGNALS):
                return
            if self._control.fileno() in ready:
                try:
                    data = self._control.recv(1024)
                except OSError:
                    return
                if not data:
                    return
                if not self._has_ended:
                    send_signal_ignoring_errors(-self._command_pid, signal.SIGTERM)

    def _reap_exited_processes(self) -> bool:
        """Collects the processes that have ended, and reports the command. Returns whether any process is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._command_pid:
                self._has_ended = True
                pids = find_own_descendant_pids()[:MAX_REMAINING_PROCESSES_REPORTED]
                remaining = [[read_program_name_of_pid(pid), pid] for pid in pids]
                self._send_json_line_to_watchdog_process(
                    {"returncode": os.waitstatus_to_exitcode(status), "remaining": remaining}
                )

    def _kill_descendants(self) -> None:
        """Stops the processes first, so that none starts another meanwhile, then kills them."""
        deadline, interval_s, stopped = time.monotonic() + DESCENDANTS_KILL_TIMEOUT_S, 0.001, set[int]()
        while self._reap_exited_processes() and time.monotonic() < deadline:
            pids = set(find_own_descendant_pids())
            if started := pids - stopped:
                for pid in started:
                    send_signal_ignoring_errors(pid, signal.SIGSTOP)
                stopped |= started
                continue
            if not IS_LINUX and not self._has_ended:
                pids = {-self._command_pid}
            for pid in pids:
                send_signal_ignoring_errors(pid, signal.SIGKILL)
            time.sleep(interval_s)
            interval_s = min(interval_s * 2, MAX_DESCENDANTS_KILL_INTERVAL_S)

    def _send_json_line_to_watchdog_process(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the other end has closed, which ends the supervision
            self._control.sendall(json.dumps(message).encode() + b"\n")


def exec_in_new_session(request: dict[str, Any], error_fd: int) -> None:
    """Becomes the command. Never returns."""
    step = "cwd"
    try:
        os.setsid()
        set_prctl_option(PR_SET_PDEATHSIG, signal.SIGKILL)  # in case the supervisor itself is killed
        for number in signal.valid_signals():  # a command would inherit what Python or its own parent ignores
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        if request["cwd"]:
            os.chdir(request["cwd"])
        step = "exec"
        os.execvpe(request["argv"][0], request["argv"], request["env"])  # noqa: S606 - the configuration names the command
    except (OSError, ValueError) as error:  # ValueError: a NUL, or no name of a program or variable
        error_number = getattr(error, "errno", None) or errno.EINVAL
        os.write(error_fd, json.dumps({"errno": error_number, "step": step}).encode())
    finally:
        os._exit(127)


def set_prctl_option(option: int, value: int) -> None:
    if IS_LINUX:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def redirect_standard_streams_to_null() -> None:
    null_fd = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null_fd, fd)


def send_signal_ignoring_errors(pid: int, number: int) -> None:
    """To a process, or with a negative `pid` to a process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def find_own_descendant_pids() -> list[int]:
    """The living processes below this one; empty on systems without /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc") if IS_LINUX else ():  # noqa: PTH208 - pathlib takes long to import
        if entry.isdecimal():
            state, parent = read_process_state_and_parent(int(entry))
            if state not in "ZX":
                children.setdefault(parent, []).append(int(entry))
    descendants, unvisited = [], [os.getpid()]
    while unvisited:
        below = children.get(unvisited.pop(), [])
        descendants += below
        unvisited += below
    return descendants


def read_process_state_and_parent(pid: int) -> tuple[str, int]:
    """State and parent of a process; "X" if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - pathlib is not loaded here
            state, parent = file.read().rpartition(b")")[2].split()[:2]
    except OSError:
        return "X", 0
    return state.decode(), int(parent)


def read_program_name_of_pid(pid: int) -> str:
    """The program's name. Its arguments may hold secrets."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:  # noqa: PTH123 - pathlib is not loaded here
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as control_socket:
        control_socket.set_inheritable(False)
        ProcessTreeSupervisor(control_socket).supervise_until_no_process_is_left()
