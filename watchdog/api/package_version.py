"""The version of the installed package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def read_watchdog_version() -> str:
    """Empty if the package is not installed."""
    try:
        return version("watchdog-monitor")
    except PackageNotFoundError:
        return ""
