"""The silences: those in effect, those that ended, and a form for another one."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from watchdog.domain.formatting import format_count_with_noun
from watchdog.domain.model import HealthState, Severity
from watchdog.domain.silencing import Silence
from watchdog.domain.text import format_as_sentence
from watchdog.store.read.acts import list_silences, list_silences_in_effect, load_silence
from watchdog.store.read.selections import (
    count_open_incidents_of_silence,
    load_active_probe_infos,
    load_selected_counts_of_silences,
    load_silence_selection_summary,
)
from watchdog.store.read.status import Connection, WatchdogStatus, load_watchdog_status
from watchdog.web.pages.act_form import (
    EMPTY_ACT_FORM,
    ActForm,
    ProbeSelectionSuggestions,
    build_probe_selection_suggestions,
)
from watchdog.web.pages.acts import render_silence_end
from watchdog.web.pages.banner import PageBanner
from watchdog.web.times import render_timestamp_with_zone

MAX_ENDED_SILENCES_ON_PAGE = 100


@dataclass(frozen=True, slots=True)
class SilencesPageRow:
    id: str
    selection: str
    selected: str
    """What it selects now: "selects 3 probes and 1 open incident"; empty: it has ended."""
    author: str
    comment: str
    started_at: int
    end_text: Markup
    is_in_effect: bool


@dataclass(frozen=True, slots=True)
class SilencesPage:
    service_status: WatchdogStatus
    in_effect: tuple[SilencesPageRow, ...]
    """Those that end first come first."""
    ended: tuple[SilencesPageRow, ...]
    """The newest."""
    severities: tuple[Severity, ...]
    """To choose from."""
    suggestions: ProbeSelectionSuggestions
    form: ActForm
    started_banner: PageBanner | None
    """What the silence selects that the form has started."""


def load_silences_page(
    connection: Connection, now: int, started: str = "", form: ActForm = EMPTY_ACT_FORM
) -> SilencesPage:
    """`started`: the id of a silence that the form has just started."""
    ended = list_silences(connection, is_in_effect=False, limit=MAX_ENDED_SILENCES_ON_PAGE)
    in_effect = list_silences_in_effect(connection)
    probes = load_active_probe_infos(connection)
    selected = load_selected_counts_of_silences(connection, in_effect, probes)
    return SilencesPage(
        service_status=load_watchdog_status(connection),
        in_effect=tuple(
            build_silences_page_row(silence, now, selected[silence.id].describe()) for silence in in_effect
        ),
        ended=tuple(build_silences_page_row(silence, now) for silence in ended),
        severities=tuple(Severity),
        suggestions=build_probe_selection_suggestions(probes.values()),
        form=form,
        started_banner=_build_started_silence_banner(connection, started, now) if started else None,
    )


def _build_started_silence_banner(connection: Connection, started: str, now: int) -> PageBanner | None:
    """None: there is no such silence, it has ended, or it selects one incident alone."""
    silence = load_silence(connection, started)
    if silence is None or silence.ended_at is not None or silence.incident:
        return None
    selection = load_silence_selection_summary(connection, silence.matcher)
    title = Markup("{} silences {} and {} {}").format(
        silence.id,
        format_count_with_noun(selection.probe_count, "probe"),
        format_count_with_noun(count_open_incidents_of_silence(connection, silence), "open incident"),
        render_silence_end(silence, now),
    )
    warnings = " ".join(map(format_as_sentence, selection.warnings))
    return PageBanner(HealthState.DEGRADED if warnings else HealthState.UNKNOWN, title, warnings)


def build_silences_page_row(silence: Silence, now: int, selected: str = "") -> SilencesPageRow:
    """`selected`: what it selects now, in words."""
    if silence.ended_at is None:
        end_text = render_silence_end(silence, now)
    else:
        ended_at = render_timestamp_with_zone(silence.ended_at, now)
        end_text = Markup("{} at {}").format(silence.describe_past_end(), ended_at)
    return SilencesPageRow(
        id=silence.id,
        selection=silence.describe_selection(),
        selected=selected,
        author=f"{silence.actor.name} ({silence.actor.interface})",
        comment=silence.comment,
        started_at=silence.started_at,
        end_text=end_text,
        is_in_effect=silence.ended_at is None,
    )
