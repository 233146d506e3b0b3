"""Templates into pages: the one Jinja environment, the one stylesheet, and what every page is given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context

from watchdog.domain import formatting
from watchdog.domain.text import shorten
from watchdog.resources import resource_path
from watchdog.web.pages.timeline import PAGE_STATE_LABELS

MAX_EXCERPT_CHARS = 300
"""Characters of a target's text that a page shows."""
NO_STORE_HEADERS = {"Cache-Control": "no-store"}
"""For whatever is not everybody's."""
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""On every answer."""
HTTP_URL_PATTERN = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file served under a name that changes with its content, so that it may be cached for ever."""

    name: str
    media_type: str
    content: bytes

    @property
    def url_path(self) -> str:
        return f"/static/{self.name}"


class TemplateRenderer:
    """`title`: the public page's. `also`: another folder of templates, with filters of its own."""

    def __init__(self, site_title: str, *, extra_folder: str = "", filters: Mapping[str, Any] = MappingProxyType({})):
        folder = resource_path("templates") / "pages"
        self.static = {
            static.name: static
            for static in (
                _load_static_file(folder / "watchdog.css", "text/css"),
                _load_static_file(folder / "icon.svg", "image/svg+xml"),
            )
        }
        stylesheet, icon = (static.url_path for static in self.static.values())
        self._env = Environment(
            loader=FileSystemLoader([folder, *([resource_path("templates") / extra_folder] if extra_folder else [])]),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._env.globals |= {"site": site_title, "stylesheet": stylesheet, "icon": icon, "words": PAGE_STATE_LABELS}
        self._env.filters |= {
            "span": formatting.format_duration,
            "about": formatting.format_duration_rounded,
            "clock": formatting.format_time_of_day,
        }
        self._env.filters |= {
            "iso": format_html_datetime,
            "exact": _time_with_seconds_filter,
            "moment": _time_filter,
            "ago": _ago_filter,
            "date": _date_filter,
        }
        self._env.filters |= {
            "is_link": is_http_url,
            "cut": truncate_excerpt,
            "filled": drop_empty_values,
            "thousands": format_grouped_number,
            "number": formatting.format_number,
        }
        self._env.filters |= filters

    def render(self, template: str, now: int, **context: Any) -> str:
        """`now`: the instant against which ages are told."""
        return self._env.get_template(template).render(now=now, **context)


def _load_static_file(path: Path, media_type: str) -> StaticFile:
    content = path.read_bytes()
    return StaticFile(f"{path.stem}.{sha256(content).hexdigest()[:12]}{path.suffix}", media_type, content)


def format_html_datetime(at: int) -> str:
    """For `datetime` attributes: "2026-11-22T02:29:14Z"."""
    return datetime.fromtimestamp(at // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pass_context
def _ago_filter(context: Context, at: int) -> str:
    return formatting.format_time_ago(at, context["now"])


@pass_context
def _date_filter(context: Context, at: int) -> str:
    return formatting.format_date(at, context["now"])


@pass_context
def _time_filter(context: Context, at: int) -> str:
    return formatting.format_timestamp(at, context["now"])


@pass_context
def _time_with_seconds_filter(context: Context, at: int) -> str:
    return formatting.format_timestamp(at, context["now"], seconds=True)


def is_http_url(url: str) -> bool:
    """Whether a configured URL may be a link: nothing but http and https."""
    return HTTP_URL_PATTERN.match(url) is not None


def truncate_excerpt(text: str) -> str:
    """A target's text, no longer than a page shows."""
    return shorten(text, MAX_EXCERPT_CHARS)


def drop_empty_values(values: Mapping[str, object]) -> dict[str, object]:
    """Without what is empty."""
    return {name: value for name, value in values.items() if value}


def format_grouped_number(ms: float) -> str:
    """Milliseconds without their unit: "0.4", "182", "2 914"."""
    if ms < 10:
        return f"{ms:.1f}".removesuffix(".0")
    return f"{ms:,.0f}".replace(",", formatting.NBSP)
