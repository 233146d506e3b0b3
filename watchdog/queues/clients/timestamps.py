"""Instants as databases keep them: with a zone or without, as a number, as text."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from watchdog.net.errors import ProbeError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

EPOCH_MS_THRESHOLD = 100_000_000_000
"""Epoch numbers from here on (1973 in milliseconds, 5138 in seconds) are milliseconds."""


class TimestampFormat(NamedTuple):
    """How a column holds instants."""

    representation: str
    """timestamp, date, number, text or any."""
    default_zone: str
    """Of times that carry none."""
    timezone_aware: bool = False

    @classmethod
    def from_column_type(cls, column_type: Any, column: str, dialect: str, default_zone: str) -> TimestampFormat:
        """Raises Fault."""
        import sqlalchemy as sa

        column_type = getattr(column_type, "data_type", column_type)  # of a domain
        if dialect == "sqlite":  # a column's type binds nobody there
            return cls("any", default_zone)
        if isinstance(column_type, sa.DateTime):
            utc = dialect == "mysql" and isinstance(
                column_type, sa.TIMESTAMP
            )  # kept in UTC, told in the session's zone
            return cls("timestamp", "UTC" if utc else default_zone, bool(column_type.timezone))
        if isinstance(column_type, sa.Date):
            return cls("date", default_zone)
        if isinstance(column_type, sa.Integer | sa.Numeric | sa.Float):
            return cls("number", default_zone)
        if isinstance(column_type, sa.String):
            return cls("text", default_zone)
        raise ProbeError("database.column_invalid", f"column {column} is of type {column_type}: expected a time")

    def not_older_than(self, column: ColumnElement[Any], since: int) -> ColumnElement[bool]:
        """Whether an instant is not older than this."""
        import sqlalchemy as sa

        start = datetime.fromtimestamp(since / 1000, ZoneInfo(self.default_zone))
        if self.representation == "timestamp":
            return column >= sa.bindparam(
                None, start if self.timezone_aware else start.replace(tzinfo=None), type_=column.type
            )
        if self.representation == "date":
            return column >= sa.bindparam(None, start.date(), type_=column.type)
        number, text = sa.type_coerce(column, sa.BigInteger), sa.type_coerce(column, sa.String)
        late = sa.or_(number.between(since // 1000, EPOCH_MS_THRESHOLD - 1), number >= max(since, EPOCH_MS_THRESHOLD))
        if self.representation == "any":  # there any text is more than any number
            late = sa.and_(sa.func.typeof(column).in_(("integer", "real")), late)
        later = text >= start.date().isoformat()
        return {"number": late, "text": later}.get(self.representation, sa.or_(late, later))


def parse_timestamp_ms(value: Any, default_zone: str, column: str) -> int | None:
    """Milliseconds since the epoch, of whatever a driver gives for a time; None: there is none. Raises Fault."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int | float | Decimal):
        if not isfinite(value):
            raise ProbeError("database.column_invalid", f"column {column} holds {value}, which is no time")
        return None if value <= 0 else int(value * 1000) if value < EPOCH_MS_THRESHOLD else int(value)
    if isinstance(value, str):
        value = _parse_timestamp_text(value.strip(), column)
        if value is None or isinstance(value, float):
            return parse_timestamp_ms(value, default_zone, column)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)  # noqa: DTZ001 - the zone follows
    if not isinstance(value, datetime):
        raise ProbeError("database.column_invalid", f"column {column} holds {type(value).__name__}, which is no time")
    aware = value if value.tzinfo is not None else value.replace(tzinfo=ZoneInfo(default_zone))
    return round((aware - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)


def _parse_timestamp_text(text: str, column: str) -> datetime | float | None:
    if not text or text.startswith("0000-"):
        return None
    try:
        return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else datetime.fromisoformat(text)
    except ValueError:
        raise ProbeError("database.column_invalid", f"column {column} holds {text[:40]!r}, which is no time") from None
