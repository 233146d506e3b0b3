"""Times in the columns of other applications' tables: timestamps with or without a zone, dates, numbers, text."""

from __future__ import annotations

import re
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from watchdog.domain.timestamps import MIN_EPOCH_NUMBER_READ_AS_MS, parse_epoch_s_or_ms, parse_iso8601, to_epoch_ms
from watchdog.net.errors import ProbeError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement


class ColumnTimestampRepresentationAndZone(NamedTuple):
    """How a column stores times."""

    representation: str
    """timestamp, date, number, text or any."""
    default_zone: str
    """The time zone of values that carry none."""
    timezone_aware: bool = False

    @classmethod
    def from_column_type(
        cls, column_type: Any, column: str, dialect: str, default_zone: str
    ) -> ColumnTimestampRepresentationAndZone:
        """Raises ProbeError for a type that stores no times."""
        import sqlalchemy as sa

        column_type = getattr(column_type, "data_type", column_type)  # the type behind a domain
        if dialect == "sqlite":  # any column may hold values of any type
            return cls("any", default_zone)
        if isinstance(column_type, sa.DateTime):
            # MySQL stores a TIMESTAMP in UTC and returns it in the session's zone, which is UTC here.
            utc = dialect == "mysql" and isinstance(column_type, sa.TIMESTAMP)
            return cls("timestamp", "UTC" if utc else default_zone, bool(column_type.timezone))
        if isinstance(column_type, sa.Date):
            return cls("date", default_zone)
        if isinstance(column_type, sa.Integer | sa.Numeric | sa.Float):
            return cls("number", default_zone)
        if isinstance(column_type, sa.String):
            return cls("text", default_zone)
        raise ProbeError("database.column_invalid", f"column {column} has type {column_type}, not a time")

    def build_not_older_than_condition(self, column: ColumnElement[Any], since: int) -> ColumnElement[bool]:
        """A condition: the column's time is at or after `since`, in ms since the epoch."""
        import sqlalchemy as sa

        start = datetime.fromtimestamp(since / 1000, ZoneInfo(self.default_zone))
        if self.representation == "timestamp":
            bound = start if self.timezone_aware else start.replace(tzinfo=None)
            return column >= sa.bindparam(None, bound, type_=column.type)
        if self.representation == "date":
            return column >= sa.bindparam(None, start.date(), type_=column.type)
        number, text = sa.type_coerce(column, sa.BigInteger), sa.type_coerce(column, sa.String)
        late_number = sa.or_(
            number.between(since // 1000, MIN_EPOCH_NUMBER_READ_AS_MS - 1),
            number >= max(since, MIN_EPOCH_NUMBER_READ_AS_MS),
        )
        if self.representation == "any":  # SQLite sorts every text after every number
            late_number = sa.and_(sa.func.typeof(column).in_(("integer", "real")), late_number)
        late_text = text >= start.date().isoformat()
        return {"number": late_number, "text": late_text}.get(self.representation, sa.or_(late_number, late_text))


def parse_database_timestamp_ms(value: Any, default_zone: str, column: str) -> int | None:
    """A time as a database driver returns it, in ms since the epoch. None for NULL, empty text, MySQL's zero date, and
    numbers up to 0. Raises ProbeError for a value that is not a time."""
    if isinstance(value, str):
        value = value.strip()
        if not value or value.startswith("0000-"):
            return None
        if re.fullmatch(r"\d+(\.\d+)?", value):
            value = float(value)
    if value is None or isinstance(value, bool):
        return None
    at: int | None = None
    match value:
        case datetime():
            at = to_epoch_ms(value, ZoneInfo(default_zone))
        case date():
            at = to_epoch_ms(datetime.combine(value, time.min, ZoneInfo(default_zone)))
        case int() | float() | Decimal():
            at = parse_epoch_s_or_ms(value)
            if at is not None and at <= 0:
                return None
        case str():
            at = parse_iso8601(value, ZoneInfo(default_zone))
    if at is None:
        excerpt = repr(value[:40]) if isinstance(value, str) else value
        excerpt = excerpt if isinstance(value, str | float | Decimal) else type(value).__name__
        raise ProbeError("database.column_invalid", f"column {column} contains {excerpt}, which is not a time")
    return at
