"""The base of sources that read scheduled jobs from one table of another application's database."""

from __future__ import annotations

import re
from abc import abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import AfterValidator, model_validator

from watchdog.domain.model import Json
from watchdog.domain.observations import JobSourceSnapshot
from watchdog.queues.base import JobSource, QueueConnectContext, require_installed_modules
from watchdog.queues.clients.dialects import ExternalDatabaseUrl, external_database_from_url
from watchdog.queues.clients.external_database import ExternalDatabase, run_external_database_transaction

if TYPE_CHECKING:
    from sqlalchemy import Connection


def _validate_table_name(text: str) -> str:
    if not re.fullmatch(r"([^\W\d][\w$]{0,63}\.)?[^\W\d][\w$]{0,63}", text):
        raise ValueError("expected a table name, or schema.table, of letters, digits and '_'")
    return text


SqlTableName = Annotated[str, AfterValidator(_validate_table_name)]


class DatabaseTableJobSourceBase(JobSource):
    """Jobs in a table. The role needs only SELECT on the table."""

    url: ExternalDatabaseUrl
    """`postgresql://user:password@host/database` (requires the `postgres` extra), `mysql://...` (`mysql` extra) or
    `sqlite:///file.db`."""
    table: SqlTableName
    """The name of the table, as `table` or `schema.table`."""

    @model_validator(mode="after")
    def _require_database_driver_installed(self) -> Self:
        require_installed_modules(self.database.name, [self.database.driver_module], self.database.pip_extra)
        return self

    @property
    def database_url(self) -> str:
        return self.url

    @property
    def database(self) -> ExternalDatabase:
        return external_database_from_url(self.url, self.table)

    @property
    def target(self) -> str:
        return f"{self.database.display_name}, table {self.table}"

    @property
    def host(self) -> str:
        return self.database.host

    def preload(self) -> None:
        import_module("sqlalchemy")
        import_module(self.database.driver_module)

    async def fetch_job_source_snapshot(self, context: QueueConnectContext) -> JobSourceSnapshot:
        snapshot, facts = await run_external_database_transaction(self.database, context, self.read_snapshot_and_facts)
        context.facts.update(facts)
        return snapshot

    @abstractmethod
    def read_snapshot_and_facts(self, connection: Connection) -> tuple[JobSourceSnapshot, dict[str, Json]]:
        """All jobs, and evidence. Runs in a thread. Raises ProbeError."""
