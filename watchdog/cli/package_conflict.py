"""PyPI has another distribution that installs an import package called `watchdog`; one environment cannot hold both."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution

PACKAGE_CONFLICT_MESSAGE = """\
watchdog: the PyPI package "watchdog" {version} (it watches files) is installed in this environment too.
Both own the import package "watchdog" and overwrite each other's files.

Give this program an environment of its own:

    uv tool install watchdog-monitor

or, with what Python brings:

    python3 -m venv ~/watchdog && ~/watchdog/bin/pip install watchdog-monitor

To stay in this environment instead:

    pip uninstall watchdog && pip install --force-reinstall --no-deps watchdog-monitor"""


def check_package_conflict() -> None:
    """Exit 2 with the remedy when the other distribution is here."""
    try:
        other = distribution("watchdog")
    except PackageNotFoundError:
        return
    print(PACKAGE_CONFLICT_MESSAGE.format(version=other.version), file=sys.stderr)
    sys.exit(2)
