"""The command line. Importing this package loads nothing: `main` decides what a command needs."""

from __future__ import annotations


def main() -> None:
    """The `watchdog` command. Exits 0 ok, 1 something is down, 2 usage or configuration, 3 could not judge."""
    from watchdog.cli.clash import refuse_clash

    refuse_clash()

    from watchdog.cli.root import app

    app()
