"""Finds templates and migrations: inside an installed package, or beside the package in a checkout."""

from __future__ import annotations

from pathlib import Path

_WATCHDOG_PACKAGE_DIR = Path(__file__).parent


def find_resource_folder(name: str) -> Path:
    """The path of a resource: "templates" or "migrations". Raises FileNotFoundError."""
    for place in (_WATCHDOG_PACKAGE_DIR / "_data" / name, _WATCHDOG_PACKAGE_DIR.parent / name):
        if place.exists():
            return place
    raise FileNotFoundError(f"{name} is missing: reinstall watchdog-monitor")
