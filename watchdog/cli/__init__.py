"""The command line. Importing this package loads nothing: `main` decides what a command needs."""

from __future__ import annotations

import codecs
import errno
import gc
import io
import os
import signal
import sys

STDOUT_DISK_OR_TERMINAL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG})
"""Errors of the disk or terminal that the output goes to."""


def main() -> None:
    """The `watchdog` command.

    Exits 0 if all is well, 1 if something is down, 2 for a usage or configuration error, 3 if something cannot be
    judged or reached, and 128 + number when a signal stops it before the command starts.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            is_ignored = number == signal.SIGHUP and sys.argv[1:2] == ["run"]
            signal.signal(number, _ignore_signal if is_ignored else _exit_on_signal)

    gc.disable()  # imports create few cycles; a command that runs for long calls `freeze_heap_and_enable_gc`

    from watchdog.cli.package_conflict import exit_on_conflicting_watchdog_package

    exit_on_conflicting_watchdog_package()
    set_stdio_replacement_error_handler()
    try:
        try:
            _run_exec_or_cli()
        finally:
            gc.freeze()  # the collector need not visit all modules once more at exit
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as e:
        if e.errno not in STDOUT_DISK_OR_TERMINAL_ERRNOS or e.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes what is left once more at exit
        print(f"watchdog: cannot write the output: {e.strerror}", file=sys.stderr)
        sys.exit(3)


def _run_exec_or_cli() -> None:
    if sys.argv[1:2] == ["exec"]:
        from watchdog.cli.exec_run import parse_exec_arguments, run_external_command_and_send_check_ins

        if (arguments := parse_exec_arguments(sys.argv[2:])) is not None:
            sys.exit(run_external_command_and_send_check_ins(arguments))

    from watchdog.cli.main import cli_app

    cli_app()


def set_stdio_replacement_error_handler() -> None:
    """Output that is not in UTF-8 shows `?` for what it cannot encode."""
    codecs.register_error("watchdog-replace", _handle_encode_error_by_replacement)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors="watchdog-replace")


def _handle_encode_error_by_replacement(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(" " if c.isspace() else "?" for c in error.object[error.start : error.end]), error.end


def _ignore_signal(_signal_number: int, _frame: object) -> None:
    """A handler, because programs that Watchdog starts would inherit SIG_IGN."""


def _exit_on_signal(signal_number: int, _frame: object) -> None:
    """An exception might be swallowed by an import, and nothing has started yet. The default action would not do: the
    first process of a container ignores signals without a handler."""
    os._exit(128 + signal_number)
