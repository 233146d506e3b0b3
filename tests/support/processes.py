"""The processes of this machine."""

from __future__ import annotations

import os
from pathlib import Path


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
