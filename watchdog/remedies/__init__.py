"""Remedies by kind, and when one may be used. A kind is one class and one name here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictInt,
    WithJsonSchema,
    create_model,
    model_validator,
)

from watchdog.fields import Duration, Model, the_one
from watchdog.remedies.base import RUN, Act, Cause
from watchdog.remedies.http import HttpRemedy
from watchdog.remedies.mcp import McpRemedy
from watchdog.remedies.reasons import may_be_found, reasons_meant
from watchdog.remedies.sql import SqlRemedy

KINDS: Mapping[str, type[Act]] = {"sql": SqlRemedy, "http": HttpRemedy, "mcp": McpRemedy}


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _known(word: str) -> str:
    reasons_meant(word)
    return word


Reason = Annotated[str, AfterValidator(_known)]
_SCHEMA = WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]})


class _Remedy(Model):
    """What is done, by itself, when the probe finds something wrong: at most once an incident and run of a job."""

    on: Annotated[tuple[Reason, ...], BeforeValidator(_one_or_more), Field(min_length=1), _SCHEMA]
    """The reasons for which it is done, one or a list: `stuck`, `job_stuck`, `not_picked_up`, ..."""
    most: Annotated[StrictInt, Field(ge=1, le=1000)] = 3
    """How often, at most, within `every`, whatever it is done for."""
    every: Duration = 3_600_000
    """The time that `most` is about."""
    dry_run: StrictBool = False
    """Find out and tell what it would do, and leave everything as it is."""

    @model_validator(mode="after")
    def _one_act(self) -> Self:
        the_one(self, KINDS)
        return self

    @property
    def act(self) -> Act:
        act: Act = the_one(self, KINDS)
        return act

    def strange(self, finds: tuple[str, ...]) -> list[str]:
        """The words of `on` that stand for nothing which is found. `finds`: how the reasons begin that are about jobs,
        tasks and queues."""
        return [word for word in self.on if not any(may_be_found(reason, finds) for reason in reasons_meant(word))]

    @property
    def reasons(self) -> frozenset[str]:
        return frozenset(reason for word in self.on for reason in reasons_meant(word))


_acts: dict[str, Any] = {name: (act | None, None) for name, act in KINDS.items()}
Remedy: type[_Remedy] = create_model("Remedy", __base__=_Remedy, __doc__=_Remedy.__doc__, **_acts)

__all__ = ["KINDS", "RUN", "Act", "Cause", "Remedy", "SqlRemedy"]
