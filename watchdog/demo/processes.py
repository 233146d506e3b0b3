"""The targets' process, started before anything heavy is imported: both then load side by side."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def start_targets() -> Iterator[tuple[int, Path]]:
    """The sample targets, on a port of their own that will be open in a moment, and the folder that holds all data."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="watchdog-demo-")
    command = [sys.executable, "-m", "watchdog.demo.targets", str(port), folder]
    # A session of its own: Ctrl-C is for us alone. The pipe closes with us, however we end; the targets then remove the
    # folder and end, too.
    with subprocess.Popen(command, start_new_session=True, stdin=subprocess.PIPE):  # noqa: S603 - our own
        yield port, Path(folder)
