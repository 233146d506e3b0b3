"""The plugins of the Monitoring Plugins project, which Nagios uses, if they are installed."""

from __future__ import annotations

from pathlib import Path

PLUGIN_FOLDERS = ("/usr/lib/nagios/plugins", "/usr/lib/monitoring-plugins", "/usr/lib64/nagios/plugins")


def find_monitoring_plugins() -> Path | None:
    """The folder of the plugins; None if they are not installed."""
    folders = (Path(folder) for folder in PLUGIN_FOLDERS)
    return next((folder for folder in folders if (folder / "check_load").exists()), None)
