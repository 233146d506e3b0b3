"""Which services a view of the status page lists: all of a small installation, otherwise those that are not up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from watchdog.domain.model import HealthState
from watchdog.store.read.status import ProbeStatus
from watchdog.web.pages.list_page import LIST_ROWS_PER_PAGE, PageNumberPagination, compute_pagination

_NOT_UP_HEALTH_STATES_WORST_FIRST = (HealthState.DOWN, HealthState.DEGRADED, HealthState.UNKNOWN)


class StatusPageGroupAndPageNumber(NamedTuple):
    """What a visitor requests: all services of a group, or without a group all groups."""

    group: str | None = None
    page_number: int = 1


@dataclass(frozen=True, slots=True)
class PaginatedStatusPageServices:
    view: StatusPageGroupAndPageNumber
    group_names: tuple[str, ...]
    """Of the groups on this page, in order."""
    service_count_by_group: Mapping[str, int]
    """Of all groups."""
    listed_ids: frozenset[int]
    """Database ids of the probes that are listed with their history."""
    pagination: PageNumberPagination
    """Of the services of a group, or of the groups."""


def paginate_status_page_services(
    statuses: Sequence[ProbeStatus], group_order: Sequence[str], view: StatusPageGroupAndPageNumber
) -> PaginatedStatusPageServices:
    """`statuses`: of all probes that the page shows, in its order."""
    counts = Counter(status.probe.group for status in statuses)
    view = replace_nonexistent_status_page_view(view, counts)
    if view.group is not None:
        members = [status for status in statuses if status.probe.group == view.group]
        pagination = compute_pagination(len(members), view.page_number)
        names, listed = [view.group], list(pagination.slice_items(members))
    else:
        rank = {name: i for i, name in enumerate(group_order)}
        ordered = sorted(counts, key=lambda name: (rank.get(name, len(rank)), not name, name))
        pagination = compute_pagination(len(ordered), view.page_number)
        names, listed = list(pagination.slice_items(ordered)), list(statuses)
        if len(statuses) > LIST_ROWS_PER_PAGE:
            on_page = set(names)
            not_up = [s for s in statuses if s.state in _NOT_UP_HEALTH_STATES_WORST_FIRST and s.probe.group in on_page]
            listed = sorted(not_up, key=lambda s: _NOT_UP_HEALTH_STATES_WORST_FIRST.index(s.state))[:LIST_ROWS_PER_PAGE]
    return PaginatedStatusPageServices(
        view, tuple(names), counts, frozenset(status.probe.database_id for status in listed), pagination
    )


def replace_nonexistent_status_page_view(
    view: StatusPageGroupAndPageNumber, service_count_by_group: Mapping[str, int]
) -> StatusPageGroupAndPageNumber:
    """The view that is shown instead of one that does not exist. A small installation has a single view."""
    if sum(service_count_by_group.values()) <= LIST_ROWS_PER_PAGE:
        return StatusPageGroupAndPageNumber()
    group = view.group if view.group in service_count_by_group else None
    count = len(service_count_by_group) if group is None else service_count_by_group[group]
    return StatusPageGroupAndPageNumber(group, compute_pagination(count, view.page_number).page_number)
