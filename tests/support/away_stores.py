"""Stores that go away while Watchdog runs, and come back: each way is a context manager that lasts for the absence."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from tests.support.polling import HANG_S
from tests.support.postgres import PostgresServer

StoreAway: TypeAlias = Callable[[], AbstractContextManager[None]]


@contextmanager
def locked_sqlite(file: Path) -> Iterator[None]:
    """Another program writes, and does not finish."""
    other = sqlite3.connect(file, isolation_level=None, timeout=HANG_S)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
    finally:
        other.close()


@contextmanager
def full_disk(pid: int, max_file_bytes: int = 4_096) -> Iterator[None]:
    """No file of the process can grow beyond this size: as on a full disk, writing fails."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (max_file_bytes, hard))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def stopped_postgres(server: PostgresServer) -> Iterator[None]:
    """The server and its sessions answer nothing, although their connections stay open."""
    pids = [server.process.pid, *list_sessions(server)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextmanager
def killed_postgres(server: PostgresServer) -> Iterator[None]:
    """The server refuses connections."""
    server.kill()
    try:
        yield
    finally:
        server.start()


def list_sessions(server: PostgresServer) -> list[int]:
    """The processes of a server, without the one that accepts connections."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return [int(child) for child in children.read_text().split()]
