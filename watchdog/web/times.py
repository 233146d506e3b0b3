"""Instants on pages. They are served in UTC; with the script times.js they are in the visitor's time zone, with UTC on
hover."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from html import unescape
from typing import NamedTuple

from markupsafe import Markup

from watchdog.domain.formatting import (
    DAY_MS,
    format_date,
    format_time_in_zone,
    format_time_of_day,
    format_utc_timestamp,
    format_utc_timestamp_without_zone,
)

_HTML_TAG_PATTERN = re.compile(r"<[^<>]*>")


class TimeStyle(StrEnum):
    """What is shown of an instant. The script times.js has the same styles."""

    DATE = "date"
    """ "22 Nov"; with the year unless it is this year."""
    TIME = "time"
    """ "01:48"."""
    TIME_WITH_SECONDS = "time-seconds"
    STAMP = "stamp"
    """ "01:48"; with the date, "21 Nov 23:58", unless it is today."""
    STAMP_WITH_SECONDS = "stamp-seconds"
    TIME_OR_DATE = "time-or-date"
    """Of today the time, of any other day only the date: space is short."""


class TimeAxisLabel(NamedTuple):
    """Below a chart."""

    text: str
    """In UTC."""
    at: int | None = None
    """Epoch ms; None: the text is no time."""
    style: TimeStyle = TimeStyle.TIME


def format_html_datetime_attribute(at: int) -> str:
    """For `datetime` attributes: "2026-11-22T02:29:14Z"."""
    return datetime.fromtimestamp(at // 1000, UTC).isoformat().replace("+00:00", "Z")


def render_date(at: int, now: int) -> Markup:
    return _render_time(at, TimeStyle.DATE, format_date(at, now))


def render_time_of_day(at: int, *, seconds: bool = False) -> Markup:
    style = TimeStyle.TIME_WITH_SECONDS if seconds else TimeStyle.TIME
    return _render_time(at, style, format_time_of_day(at, seconds=seconds))


def render_time_or_date(at: int, now: int) -> Markup:
    text = format_time_of_day(at) if at // DAY_MS == now // DAY_MS else format_date(at, now)
    return _render_time(at, TimeStyle.TIME_OR_DATE, text)


def render_timestamp(at: int, now: int, *, seconds: bool = False, timezone: str = "UTC") -> Markup:
    """On a page that states the time zone elsewhere. `timezone`: of the schedule that the time belongs to."""
    style = TimeStyle.STAMP_WITH_SECONDS if seconds else TimeStyle.STAMP
    text = format_utc_timestamp_without_zone(at, now, seconds=seconds)
    return _render_time(at, style, text, render_schedule_zone_attributes(at, timezone))


def render_schedule_zone_attributes(at: int, timezone: str) -> Markup:
    """Of `<time>`: "23 Nov 2026 03:00:00 CET, Europe/Berlin" on hover, to which the script adds UTC. Empty for UTC."""
    if timezone == "UTC":
        return Markup()
    distant_now = 0  # the date is shown with its year, as that of UTC
    text = f"{format_time_in_zone(at, distant_now, timezone, seconds=True)}, {timezone}"
    return Markup(' data-in-schedule-zone="{0}" title="{0}"').format(text)


def render_timestamp_with_zone(at: int, now: int, *, seconds: bool = False) -> Markup:
    """ "01:48 UTC", or "02:48 GMT+1" with the script."""
    style = TimeStyle.STAMP_WITH_SECONDS if seconds else TimeStyle.STAMP
    return _render_time(at, style, format_utc_timestamp(at, now, seconds=seconds), Markup(" data-zone"))


def _render_time(at: int, style: TimeStyle, text: str, attributes: Markup = Markup()) -> Markup:  # noqa: B008 - immutable
    return Markup('<time datetime="{}" data-as="{}"{}>{}</time>').format(
        format_html_datetime_attribute(at), style.value, attributes, text
    )


def convert_markup_to_plain_text(text: str) -> str:
    """The text of a page as plain text, with its times in UTC."""
    return unescape(_HTML_TAG_PATTERN.sub("", text)) if isinstance(text, Markup) else text


def render_time_axis(labels: Sequence[TimeAxisLabel], y: int) -> Markup:
    """SVG texts, evenly over the width, with their baseline at `y` px. A narrow window shows every second one, or every
    third if they are long."""
    out = Markup()
    for i, label in enumerate(labels):
        anchor = "start" if i == 0 else "end" if i == len(labels) - 1 else "middle"
        time = Markup() if label.at is None else Markup(' data-at="{}" data-as="{}"').format(label.at, label.style)
        out += Markup('<text{}{} x="{:.4g}%" y="{}" text-anchor="{}">{}</text>').format(
            Markup(' class="wide-only"') if i % (3 if len(label.text) > len("02:29") else 2) else "",
            time,
            i / max(1, len(labels) - 1) * 100,
            y,
            anchor,
            label.text,
        )
    return out
