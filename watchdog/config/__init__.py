"""A configuration in YAML 1.2 becomes models: `load()`. What is wrong becomes one line a problem: `ConfigError`."""

from watchdog.config.load import LoadedConfig, load_config
from watchdog.config.models import (
    AccessSettings,
    Config,
    MatchSettings,
    Receiver,
    RouteSettings,
    ServerSettings,
    StatusPageSettings,
    StorageSettings,
)
from watchdog.config.problems import ConfigError, ConfigProblem
from watchdog.config.reference import render_reference
from watchdog.config.schema import json_schema

__all__ = [
    "AccessSettings",
    "Config",
    "ConfigError",
    "ConfigProblem",
    "LoadedConfig",
    "MatchSettings",
    "Receiver",
    "RouteSettings",
    "ServerSettings",
    "StatusPageSettings",
    "StorageSettings",
    "json_schema",
    "load_config",
    "render_reference",
]
