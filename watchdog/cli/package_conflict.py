"""PyPI's `watchdog` installs an import package of the same name; one environment cannot hold both."""

from __future__ import annotations

import os
import sys

CONFLICTING_WATCHDOG_PACKAGE_MESSAGE = """\
watchdog: the PyPI package "watchdog" {version}, which watches files, is installed in this environment, too.
Both install the import package "watchdog" and overwrite each other's files.

Install Watchdog in its own virtual environment: see "Install" in README.md.

To keep this environment instead, remove the other package and reinstall Watchdog from its wheel:

    pip uninstall watchdog
    pip install --force-reinstall --no-deps watchdog_monitor-*.whl"""


def exit_on_conflicting_watchdog_package() -> None:
    """Exits 2 with the remedy if the other distribution is installed."""
    if version := _find_installed_version_of_pypi_watchdog():
        print(CONFLICTING_WATCHDOG_PACKAGE_MESSAGE.format(version=version), file=sys.stderr)
        sys.exit(2)


def _find_installed_version_of_pypi_watchdog() -> str:
    """Reads directory names only: `importlib.metadata` would take as long to import as the interpreter to start."""
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - pathlib is not loaded yet
        except OSError:
            continue
        for name in names:
            if name.startswith("watchdog-") and name.endswith((".dist-info", ".egg-info")):
                return name.rpartition(".")[0].split("-")[1]
    return ""
