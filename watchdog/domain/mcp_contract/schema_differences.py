"""The differences between two JSON Schemas, and what each means for the clients of a tool."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from watchdog.domain.mcp_contract.changes import (
    MAX_CHANGED_TEXT_EXCERPT_CHARS,
    ContractChangeClass,
    excerpt_changed_text,
)
from watchdog.domain.model import Json
from watchdog.domain.text import quote_json_value

_BREAKING, _ADDITIVE, _NOTICE = ContractChangeClass


class SchemaEffect(NamedTuple):
    """What a difference means if the schema is that of the arguments, and if it is that of the result.

    A result may gain fields: clients read those that they expect.
    """

    of_arguments: ContractChangeClass
    of_result: ContractChangeClass
    widens: bool
    """A value may be valid that was not valid before."""
    is_certain: bool = True

    @property
    def narrows(self) -> bool:
        """A value that was valid may be refused."""
        return self.of_arguments is _BREAKING


NARROWED = SchemaEffect(_BREAKING, _ADDITIVE, widens=False)
WIDENED = SchemaEffect(_ADDITIVE, _BREAKING, widens=True)
UNDECIDED = SchemaEffect(_BREAKING, _BREAKING, widens=True, is_certain=False)
ADDED = SchemaEffect(_ADDITIVE, _ADDITIVE, widens=False)
"""A property that was accepted before, because others are."""
ADDED_TO_CLOSED = SchemaEffect(_ADDITIVE, _ADDITIVE, widens=True)
"""A property that was refused before."""
UNLISTED = SchemaEffect(_NOTICE, _NOTICE, widens=True)
"""A property that is no longer listed, and still accepted, perhaps without an effect."""
UNLISTED_REQUIRED = SchemaEffect(_NOTICE, _BREAKING, widens=True)
REFUSED = SchemaEffect(_BREAKING, _NOTICE, widens=False)
"""A property that is no longer listed, and refused."""
REFUSED_REQUIRED = SchemaEffect(_BREAKING, _BREAKING, widens=True)
CLOSED = SchemaEffect(_BREAKING, _NOTICE, widens=False)
OPENED = SchemaEffect(_ADDITIVE, _NOTICE, widens=True)
TEXT = SchemaEffect(_NOTICE, _NOTICE, widens=False)


class SchemaDifference(NamedTuple):
    effect: SchemaEffect
    path: str
    """Of the part that differs: "filter.tags[]"; empty: the whole schema."""
    text: str
    """Follows the name of that part: "is now required"."""
    before: str = ""
    after: str = ""

    def move_into(self, path: str) -> SchemaDifference:
        """As a difference of the schema that contains the compared one at `path`."""
        separator = "." if path and self.path and not self.path.startswith("[") else ""
        return self._replace(path=f"{path}{separator}{self.path}")


class SubschemaComparer(Protocol):
    """Compares parts of the two schemas."""

    def compare(self, old: Json, new: Json, path: str, depth: int) -> list[SchemaDifference]:
        """The differences of two parts, which are at `path` of the compared one."""

    def combine(self, schemas: list[Json]) -> Json:
        """One schema for several that all apply."""

    def are_conditions_equal(self, old: Json, new: Json) -> bool:
        """Whether two parts are certain to mean the same."""


def describe_text_change(name: str, before: str, after: str) -> SchemaDifference:
    """`name`: of the text, such as "description"."""
    text = f"has another {name}" if before and after else f"has a new {name}" if after else f"has no {name} any more"
    return SchemaDifference(TEXT, "", text, *excerpt_changed_text(before, after))


def format_schema_value(value: Json) -> str:
    return quote_json_value(value, MAX_CHANGED_TEXT_EXCERPT_CHARS)
