"""What lists of hundreds of rows show in each row, as HTML: a macro of a template takes several times as long.

Templates call these by the names of macros (templates/pages/_macros.j2).
"""

from __future__ import annotations

from functools import lru_cache

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from watchdog.domain import formatting
from watchdog.domain.formatting import HEALTH_STATE_LABELS
from watchdog.domain.model import HealthState
from watchdog.web.times import format_html_datetime_attribute, render_schedule_zone_attributes

PAGE_HEALTH_STATE_LABELS = {**HEALTH_STATE_LABELS, HealthState.UNKNOWN: "No data"}


@lru_cache(maxsize=64)
def render_glyph(name: str, large: bool = False) -> Markup:
    """The symbol of a state, which CSS colours."""
    svg = Markup('<svg class="g%s" viewBox="0 0 16 16" aria-hidden="true" focusable="false"><use href="#g-%s"/></svg>')
    return svg % (" g-lg" if large else "", name)


@lru_cache(maxsize=256, typed=True)  # by type, so that text that is not escaped is never taken for HTML
def render_state_badge(state: str, label: str | None = None, glyph_name: str | None = None) -> Markup:
    """The glyph and the name of a state. `label`: replaces the name."""
    text = label or PAGE_HEALTH_STATE_LABELS[HealthState(state)]
    return Markup('<span class="state is-%s">%s%s</span>') % (state, render_glyph(glyph_name or state), text)


@pass_context
def render_time_ago(context: Context, at: int) -> Markup:
    """The script of live pages counts it on."""
    return _render_time(at, 'data-age="ago"', formatting.format_time_ago(at, context["now"]))


def render_next_run(at: int, text: str, run: str = "", timezone: str = "UTC") -> Markup:
    """The script of live pages counts it down. `run`: what runs then, if it is not the run of a probe. `timezone`: of
    its schedule."""
    attributes = f'data-age="next" data-run="{escape(run)}"' if run else 'data-age="next"'
    return _render_time(at, f"{attributes}{render_schedule_zone_attributes(at, timezone)}", text)


def _render_time(at: int, attributes: str, text: str) -> Markup:
    """`attributes`: HTML."""
    start = f'<time datetime="{format_html_datetime_attribute(at)}" {attributes}>'
    return Markup(f"{start}{escape(text)}</time>")  # noqa: S704 - escaped here: `%` takes five times as long
