"""Instants as JSON."""

from __future__ import annotations

from watchdog.domain.formatting import format_iso8601


def format_optional_iso8601(at: int | None) -> str | None:
    return None if at is None else format_iso8601(at)
