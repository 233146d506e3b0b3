"""`watchdog version`."""

from __future__ import annotations


def version_command() -> None:
    """Print the version."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        print(installed("watchdog-monitor"))
    except PackageNotFoundError:
        print("not installed: running from source")
