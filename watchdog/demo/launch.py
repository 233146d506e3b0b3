"""The targets' process, started before anything heavy is imported: both then load side by side."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def free_port(wanted: int = 0) -> int:
    """The wanted port of loopback, or any free one when it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


@contextmanager
def targets() -> Iterator[int]:
    """The sample targets, on a port of their own that will be open in a moment."""
    port = free_port()
    command = [sys.executable, "-m", "watchdog.demo.targets", str(port)]
    # A session of its own: Ctrl-C is for us alone.
    with subprocess.Popen(command, start_new_session=True) as child:  # noqa: S603 - our own interpreter and module
        try:
            yield port
        finally:
            child.terminate()
