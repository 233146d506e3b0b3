"""A configuration in YAML 1.2 becomes models: `load()`. What is wrong becomes one line a problem: `ConfigError`."""

from watchdog.config.load import Loaded, load
from watchdog.config.models import Access, Config, Match, Receiver, Route, Server, StatusPage, Storage
from watchdog.config.problems import ConfigError, Problem
from watchdog.config.reference import reference
from watchdog.config.schema import json_schema

__all__ = [
    "Access", "Config", "ConfigError", "Loaded", "Match", "Problem", "Receiver", "Route", "Server", "StatusPage",
    "Storage", "json_schema", "load", "reference",
]  # fmt: skip
