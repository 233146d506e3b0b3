"""The command line. Importing this package loads nothing: `main` decides what a command needs."""

from __future__ import annotations

import gc
import os
import signal


def main() -> None:
    """The `watchdog` command. Exits 0 ok, 1 something is down, 2 usage or configuration, 3 could not judge.

    Told to end before it has begun: 130 (SIGINT) or 143 (SIGTERM).
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave)

    gc.set_threshold(50_000)  # a third of the time to load everything went into looking for garbage

    from watchdog.cli.clash import refuse_clash

    refuse_clash()

    from watchdog.cli.root import app

    app()


def leave(number: int, _frame: object) -> None:
    """At once: an exception may get lost among imports, and nothing is begun yet. A handler, for a container's first
    process ignores signals that have none."""
    os._exit(128 + number)
