"""The command line. Importing this package loads nothing: `main` decides what a command needs."""

from __future__ import annotations

import codecs
import errno
import gc
import io
import os
import signal
import sys

OUTPUT_WRITE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG})
"""What is wrong with where our output goes, and no fault of ours."""


def main() -> None:
    """The `watchdog` command. Exits 0 ok, 1 something is down, 2 usage or configuration, 3 could not judge.

    Told to end before it has begun: 130 (SIGINT) or 143 (SIGTERM).
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, exit_immediately)

    gc.set_threshold(50_000)  # a third of the time to load everything went into looking for garbage

    from watchdog.cli.package_conflict import check_package_conflict

    check_package_conflict()

    from watchdog.cli.main import cli_app

    make_stdio_lossy()
    try:
        try:
            cli_app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as e:
        if e.errno not in OUTPUT_WRITE_ERRNOS or e.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left is not tried again at the very end
        print(f"watchdog: the output cannot be written: {e.strerror}", file=sys.stderr)
        sys.exit(3)


def make_stdio_lossy() -> None:
    """A terminal or a pipe that is not in UTF-8 gets what it can show, not a traceback."""
    codecs.register_error("shown", _replace_unencodable)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors="shown")


def _replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(" " if c.isspace() else "?" for c in error.object[error.start : error.end]), error.end


def exit_immediately(signal_number: int, _frame: object) -> None:
    """At once: an exception may get lost among imports, and nothing is begun yet. A handler, for a container's first
    process ignores signals that have none."""
    os._exit(128 + signal_number)
