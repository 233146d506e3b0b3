"""Starts the sample targets' process, before anything heavy is imported: both then load in parallel."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def start_demo_targets() -> Iterator[tuple[int, Path]]:
    """Start the sample targets. Yields their port, which opens a moment later, and the folder for all data."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="watchdog-demo-")
    command = [sys.executable, "-m", "watchdog.demo.targets", str(port), folder]
    # In a session of its own, so that Ctrl-C reaches only this process. The pipe closes when this process exits or
    # is killed; the targets then remove the folder and exit.
    with subprocess.Popen(command, start_new_session=True, stdin=subprocess.PIPE):  # noqa: S603 - our own
        yield port, Path(folder)
