"""What a change of an MCP server's contract is, and what it means for the server's clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from watchdog.domain.model import Json

MAX_LISTED_CONTRACT_CHANGES = 100
"""Changes of one contract that are listed, breaking ones first."""
MAX_CONTRACT_CHANGE_TEXT_CHARS = 300
MAX_CHANGED_TEXT_EXCERPT_CHARS = 240
"""Of a text before and after its change."""
_EXCERPT_CONTEXT_CHARS = 40


class ContractChangeClass(StrEnum):
    """What a change means for calls that were valid before it."""

    BREAKING = "breaking"
    """Such a call may be refused now, or its result may lack what clients rely on."""
    ADDITIVE = "additive"
    """Every such call is still valid."""
    NOTICE = "notice"
    """Calls are not affected. What a model reads about the tool may be."""


class ContractPart(StrEnum):
    """What a change is about."""

    PROTOCOL = "protocol"
    CAPABILITIES = "capabilities"
    SERVER = "server"
    """Its name."""
    INSTRUCTIONS = "instructions"
    """Its text for models about its use."""
    TOOLS = "tools"


class ContractChange(NamedTuple):
    """One difference between two contracts."""

    change_class: ContractChangeClass
    part: ContractPart
    text: str
    """A clause: "tool search: argument limit is now required"."""
    before: str = ""
    after: str = ""
    is_certain: bool = True
    """False: it cannot be decided whether valid calls are refused now, so the change counts as breaking."""
    suspicion: str = ""
    """Why a new text may be an instruction to a model, in words; empty: it is not suspicious."""
    is_suspicion_strong: bool = False
    """The text is worded or hidden as an attack would be. An address alone is a weak suspicion."""

    @property
    def label(self) -> str:
        """ "breaking", "breaking, not certain", "notice, suspicious"."""
        notes = ("" if self.is_certain else "not certain", "suspicious" if self.suspicion else "")
        return ", ".join(filter(None, (self.change_class.value, *notes)))

    def to_json(self) -> Json:
        defaults = self._field_defaults
        return {name: value for name, value in self._asdict().items() if defaults.get(name) != value}

    @classmethod
    def from_json(cls, stored: Mapping[str, Json]) -> ContractChange:
        values = {name: stored[name] for name in cls._fields if name in stored}
        change_class, part = ContractChangeClass(values.pop("change_class")), ContractPart(values.pop("part"))
        return cls(change_class, part, **values)


def sort_contract_changes(changes: Iterable[ContractChange]) -> list[ContractChange]:
    """Breaking changes first, then what is suspicious, then additive ones and notices."""
    order = [*ContractChangeClass]
    return sorted(
        changes,
        key=lambda change: (
            change.change_class is not ContractChangeClass.BREAKING,
            not change.is_suspicion_strong,
            not change.suspicion,
            order.index(change.change_class),
        ),
    )


def summarize_texts(texts: list[str], max_listed: int = 2) -> str:
    """ "tool a was removed; tool b was removed; and 3 more"."""
    more = [f"and {len(texts) - max_listed} more"] if len(texts) > max_listed else []
    return "; ".join([*texts[:max_listed], *more])


def excerpt_changed_text(before: str, after: str) -> tuple[str, str]:
    """The part in which two texts differ, with a few characters around it."""
    start = _count_common_leading_characters(before, after)
    end = _count_common_leading_characters(before[start:][::-1], after[start:][::-1])
    first = max(start - _EXCERPT_CONTEXT_CHARS, 0)
    excerpts = []
    for text in (before, after):
        stop = min(len(text) - end + _EXCERPT_CONTEXT_CHARS, first + MAX_CHANGED_TEXT_EXCERPT_CHARS, len(text))
        excerpts.append(f"{'…' if first else ''}{text[first:stop]}{'…' if stop < len(text) else ''}")
    return excerpts[0], excerpts[1]


def _count_common_leading_characters(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
