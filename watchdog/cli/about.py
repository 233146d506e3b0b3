"""`watchdog version`."""

from __future__ import annotations


def version() -> None:
    """Print the installed version."""
    from importlib.metadata import version as installed

    print(installed("watchdog-monitor"))
