"""Configuration problems: what is invalid, where it is in which file, and which name was probably meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

EMPTY_CONFIG_VALUE_MESSAGE = "no value: add one, or remove the field"


class ConfigSourceLocation(NamedTuple):
    """A position in a file. Lines and columns count from 1; line 0 stands for the file as a whole."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class ConfigProblem(NamedTuple):
    """One invalid value, field or file; or, as a warning, a valid one that has no effect. Contains no secrets."""

    file: str
    line: int
    column: int
    path: str
    """The field, such as `probes.1.mcp.tools`; empty if the problem concerns the whole file."""
    message: str

    @property
    def source_location(self) -> ConfigSourceLocation:
        return ConfigSourceLocation(self.file, self.line, self.column)

    def __str__(self) -> str:
        location = self.source_location
        return f"{location}: {self.path}: {self.message}" if self.path else f"{location}: {self.message}"


class WatchedConfigPaths(NamedTuple):
    """Where a configuration is from: what must be watched to notice a change."""

    paths: frozenset[Path] = frozenset()
    """The main file, included files and files of secrets, as named: links are not resolved. Some may not exist."""
    include_patterns: frozenset[tuple[Path, str]] = frozenset()
    """Each `include` with the folder that it starts at."""


NO_CONFIG_FILES = WatchedConfigPaths()


class ConfiguredDatabase(NamedTuple):
    """Which database a configuration names."""

    url: str
    """May contain a password."""
    mask: Callable[[str], str]
    """Masks secrets in messages about it."""


class ServiceConnectionInfo(NamedTuple):
    """Where a program on this machine reaches the service that runs with a configuration."""

    base_url: str
    """Such as http://127.0.0.1:8080; empty if the port is chosen at random."""
    public_url: str
    """Where people reach its pages; empty if that is not configured."""
    api_key: str
    """An operator's key if there is one, else a reader's; empty without API keys."""


class ConfigError(Exception):
    """An invalid configuration. Its text lists every problem, one per line.

    `database`: None if the section `storage`, or the file as a whole, cannot be read. `service`: None if the section
    `server` or `access`, or the file as a whole, cannot be read.
    """

    def __init__(
        self,
        problems: Iterable[ConfigProblem],
        files: WatchedConfigPaths = NO_CONFIG_FILES,
        database: ConfiguredDatabase | None = None,
        service: ServiceConnectionInfo | None = None,
    ):
        self.problems, self.files, self.database, self.service = list(problems), files, database, service
        super().__init__("\n".join(map(str, self.problems)))


CONFIG_FIELD_SYNONYMS: dict[str, tuple[str, ...]] = {
    # names that other tools use
    "interval": ("every",), "period": ("every",), "frequency": ("every",), "cron": ("schedule",), "tz": ("timezone",),
    "labels": ("tags",), "assert": ("expect",), "assertions": ("expect",), "checks": ("probes",),
    "monitors": ("probes",), "endpoints": ("probes",), "contacts": ("receivers",), "notifiers": ("receivers",),
    "docs": ("runbook",), "database": ("storage",), "failures": ("failure_threshold",),
    "threshold": ("failure_threshold",), "successes": ("success_threshold",),
    # names that this format used before its first release
    "after": ("failure_threshold",), "recover": ("success_threshold",), "recheck": ("retry_interval",),
    "egress": ("allow_private_addresses",), "key": ("id", "token"), "key_file": ("token_file",),
    "remedy": ("remediation",), "most": ("max_runs",), "every": ("per",), "draining": ("stalled",),
    "least": ("min_samples",), "tracks_started": ("task_track_started",), "spool": ("check_in_log",),
    "resolve": ("send_resolved",), "show": ("match",), "keys": ("api_keys",),
}  # fmt: skip
"""Unknown name -> the fields that it may stand for. The first one that is valid in its place is suggested."""


def find_equivalent_config_name(name: str, valid_names: Iterable[str]) -> str:
    """The valid name that `name` stands for: equal but for case, hyphens and spaces, or a synonym. Empty: none."""
    valid = {_normalize_config_field_name(valid_name): valid_name for valid_name in valid_names}
    normalized = _normalize_config_field_name(name)
    candidates = (normalized, *CONFIG_FIELD_SYNONYMS.get(normalized, ()))
    return next((valid[candidate] for candidate in candidates if candidate in valid), "")


def build_did_you_mean_suffix(name: str, valid_names: Iterable[str]) -> str:
    """The suffix "; did you mean 'tools'?" for the equivalent or else the most similar valid name; empty: none."""
    valid = {_normalize_config_field_name(valid_name): valid_name for valid_name in valid_names}
    suggestion = find_equivalent_config_name(name, valid.values())
    if not suggestion and (similar := get_close_matches(_normalize_config_field_name(name), valid, 1, 0.6)):
        suggestion = valid[similar[0]]
    return f"; did you mean '{suggestion}'?" if suggestion else ""


def _normalize_config_field_name(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")
