"""Instants as other programs write them, in ms since the epoch. Pure.

Every function returns None for a value that it cannot read: what that means is the caller's to decide.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from email.utils import parsedate_to_datetime
from math import isfinite

UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MIN_EPOCH_NUMBER_READ_AS_MS = 100_000_000_000
"""Epoch numbers from here on (1973 in milliseconds, 5138 in seconds) are milliseconds, smaller ones seconds."""
MAX_EPOCH_MS = 100_000_000_000_000
"""Instants from here on (the year 5138) are not believed: the source wrote something else there."""

_RUBY_OR_GO_TIMESTAMP_PATTERN = re.compile(
    r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?) ?"
    r"(?:([+-]\d\d:?\d\d)(?: [A-Z]{1,5}| [+-]\d{2,4})?|UTC|GMT)(?: m=[+-][\d.]+)?"
)
"""A time, and its offset: Ruby's and Go's formats."""
_RFC2822_ZONE_PATTERN = re.compile(r"( [+-]\d{4}( \(.*\))?| GMT| UTC?)$")


def to_epoch_ms(moment: datetime, zone: tzinfo = UTC) -> int:
    """`zone` applies to a time without one."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
    return round((aware - UNIX_EPOCH) / timedelta(milliseconds=1))


def parse_iso8601(text: object, zone: tzinfo = UTC) -> int | None:
    """ "2026-11-22T01:48:07Z" -> 1_795_312_087_000. `zone` applies to a time without one."""
    if not isinstance(text, str):
        return None
    try:
        return to_epoch_ms(datetime.fromisoformat(text.strip()), zone)
    except ValueError:
        return None


def parse_timestamp_in_common_formats(text: str) -> int | None:
    """A time as programs print it: ISO 8601, RFC 2822 ("Sun, 22 Nov 2026 01:48:07 GMT", of JavaScript's `toUTCString`),
    or as Ruby and Go print it ("2026-11-22 01:48:07 UTC", "2026-11-22 01:48:07.5 +0100 CET m=+7.2"). Without a zone it
    is UTC. None also for a zone that is only named, unless it is UTC or GMT: such names are ambiguous."""
    if (at := parse_iso8601(text)) is not None:
        return at
    if match := _RUBY_OR_GO_TIMESTAMP_PATTERN.fullmatch(text.strip()):
        return parse_iso8601(match[1] + (match[2] or "Z"))
    try:
        return to_epoch_ms(parsedate_to_datetime(text)) if _RFC2822_ZONE_PATTERN.search(text) else None
    except (ValueError, OverflowError):
        return None


def parse_epoch_s_or_ms(number: float | Decimal) -> int | None:
    """Seconds or milliseconds since the epoch, distinguished by their size."""
    if not isfinite(number):
        return None
    return round(number * 1000 if number < MIN_EPOCH_NUMBER_READ_AS_MS else number)


def parse_positive_ms(value: str | float | None) -> int | None:
    """A number of milliseconds: an instant or an interval. None for what is no number, for the number 0 (but not for
    the text "0"), for negative numbers and from MAX_EPOCH_MS on."""
    try:
        milliseconds = int(float(value or ""))
    except (ValueError, OverflowError):
        return None
    return milliseconds if 0 <= milliseconds < MAX_EPOCH_MS else None
