"""The banners at the top of a page: what an operator must know before anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from watchdog.domain.model import HealthState


@dataclass(frozen=True, slots=True)
class PageBanner:
    state: HealthState | Literal["maint"]
    """What its colour and icon stand for: a state, or maintenance."""
    title: str
    text: str
    incident_id: str = ""
    """The incident that the banner is about, which it links to."""
    silence_id: str = ""
    """The silence that the banner is about."""
