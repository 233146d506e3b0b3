"""Remediation by one SQL statement."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, model_validator

from watchdog.domain.formatting import format_count_with_noun
from watchdog.queues.base import QueueConnectContext, require_installed_modules
from watchdog.queues.clients.dialects import ExternalDatabaseUrl, external_database_from_url
from watchdog.queues.clients.external_database import ExternalDatabase, execute_external_database_update
from watchdog.remediations.base import REMEDIATION_PARAMETER_NAMES, RemediationAction, RemediationParameters

MAX_REMEDIATED_ROWS = 100
"""A statement that changes more rows is rolled back: its WHERE clause is probably not what was intended."""
_SQL_PARAMETER_PATTERN = re.compile(r"(?<![:\w\\]):(\w+)")
_ALLOWED_REMEDIATION_STATEMENT_PATTERN = re.compile(
    r"\s*(update|insert\s+into|delete\s+from|merge\s+into)\s+([^\s(]+)", re.IGNORECASE
)


def _validate_write_statement(text: str) -> str:
    if not _ALLOWED_REMEDIATION_STATEMENT_PATTERN.match(text):
        raise ValueError("expected an UPDATE, INSERT, DELETE or MERGE statement, such as UPDATE ... WHERE id = :id")
    if ";" in text:
        raise ValueError("expected a single statement without ';'")
    if re.search(r"\breturning\b", text, re.IGNORECASE):
        raise ValueError("RETURNING is not supported: remove it")
    if braced := re.search(rf"{{({'|'.join(REMEDIATION_PARAMETER_NAMES)})}}", text):
        raise ValueError(f"write :{braced[1]} instead of {braced[0]}")
    if unknown := [name for name in _SQL_PARAMETER_PATTERN.findall(text) if name not in REMEDIATION_PARAMETER_NAMES]:
        valid = ", ".join(f":{name}" for name in REMEDIATION_PARAMETER_NAMES)
        raise ValueError(f"unknown parameter :{unknown[0]}; valid parameters: {valid}; write a literal colon as \\:")
    if cast := re.search(r"(?<!:):\w+(?=::)", text):
        raise ValueError(f"write CAST({cast[0]} AS ...) instead of {cast[0]}::...")
    return text


class SqlRemediation(RemediationAction):
    """One SQL statement, in its own transaction. Parameters such as `:id` and `:subject` are bound as values. The
    short form is the statement alone."""

    kind: ClassVar[str] = "sql"
    example: ClassVar[str] = """
        probes:
          - name: Billing jobs
            jobs:
              sql:
                url: "${APP_DB_URL}"
                table: scheduled_jobs
                columns: {id: id, type: job_type, status: status, started: started_at}
                statuses: {running: [running]}
              watch: {"*": {max_runtime: 2h}}
            remediation:
              on: job.stuck
              sql:
                url: "${APP_DB_REMEDIATION_URL}"
                statement: "UPDATE scheduled_jobs SET status = 'pending' WHERE id = :id AND status = 'running'"
    """

    shorthand_field: ClassVar[str] = "statement"

    statement: Annotated[str, AfterValidator(_validate_write_statement)]
    """An UPDATE, INSERT, DELETE or MERGE statement. It is rolled back if it changes more than 100 rows."""
    url: ExternalDatabaseUrl = ""
    """The URL of the database, with a role that has only the permissions for this statement; default: the database that
    the probe reads."""

    @model_validator(mode="after")
    def _require_database_driver(self) -> Self:
        if self.url:
            require_installed_modules(self.database.name, [self.database.driver_module], self.database.pip_extra)
        return self

    @property
    def database(self) -> ExternalDatabase:
        return external_database_from_url(self.url, read_write=True)

    @property
    def used_parameters(self) -> frozenset[str]:
        return frozenset(_SQL_PARAMETER_PATTERN.findall(self.statement))

    @property
    def description(self) -> str:
        """The verb and the table only: the rest of the statement may be confidential."""
        match = _ALLOWED_REMEDIATION_STATEMENT_PATTERN.match(self.statement)
        return " ".join(f"{match[1].upper()} {match[2]}".split()) if match else "SQL"

    def preload(self) -> None:
        import_module("sqlalchemy")

    async def execute(
        self, context: RemediationParameters, connect_context: QueueConnectContext, *, dry_run: bool
    ) -> str:
        """A dry run is rolled back."""
        values = {name: getattr(context, name) for name in self.used_parameters}
        row_count = await execute_external_database_update(
            self.database, connect_context, self.statement, values, MAX_REMEDIATED_ROWS, dry_run=dry_run
        )
        return f"{'would change' if dry_run else 'changed'} {format_count_with_noun(row_count, 'row')}"
