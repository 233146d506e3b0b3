"""Value types that every configuration model shares: durations, secrets and CEL expressions."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr, WithJsonSchema

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
PATTERN = r"^(\d+(\.\d+)?(ms|s|m|h|d))+$"


def parse_duration(value: Any) -> int:
    """ "1h30m" -> 5_400_000. Raises ValueError for anything that is not a positive duration with a unit."""
    if not isinstance(value, str) or not re.fullmatch(PATTERN, value):
        raise ValueError("expected a duration such as 30s, 5m, 1h30m or 2d")
    total = round(sum(float(n) * _UNIT[u] for n, u in _PART.findall(value)))
    if total <= 0:
        raise ValueError("expected a duration longer than zero")
    return total


def duration_text(ms: int) -> str:
    """5_400_000 -> "1h30m": the way configurations write it."""
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        n, ms = divmod(ms, _UNIT[unit])
        if n:
            parts.append(f"{n}{unit}")
    return "".join(parts) or "0s"


Duration = Annotated[int, BeforeValidator(parse_duration), WithJsonSchema({"type": "string", "pattern": PATTERN})]
"""Milliseconds, written as 30s, 5m, 1h30m, 2d."""

Secret = SecretStr
"""A value that is masked in every output, whatever its length and wherever it came from."""


class Model(BaseModel):
    """The base of every configuration model: unknown fields are errors, values are frozen."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )
