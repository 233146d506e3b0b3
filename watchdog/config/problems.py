"""What is wrong with a configuration, and where."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import NamedTuple

EMPTY_VALUE_MESSAGE = "nothing is given: fill it in, or leave it out"


class SourceLocation(NamedTuple):
    """A place in a file; lines and columns count from 1. Line 0: the file as a whole."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class ConfigProblem(NamedTuple):
    """One thing that is wrong. Free of secrets."""

    file: str
    line: int
    column: int
    path: str
    """The field: `probes.1.mcp.tools`; empty when it concerns the file."""
    message: str

    def __str__(self) -> str:
        place = SourceLocation(self.file, self.line, self.column)
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class ConfigError(Exception):
    """A configuration that cannot be used. Its text is every problem, one a line."""

    def __init__(self, problems: Iterable[ConfigProblem]):
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))


_FIELD_SYNONYMS = {
    "interval": "every", "period": "every", "frequency": "every", "cron": "schedule", "tz": "timezone",
    "labels": "tags", "assert": "expect", "assertions": "expect", "checks": "probes", "monitors": "probes",
    "endpoints": "probes", "contacts": "receivers", "notifiers": "receivers", "key": "id", "docs": "runbook",
    "database": "storage", "failures": "failure_threshold", "threshold": "failure_threshold",
    "successes": "success_threshold",
}  # fmt: skip
"""What other tools call it."""


def equivalent_name(name: str, valid_names: Iterable[str]) -> str:
    """The known word that is the same but for case and hyphens, or is ours for another tool's; empty: there is none."""
    spelled = {_normalize_name(word): word for word in valid_names}
    return spelled.get(_normalize_name(name)) or spelled.get(_FIELD_SYNONYMS.get(_normalize_name(name), ""), "")


def did_you_mean(name: str, valid_names: Iterable[str]) -> str:
    """ "; did you mean 'tools'?", or nothing when no known word is near."""
    spelled = {_normalize_name(word): word for word in valid_names}
    near = get_close_matches(_normalize_name(name), spelled, 1, 0.6)
    word = spelled[near[0]] if near else equivalent_name(name, spelled.values())
    return f"; did you mean '{word}'?" if word else ""


def _normalize_name(word: str) -> str:
    return word.lower().replace("-", "_").replace(" ", "_")
