"""The processes of this machine, and the end of those that a test started."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.support.polling import HANG_S


def end_process(process: subprocess.Popen[Any], number: signal.Signals = signal.SIGTERM) -> None:
    """End it with the signal, or if it ignores that with SIGKILL, and close its pipes. What is left to the garbage
    collector fails a later test."""
    if process.poll() is None:
        process.send_signal(number)
    try:
        process.communicate(timeout=HANG_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def processes_with(*arguments: str) -> list[int]:
    """Processes with all of these arguments, zombies aside."""
    pids = []
    for entry in filter(lambda entry: entry.name.isdecimal(), Path("/proc").iterdir()):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if {argument.encode() for argument in arguments} <= set(words):
            pids.append(int(entry.name))
    return pids


def child_pids() -> set[int]:
    """The children of this process, zombies included."""
    pids = set()
    for entry in filter(lambda entry: entry.name.isdecimal(), Path("/proc").iterdir()):
        try:
            [_, parent_pid] = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent_pid) == os.getpid():
            pids.add(int(entry.name))
    return pids
