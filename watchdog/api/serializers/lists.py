"""Pages of lists as JSON."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG

ItemT = TypeVar("ItemT")


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class ListPageJson(TypedDict, Generic[ItemT]):
    """One page of a list."""

    items: list[ItemT]
    next: str | None
    """The path and query of the next page; null: this is the last."""
