"""Instants as databases keep them: with a zone or without, as a number, as text."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from watchdog.wire.faults import Fault

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

IN_MS = 100_000_000_000
"""Epoch numbers from here on (1973 in milliseconds, 5138 in seconds) are milliseconds."""


class Time(NamedTuple):
    """How a column holds instants."""

    form: str
    """timestamp, date, number, text or any."""
    zone: str
    """Of times that carry none."""
    aware: bool = False

    @classmethod
    def of(cls, kind: Any, column: str, dialect: str, zone: str) -> Time:
        """Raises Fault."""
        import sqlalchemy as sa

        kind = getattr(kind, "data_type", kind)  # of a domain
        if dialect == "sqlite":  # a column's type binds nobody there
            return cls("any", zone)
        if isinstance(kind, sa.DateTime):
            utc = dialect == "mysql" and isinstance(kind, sa.TIMESTAMP)  # kept in UTC, told in the session's zone
            return cls("timestamp", "UTC" if utc else zone, bool(kind.timezone))
        if isinstance(kind, sa.Date):
            return cls("date", zone)
        if isinstance(kind, sa.Integer | sa.Numeric | sa.Float):
            return cls("number", zone)
        if isinstance(kind, sa.String):
            return cls("text", zone)
        raise Fault("database.column_invalid", f"column {column} is of type {kind}: expected a time")

    def recent(self, column: ColumnElement[Any], since: int) -> ColumnElement[bool]:
        """Whether an instant is not older than this."""
        import sqlalchemy as sa

        start = datetime.fromtimestamp(since / 1000, ZoneInfo(self.zone))
        if self.form == "timestamp":
            return column >= sa.bindparam(None, start if self.aware else start.replace(tzinfo=None), type_=column.type)
        if self.form == "date":
            return column >= sa.bindparam(None, start.date(), type_=column.type)
        number, text = sa.type_coerce(column, sa.BigInteger), sa.type_coerce(column, sa.String)
        late = sa.or_(number.between(since // 1000, IN_MS - 1), number >= max(since, IN_MS))
        if self.form == "any":  # there any text is more than any number
            late = sa.and_(sa.func.typeof(column).in_(("integer", "real")), late)
        later = text >= start.date().isoformat()
        return {"number": late, "text": later}.get(self.form, sa.or_(late, later))


def instant(value: Any, zone: str, column: str) -> int | None:
    """Milliseconds since the epoch, of whatever a driver gives for a time; None: there is none. Raises Fault."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int | float | Decimal):
        if not isfinite(value):
            raise Fault("database.column_invalid", f"column {column} holds {value}, which is no time")
        return None if value <= 0 else int(value * 1000) if value < IN_MS else int(value)
    if isinstance(value, str):
        value = _read(value.strip(), column)
        if value is None or isinstance(value, float):
            return instant(value, zone, column)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)  # noqa: DTZ001 - the zone follows
    if not isinstance(value, datetime):
        raise Fault("database.column_invalid", f"column {column} holds {type(value).__name__}, which is no time")
    aware = value if value.tzinfo is not None else value.replace(tzinfo=ZoneInfo(zone))
    return round((aware - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)


def _read(text: str, column: str) -> datetime | float | None:
    if not text or text.startswith("0000-"):
        return None
    try:
        return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else datetime.fromisoformat(text)
    except ValueError:
        raise Fault("database.column_invalid", f"column {column} holds {text[:40]!r}, which is no time") from None
