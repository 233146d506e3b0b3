"""Renders pages: the Jinja environment, the static files, and the filters and globals of every template."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from watchdog.domain import formatting
from watchdog.domain.text import truncate_with_ellipsis
from watchdog.resources import find_resource_folder
from watchdog.web.compression import PrecompressedResponseBody
from watchdog.web.markup import (
    PAGE_HEALTH_STATE_LABELS,
    render_glyph,
    render_next_run,
    render_state_badge,
    render_time_ago,
)
from watchdog.web.times import (
    format_html_datetime_attribute,
    render_date,
    render_timestamp,
    render_timestamp_with_zone,
)

MAX_TARGET_TEXT_PAGE_CHARS = 300
"""Characters of a target's text that a page shows."""
NO_STORE_HEADERS = {"Cache-Control": "no-store"}
"""Headers of every response that is not public."""
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Headers of every response."""
LIVE_PAGE_HEADERS = {
    "Content-Security-Policy": f"{SECURITY_HEADERS['Content-Security-Policy']}; script-src 'self'; connect-src 'self'"
}
"""Of the pages that have scripts."""
SCRIPT_NAMES = ("times.js", "live.js", "chart.js", "copy.js")
"""In templates/pages."""
HTTP_URL_PREFIX_PATTERN = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file whose URL contains a hash of its content, so that browsers may cache it indefinitely."""

    name: str
    media_type: str
    body: PrecompressedResponseBody

    @property
    def url_path(self) -> str:
        return f"/static/{self.name}"


_TEMPLATE_FUNCTIONS_BY_JINJA_MACRO_NAME = {
    "render_glyph": render_glyph,
    "render_state_badge": render_state_badge,
    "render_time_ago": render_time_ago,
    "render_next_run": render_next_run,
}
"""What templates/pages/_macros.j2 gives the names of macros."""


class PageRenderer:
    """Renders templates from templates/pages. An undefined variable in a template is an error.

    `site_title`: the title of the public page. `get_site_notice`: a text at the top of every page; empty: none.
    `extra_folder`: another folder of templates, with `filters` of its own.
    """

    def __init__(
        self,
        site_title: str,
        get_site_notice: Callable[[], str] = str,
        *,
        extra_folder: str = "",
        filters: Mapping[str, Any] = MappingProxyType({}),
    ):
        folder = find_resource_folder("templates") / "pages"
        stylesheet = _load_static_file(folder / "watchdog.css", "text/css")
        favicon = _load_static_file(folder / "icon.svg", "image/svg+xml")
        scripts = {name: _load_static_file(folder / name, "text/javascript") for name in SCRIPT_NAMES}
        self.static_files = {file.name: file for file in (stylesheet, favicon, *scripts.values())}
        self._environment = Environment(
            loader=FileSystemLoader(
                [folder, *([find_resource_folder("templates") / extra_folder] if extra_folder else [])]
            ),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {
            "site_title": site_title,
            "get_site_notice": get_site_notice,
            "stylesheet": stylesheet.url_path,
            "favicon": favicon.url_path,
            "scripts": {name: script.url_path for name, script in scripts.items()},
            "state_labels": PAGE_HEALTH_STATE_LABELS,
            **_TEMPLATE_FUNCTIONS_BY_JINJA_MACRO_NAME,
        }
        self._environment.filters |= {
            "duration": formatting.format_duration,
            "duration_rounded": formatting.format_duration_rounded,
            "number": formatting.format_number,
            "html_datetime": format_html_datetime_attribute,
            "timestamp": _timestamp_filter,
            "timestamp_with_seconds": _timestamp_with_seconds_filter,
            "timestamp_with_zone": _timestamp_with_zone_filter,
            "utc_text": _utc_text_filter,
            "date": _date_filter,
            "milliseconds": format_milliseconds_number,
            "excerpt": truncate_target_text_for_page,
            "drop_empty": drop_empty_field_values,
            "is_http_url": is_http_url,
            **filters,
        }

    def render(self, template: str, now: int, **context: Any) -> str:
        """`now`: the instant that ages and dates on the page are relative to."""
        return self._environment.get_template(template).render(now=now, **context)


def _load_static_file(path: Path, media_type: str) -> StaticFile:
    content = path.read_bytes()
    return StaticFile(
        f"{path.stem}.{sha256(content).hexdigest()[:12]}{path.suffix}", media_type, PrecompressedResponseBody(content)
    )


@pass_context
def _date_filter(context: Context, at: int) -> Markup:
    return render_date(at, context["now"])


@pass_context
def _timestamp_filter(context: Context, at: int, timezone: str = "UTC") -> Markup:
    """`timezone`: of the schedule that the time belongs to."""
    return render_timestamp(at, context["now"], timezone=timezone)


@pass_context
def _timestamp_with_seconds_filter(context: Context, at: int) -> Markup:
    return render_timestamp(at, context["now"], seconds=True)


@pass_context
def _timestamp_with_zone_filter(context: Context, at: int) -> Markup:
    """With seconds."""
    return render_timestamp_with_zone(at, context["now"], seconds=True)


@pass_context
def _utc_text_filter(context: Context, at: int) -> str:
    """For an attribute, which stays in UTC."""
    return formatting.format_utc_timestamp(at, context["now"], seconds=True)


def is_http_url(url: str) -> bool:
    """Whether a configured URL may become a link: only http and https may."""
    return HTTP_URL_PREFIX_PATTERN.match(url) is not None


def truncate_target_text_for_page(text: str) -> str:
    """A target's text, cut to MAX_TARGET_TEXT_PAGE_CHARS."""
    return truncate_with_ellipsis(text, MAX_TARGET_TEXT_PAGE_CHARS)


def drop_empty_field_values(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value}


def format_milliseconds_number(ms: float) -> str:
    """Milliseconds without their unit: "0.4", "182", "2 914"."""
    return f"{ms:.1f}".removesuffix(".0") if ms < 10 else formatting.format_number(round(ms))
