"""What the lists of probes and of jobs share: filters and a search, pages, and sections, the worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from watchdog.store.read.status import WatchdogStatus

LIST_ROWS_PER_PAGE = 200
"""Bounds the time for sparklines when there are thousands of probes."""
NEEDS_ATTENTION_SECTION_NAME = "Needs attention"

ItemT = TypeVar("ItemT")
FilterT = TypeVar("FilterT")
RowT = TypeVar("RowT")


class PageNumberPagination(NamedTuple):
    page_number: int
    page_count: int
    item_count: int
    """On all pages together."""

    def slice_items(self, items: Sequence[ItemT]) -> Sequence[ItemT]:
        """The items on this page."""
        return items[(self.page_number - 1) * LIST_ROWS_PER_PAGE : self.page_number * LIST_ROWS_PER_PAGE]


@dataclass(frozen=True, slots=True)
class ListPageSection(Generic[RowT]):
    name: str
    rows: tuple[RowT, ...]
    """Those on this page."""
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionedListWebPage(Generic[FilterT, RowT]):
    service_status: WatchdogStatus
    headline: str
    summary_lines: tuple[str, ...]
    total: int
    """Without the filter."""
    filter: FilterT
    sections: tuple[ListPageSection[RowT], ...]
    pagination: PageNumberPagination


def compute_pagination(item_count: int, page_number: int) -> PageNumberPagination:
    """A page number beyond the last is the last."""
    page_count = max(1, -(-item_count // LIST_ROWS_PER_PAGE))
    return PageNumberPagination(min(max(page_number, 1), page_count), page_count, item_count)


def group_rows_into_list_sections(
    section_names: Iterable[str], rows: Sequence[tuple[str, RowT]], totals: Counter[str]
) -> tuple[ListPageSection[RowT], ...]:
    """The sections that have rows on this page. `rows`: (section, row)."""
    rows_by_section = {name: tuple(row for section, row in rows if section == name) for name in section_names}
    return tuple(
        ListPageSection(name, own_rows, totals[name]) for name, own_rows in rows_by_section.items() if own_rows
    )


def format_attention_count(count: int) -> str:
    """ "none needs attention", "1 needs attention", "2 need attention"."""
    return f"{count} need{'s' if count == 1 else ''} attention" if count else "none needs attention"
