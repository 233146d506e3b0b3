"""The banners at the top of a page: what an operator must know before anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

from markupsafe import Markup

from watchdog.domain.model import HealthState

TextT = TypeVar("TextT", str, Markup)


@dataclass(frozen=True, slots=True)
class PageBanner:
    state: HealthState | Literal["maint"]
    """What its colour and icon stand for: a state, or maintenance."""
    title: str
    text: str
    incident_id: str = ""
    """The incident that the banner is about, which it links to."""


def capitalize_first(text: TextT) -> TextT:
    return text[:1].upper() + text[1:]
