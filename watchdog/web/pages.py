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

from watchdog import words
from watchdog.assets import asset
from watchdog.web.timeline import STATE_WORDS

EXCERPT = 300
"""Characters of a target's text that a page shows."""
NO_STORE = {"Cache-Control": "no-store"}
"""For whatever is not everybody's."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""On every answer."""
SAFE_LINK = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Static:
    """A file served under a name that changes with its content, so that it may be cached for ever."""

    name: str
    media_type: str
    content: bytes

    @property
    def path(self) -> str:
        return f"/static/{self.name}"


class Pages:
    """`title`: the public page's. `also`: another folder of templates, with filters of its own."""

    def __init__(self, title: str, *, also: str = "", filters: Mapping[str, Any] = MappingProxyType({})):
        folder = asset("templates") / "pages"
        self.static = {
            static.name: static
            for static in (_static(folder / "watchdog.css", "text/css"), _static(folder / "icon.svg", "image/svg+xml"))
        }
        stylesheet, icon = (static.path for static in self.static.values())
        self._env = Environment(
            loader=FileSystemLoader([folder, *([asset("templates") / also] if also else [])]),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._env.globals |= {"site": title, "stylesheet": stylesheet, "icon": icon, "words": STATE_WORDS}
        self._env.filters |= {"span": words.span, "about": words.about, "clock": words.clock}
        self._env.filters |= {"iso": iso, "exact": _exact, "moment": _moment, "ago": _ago, "date": _date}
        self._env.filters |= {
            "is_link": is_link,
            "cut": cut,
            "filled": filled,
            "thousands": thousands,
            "number": words.number,
        }
        self._env.filters |= filters

    def render(self, template: str, now: int, **context: Any) -> str:
        """`now`: the instant against which ages are told."""
        return self._env.get_template(template).render(now=now, **context)


def _static(path: Path, media_type: str) -> Static:
    content = path.read_bytes()
    return Static(f"{path.stem}.{sha256(content).hexdigest()[:12]}{path.suffix}", media_type, content)


def iso(at: int) -> str:
    """For `datetime` attributes: "2026-11-22T02:29:14Z"."""
    return datetime.fromtimestamp(at // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pass_context
def _ago(context: Context, at: int) -> str:
    return words.ago(at, context["now"])


@pass_context
def _date(context: Context, at: int) -> str:
    return words.date(at, context["now"])


@pass_context
def _moment(context: Context, at: int) -> str:
    return words.moment(at, context["now"])


@pass_context
def _exact(context: Context, at: int) -> str:
    return words.moment(at, context["now"], seconds=True)


def is_link(url: str) -> bool:
    """Whether a configured URL may be a link: nothing but http and https."""
    return SAFE_LINK.match(url) is not None


def cut(text: str) -> str:
    """A target's text, no longer than a page shows."""
    return text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "…"


def filled(values: Mapping[str, object]) -> dict[str, object]:
    """Without what is empty."""
    return {name: value for name, value in values.items() if value}


def thousands(ms: float) -> str:
    """Milliseconds without their unit: "0.4", "182", "2 914"."""
    if ms < 10:
        return f"{ms:.1f}".removesuffix(".0")
    return f"{ms:,.0f}".replace(",", words.NBSP)
