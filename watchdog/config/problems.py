"""What is wrong with a configuration, and where."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import NamedTuple

NOTHING = "nothing is given: fill it in, or leave it out"


class Mark(NamedTuple):
    """A place in a file; lines and columns count from 1. Line 0: the file as a whole."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class Problem(NamedTuple):
    """One thing that is wrong. Free of secrets."""

    file: str
    line: int
    column: int
    path: str
    """The field: `probes.1.mcp.tools`; empty when it concerns the file."""
    message: str

    def __str__(self) -> str:
        place = Mark(self.file, self.line, self.column)
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class ConfigError(Exception):
    """A configuration that cannot be used. Its text is every problem, one a line."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))


_SYNONYMS = {
    "interval": "every", "period": "every", "frequency": "every", "cron": "schedule", "tz": "timezone",
    "labels": "tags", "assert": "expect", "assertions": "expect", "checks": "probes", "monitors": "probes",
    "endpoints": "probes", "contacts": "receivers", "notifiers": "receivers", "id": "key", "docs": "runbook",
    "database": "storage", "failures": "after", "threshold": "after", "successes": "recover",
}  # fmt: skip
"""What other tools call it."""


def same(wrong: str, known: Iterable[str]) -> str:
    """The known word that is the same but for case and hyphens, or is ours for another tool's; empty: there is none."""
    spelled = {_folded(word): word for word in known}
    return spelled.get(_folded(wrong)) or spelled.get(_SYNONYMS.get(_folded(wrong), ""), "")


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """ "; did you mean 'tools'?", or nothing when no known word is near."""
    spelled = {_folded(word): word for word in known}
    near = get_close_matches(_folded(wrong), spelled, 1, 0.6)
    word = spelled[near[0]] if near else same(wrong, spelled.values())
    return f"; did you mean '{word}'?" if word else ""


def _folded(word: str) -> str:
    return word.lower().replace("-", "_").replace(" ", "_")
