"""A configuration in YAML 1.2 becomes models: `load()`. What is wrong becomes one line a problem: `ConfigError`."""

from watchdog.config.load import Loaded, load
from watchdog.config.models import Access, Config, Match, Receiver, Route, Server, StatusPage, Storage
from watchdog.config.problems import ConfigError, Problem

__all__ = [
    "Access", "Config", "ConfigError", "Loaded", "Match", "Problem", "Receiver", "Route", "Server", "StatusPage",
    "Storage", "load",
]  # fmt: skip
