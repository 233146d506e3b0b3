"""Environment variables that several commands read. Loads nothing: `watchdog exec` needs it at once."""

from __future__ import annotations

CONFIG_FILE_ENV_VAR = "WATCHDOG_CONFIG"
DEFAULT_CONFIG_FILE = "watchdog.yaml"
