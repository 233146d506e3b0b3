"""Conversion between domain objects and rows. JSON columns are text; an empty value is NULL."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from watchdog.domain.limits import JobLimits
from watchdog.domain.model import Json, Outcome, ProbeInfo, Result, Severity
from watchdog.domain.text import map_json_strings, replace_unstorable_characters
from watchdog.store.tables import RESULT_COLUMNS

_UNSTORABLE_JSON = re.compile("\\\\u0000|[\ud800-\udfff]")
RESULT_FIELDS = [column.name for column in RESULT_COLUMNS]


def dumps(value: Json) -> str:
    """JSON text that every database can store."""
    text = encode_json(value)
    return (
        encode_json(map_json_strings(value, replace_unstorable_characters)) if _UNSTORABLE_JSON.search(text) else text
    )


def encode_json(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def loads(text: str | None) -> Json:
    return None if text is None else json.loads(text)


def result_to_row(
    result: Result, *, late: bool, recorded_at: int, facts: str | None = None, facts_base: int | None = None
) -> dict[str, Any]:
    """`facts`, `facts_base`: the encoded listings (store/listings.py)."""
    row: dict[str, Any] = result._asdict()
    row["message"] = replace_unstorable_characters(result.message)
    row["phases"] = dumps({k: round(v, 1) for k, v in result.phases.items()}) if result.phases else None
    row["measurements"] = dumps(dict(result.measurements)) if result.measurements else None
    del row["listings"]
    row["facts"], row["facts_base"] = facts, facts_base
    row["late"], row["recorded_at"] = late, recorded_at
    return row


def result_from_row(row: Sequence[Any]) -> Result:
    """`row`: the values of RESULT_COLUMNS. Without listings: `read_results` of store/listings.py adds them."""
    values = dict(zip(RESULT_FIELDS, row, strict=True))
    del values["facts"], values["facts_base"]
    values["outcome"] = Outcome(values["outcome"])
    values["phases"] = loads(values["phases"]) or {}
    values["measurements"] = loads(values["measurements"]) or {}
    values["late"] = bool(values["late"])
    return Result(**values)


def probe_info_to_json(info: ProbeInfo) -> str:
    values = {field.name: getattr(info, field.name) for field in fields(info) if field.name != "database_id"}
    return dumps(values | {"job_limits": {name: limits.to_json() for name, limits in info.job_limits.items()}})


def probe_info_from_json(database_id: int, text: str) -> ProbeInfo:
    values: dict[str, Any] = loads(text)
    values["tags"], values["severity"] = tuple(values["tags"]), Severity(values["severity"])
    values["job_limits"] = {name: JobLimits.from_json(limits) for name, limits in values["job_limits"].items()}
    return ProbeInfo(database_id=database_id, **values)
