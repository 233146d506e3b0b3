"""A remedy in a database: one statement."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, model_validator

from watchdog.queues.base import Reach, installed
from watchdog.queues.change import change
from watchdog.queues.database import Database
from watchdog.queues.database_kinds import DatabaseUrl, database
from watchdog.remedies.base import PARAMETERS, Act, Cause
from watchdog.words import count

ROWS = 100
"""A statement that changes more rows is taken back: its WHERE is not what was meant."""
_PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)")


_WHAT = re.compile(r"\s*(update|insert\s+into|delete\s+from|merge\s+into)\s+([^\s(]+)", re.IGNORECASE)


def _statement(text: str) -> str:
    if not _WHAT.match(text):
        raise ValueError("expected UPDATE, INSERT, DELETE or MERGE, such as UPDATE ... WHERE id = :id")
    for word, why in ((r";", "one statement, without ';'"), (r"\breturning\b", "nobody reads what RETURNING gives")):
        if re.search(word, text, re.IGNORECASE):
            raise ValueError(f"{why}: what it changes is counted, and taken back if it is too much")
    if braced := re.search(rf"{{({'|'.join(PARAMETERS)})}}", text):
        raise ValueError(f"write :{braced[1]} in the place of {braced[0]}")
    if unknown := [name for name in _PARAMETER.findall(text) if name not in PARAMETERS]:
        known = ", ".join(f":{name}" for name in PARAMETERS)
        raise ValueError(f"no parameter :{unknown[0]}; there are {known}; a colon that is none is written \\:")
    if cast := re.search(r"(?<!:):\w+(?=::)", text):
        raise ValueError(f"write CAST({cast[0]} AS ...): a parameter cannot be cast by ::")
    return text


class SqlRemedy(Act):
    """A statement, in a transaction of its own. A job's name or id comes in as a parameter: `:id`, never as text."""

    shorthand: ClassVar[str] = "statement"

    statement: Annotated[str, AfterValidator(_statement)]
    """At most 100 rows may change, else it is taken back."""
    url: DatabaseUrl = ""
    """Where, and as whom: a role that may do this and no more; default: the database that the jobs are read from."""

    @model_validator(mode="after")
    def _driven(self) -> Self:
        if self.url:
            installed(self.database.name, [self.database.module], self.database.extra)
        return self

    @property
    def database(self) -> Database:
        return database(self.url, writes=True)

    @property
    def parameters(self) -> frozenset[str]:
        return frozenset(_PARAMETER.findall(self.statement))

    @property
    def shown(self) -> str:
        """Without the rest, which may hold what is for few eyes."""
        told = _WHAT.match(self.statement)
        return " ".join(f"{told[1].upper()} {told[2]}".split()) if told else "SQL"

    def prepare(self) -> None:
        import_module("sqlalchemy")

    async def apply(self, cause: Cause, reach: Reach, *, dry: bool) -> str:
        """A dry run is taken back."""
        values = {name: getattr(cause, name) for name in self.parameters}
        changed = count(await change(self.database, reach, self.statement, values, ROWS, dry=dry), "row")
        return f"would change {changed}" if dry else f"changed {changed}"
