"""The targets' process, started before anything heavy is imported: both then load side by side."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def targets() -> Iterator[int]:
    """The sample targets, on a port of their own that will be open in a moment."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "watchdog.demo.targets", str(port)]
    # A session of its own: Ctrl-C is for us alone. The pipe closes with us, however we end, and the targets with it.
    with subprocess.Popen(command, start_new_session=True, stdin=subprocess.PIPE) as child:  # noqa: S603 - our own
        try:
            yield port
        finally:
            child.kill()
