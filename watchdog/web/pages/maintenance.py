"""The maintenance windows: those in effect, the next ones, those that ended, and a form to begin maintenance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from watchdog.domain.formatting import format_count_with_noun
from watchdog.domain.maintenance_windows import MaintenanceWindow, MaintenanceWindowState
from watchdog.domain.model import Severity
from watchdog.domain.silencing import SilenceMatcher
from watchdog.store.read.maintenance import (
    list_maintenance_windows,
    list_present_and_next_maintenance,
    load_maintenance_window,
)
from watchdog.store.read.selections import count_probes_of_maintenance
from watchdog.store.read.status import Connection, WatchdogStatus, load_watchdog_status
from watchdog.web.pages.act_form import (
    EMPTY_ACT_FORM,
    ActForm,
    ProbeSelectionSuggestions,
    load_probe_selection_suggestions,
)
from watchdog.web.pages.banner import PageBanner
from watchdog.web.times import render_timestamp_with_zone

MAX_ENDED_MAINTENANCE_WINDOWS_ON_PAGE = 100


@dataclass(frozen=True, slots=True)
class MaintenancePageRow:
    id: str
    name: str
    """Empty if a person began or planned it."""
    selection: str
    author: str
    comment: str
    starts_at: int
    end_text: Markup
    can_be_ended: bool
    is_planned: bool
    """It starts later."""


@dataclass(frozen=True, slots=True)
class MaintenancePage:
    service_status: WatchdogStatus
    in_effect: tuple[MaintenancePageRow, ...]
    planned: tuple[MaintenancePageRow, ...]
    """The next time of each configured window, and what people have planned. Those that start first come first."""
    ended: tuple[MaintenancePageRow, ...]
    """The newest."""
    severities: tuple[Severity, ...]
    """To choose from."""
    suggestions: ProbeSelectionSuggestions
    form: ActForm
    started_banner: PageBanner | None
    """What the window selects that the form has just started."""


def load_maintenance_page(
    connection: Connection, now: int, started: str = "", form: ActForm = EMPTY_ACT_FORM
) -> MaintenancePage:
    """`started`: the id of a window that the form has just started."""
    current = list_present_and_next_maintenance(connection, now)
    ended = list_maintenance_windows(
        connection, now, state=MaintenanceWindowState.ENDED, limit=MAX_ENDED_MAINTENANCE_WINDOWS_ON_PAGE
    )
    return MaintenancePage(
        service_status=load_watchdog_status(connection),
        in_effect=_build_rows((window for window in current if window.is_in_effect(now)), now),
        planned=_build_rows((window for window in current if not window.is_in_effect(now)), now),
        ended=_build_rows(ended, now),
        severities=tuple(Severity),
        suggestions=load_probe_selection_suggestions(connection),
        form=form,
        started_banner=_build_started_maintenance_banner(connection, started, now) if started else None,
    )


def _build_started_maintenance_banner(connection: Connection, started: str, now: int) -> PageBanner | None:
    """None: there is no such window, or it has ended."""
    window = load_maintenance_window(connection, started)
    if window is None or window.find_state(now) is MaintenanceWindowState.ENDED:
        return None
    count = format_count_with_noun(count_probes_of_maintenance(connection, window), "probe")
    end = render_timestamp_with_zone(window.ends_at, now)
    if window.is_in_effect(now):
        return PageBanner("maint", Markup("{} in maintenance until {}").format(count, end), window.id)
    start = render_timestamp_with_zone(window.starts_at, now)
    title = Markup("Maintenance of {} is planned from {} until {}").format(count, start, end)
    return PageBanner("maint", title, window.id)


def _build_rows(windows: Iterable[MaintenanceWindow], now: int) -> tuple[MaintenancePageRow, ...]:
    return tuple(build_maintenance_page_row(window, now) for window in windows)


def build_maintenance_page_row(window: MaintenanceWindow, now: int) -> MaintenancePageRow:
    if window.ended_at is not None:
        verb = "cancelled" if window.was_cancelled else "ended"
        by = f"{verb} by {window.ended_by}" if window.ended_by else "removed from the configuration"
        end_text = Markup("{} at {}").format(by, render_timestamp_with_zone(window.ended_at, now))
    else:
        end_time = render_timestamp_with_zone(window.ends_at, now)
        end_text = Markup("{} {}").format("ended at" if window.ends_at <= now else "until", end_time)
    return MaintenancePageRow(
        id=window.id,
        name=window.name,
        selection=SilenceMatcher(window.matcher).describe(),
        author="configuration" if window.actor is None else f"{window.actor.name} ({window.actor.interface})",
        comment=window.comment,
        starts_at=window.starts_at,
        end_text=end_text,
        can_be_ended=window.can_be_ended(now),
        is_planned=window.find_state(now) is MaintenanceWindowState.PLANNED,
    )
