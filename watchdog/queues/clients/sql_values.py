"""Values as drivers of databases return them, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from watchdog.domain.model import Json
from watchdog.domain.timestamps import UNIX_EPOCH, to_epoch_ms

EPOCH_COLUMN_SUFFIX = "_epoch_s"
"""Beside a column with times, a column with this suffix holds the same as a number."""
MAX_SQL_VALUE_DEPTH = 20
"""How deep an array or an object may be nested."""
BYTES_PER_SQL_SCALAR = 8


def convert_sql_row_to_json(names: Sequence[str], values: Sequence[Any], timezone: str) -> dict[str, Json]:
    """By name of the column. `timezone`: of times that have none."""
    zone = ZoneInfo(timezone)
    row = {name: convert_sql_value_to_json(value, zone) for name, value in zip(names, values, strict=True)}
    for name, value in zip(names, values, strict=True):
        if isinstance(value, date):
            row.setdefault(f"{name}{EPOCH_COLUMN_SUFFIX}", _to_epoch_ms(value, zone) / 1000)
    return row


def list_distinct_column_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with a number behind those that occur again: id, id_2."""
    distinct: dict[str, None] = {}
    newest_numbers: dict[str, int] = {}
    for name in names:
        candidate = name
        while candidate in distinct:
            newest_numbers[name] = newest_numbers.get(name, 1) + 1
            candidate = f"{name}_{newest_numbers[name]}"
        distinct[candidate] = None
    return tuple(distinct)


def convert_sql_value_to_json(value: Any, zone: ZoneInfo, depth: int = 0) -> Json:
    """Decimal numbers become floating-point numbers, times text in UTC, and durations seconds."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Decimal():
            return float(value)
        case datetime():
            return _format_in_utc(value, zone)
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes() | bytearray() | memoryview():
            return _convert_bytes_to_text(bytes(value))
    if depth >= MAX_SQL_VALUE_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {str(key): convert_sql_value_to_json(inner, zone, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [convert_sql_value_to_json(inner, zone, depth + 1) for inner in value]
    return str(value)


def _to_epoch_ms(value: date, zone: ZoneInfo) -> int:
    return to_epoch_ms(value if isinstance(value, datetime) else datetime.combine(value, time.min), zone)


def _format_in_utc(value: datetime, zone: ZoneInfo) -> str:
    """With milliseconds, so that texts sort as times do."""
    try:
        moment = UNIX_EPOCH + timedelta(milliseconds=_to_epoch_ms(value, zone))
    except OverflowError:  # the last moments of the year 9999, which stand for "never"
        return value.isoformat()
    return f"{moment.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def _convert_bytes_to_text(value: bytes) -> str:
    """As text if it is text in UTF-8, else in hexadecimal digits."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return f"\\x{value.hex()}"


def estimate_json_size_bytes(value: Json) -> int:
    """About how much memory and evidence the value takes."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(len(key) + estimate_json_size_bytes(inner) for key, inner in value.items())
    if isinstance(value, list):
        return sum(map(estimate_json_size_bytes, value), BYTES_PER_SQL_SCALAR)
    return BYTES_PER_SQL_SCALAR


def count_json_elements(value: Json) -> int:
    """How many scalars it holds: an expression may loop over them."""
    if isinstance(value, Mapping):
        return sum(map(count_json_elements, value.values()))
    return sum(map(count_json_elements, value)) if isinstance(value, list) else 1
