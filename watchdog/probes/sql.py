"""The `sql` probe: runs a query on a database and evaluates what it returns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple, Self

from pydantic import AfterValidator, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from watchdog.config_types import ConfigModel, FieldPath, MultiFieldValidationError, SingleLineText, TimezoneName
from watchdog.domain.formatting import format_count_with_noun, format_names
from watchdog.domain.model import Evidence, Json, JsonScalar, Observation, Outcome
from watchdog.domain.reasons import build_reason_and_message
from watchdog.domain.text import map_json_strings, truncate_to_single_line
from watchdog.expressions import CelExpression
from watchdog.net.body_limits import MAX_BODY_BYTES_IN_EVENT_LOOP, MAX_JSON_ELEMENTS_IN_EVENT_LOOP
from watchdog.net.errors import ProbeError
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.probes.expectations import (
    ExpressionEvaluationContext,
    ExpressionVariableValueProblem,
    add_facts_to_observation_evidence,
    build_observation_from_error,
    evaluate_expectations_to_verdict,
)
from watchdog.queues.base import QueueConnectContext, require_installed_modules
from watchdog.queues.clients.dialects import ExternalDatabaseUrl, external_database_from_url
from watchdog.queues.clients.external_database import ExternalDatabase
from watchdog.queues.clients.sql_text import find_query_problem, find_unused_parameters
from watchdog.queues.clients.sql_values import count_json_elements, estimate_json_size_bytes

if TYPE_CHECKING:
    from watchdog.queues.clients.sql_query import SqlQuery, SqlQueryResult

MAX_QUERY_CHARS = 20_000
MAX_ROWS_IN_EXCERPT = 20
MAX_ROWS_EXCERPT_CHARS = 5_000
"""More than is stored: cutting before masking could leave part of a secret."""
MAX_QUERY_MEASUREMENTS = 10
ROW_MEASUREMENT_PREFIX = "row."
"""The measurements of a result have names of Watchdog's own as well."""
_ALL_ROWS_VARIABLES = ("rows", "row_count")
_COLUMN_OF_ROW_PATTERN = re.compile(r"(?<![\w.])row\.([A-Za-z_]\w*)")


def _validate_query_length(text: str) -> str:
    if len(text) > MAX_QUERY_CHARS:
        raise ValueError(f"expected a query of at most {MAX_QUERY_CHARS:,} characters")
    return text


class SqlQuerySettings(ConfigModel):
    """A database and a query. The role needs only SELECT on what the query reads."""

    url: ExternalDatabaseUrl
    """`postgresql://user:password@host/database` (requires the `postgres` extra), `mysql://...` (`mysql` extra, also
    for MariaDB) or `sqlite:///file.db`. A file must exist, and is opened for reading only."""
    query: Annotated[str, AfterValidator(_validate_query_length)]
    """One statement that returns rows, such as SELECT. It runs in a read-only transaction, and the server cancels it
    shortly before `timeout`. A statement that waits 0.5 s for a lock fails (1 s with MySQL). A parameter is written as
    `:name`, and a literal colon in front of a name as `\\:`."""
    params: dict[SingleLineText, StrictStr | StrictInt | StrictFloat | StrictBool | None] = Field(default_factory=dict)
    """The values of the parameters, by name. They are sent apart from the query, or quoted."""
    timezone: TimezoneName = "UTC"
    """The time zone of times that the database stores without a time zone."""

    @model_validator(mode="after")
    def _validate_query_and_parameters(self) -> Self:
        require_installed_modules(self.database.name, [self.database.driver_module], self.database.pip_extra)
        errors: list[tuple[FieldPath, str]] = []
        is_postgres, is_mysql = (self.url.startswith(f"{scheme}:") for scheme in ("postgresql", "mysql"))
        if problem := find_query_problem(self.query, self.params, is_postgres=is_postgres, is_mysql=is_mysql):
            errors.append((("query",), problem))
        else:
            unused = find_unused_parameters(self.query, self.params)
            errors += [(("params", name), f"the query does not use :{name}: remove it") for name in unused]
        if errors:
            raise MultiFieldValidationError(errors)
        return self

    @property
    def database(self) -> ExternalDatabase:
        return external_database_from_url(self.url)


class SqlProbe(Probe):
    """Runs a query on PostgreSQL, MySQL, MariaDB or SQLite. `row` is the first row, by name of the column, and `rows`
    has all rows, at most 100. Without `expect`, the query has to succeed. Decimal numbers are floating-point numbers.
    A duration, such as `now() - max(created_at)`, is its number of seconds. A time is text in UTC, and beside a column
    `x` with times there is `x_epoch_s` with the seconds since 1970: `now_epoch_s - row.x_epoch_s < 900.0`."""

    kind: ClassVar[str] = "sql"
    example: ClassVar[str] = """
        probes:
          - name: Orders are fresh
            sql:
              url: "${APP_DB_URL}"
              query: SELECT extract(epoch FROM now() - max(created_at)) AS age FROM orders WHERE shop = :shop
              params: {shop: berlin}
            expect: ["row.age < 900"]
            prefer: ["elapsed_ms <= 500"]
    """
    expression_variables: ClassVar[Mapping[str, str]] = {
        "row": "dyn",
        "rows": "list",
        "row_count": "int",
        "elapsed_ms": "int",
        "now_epoch_s": "double",
    }
    form_fields: ClassVar[tuple[str, ...]] = ("sql.url", "sql.query")

    sql: SqlQuerySettings
    """The database and the query."""

    @property
    def target(self) -> str:
        return self.sql.database.display_name

    @property
    def may_run_without_store(self) -> bool:
        return True

    @property
    def network_endpoint(self) -> str:
        database = self.sql.database
        return f"{database.host}:{database.database_port}" if database.host else ""

    @property
    def database_url(self) -> str:
        return self.sql.url

    def preload(self) -> None:
        import_module("watchdog.queues.clients.sql_query")
        import_module("sqlalchemy")
        import_module(self.sql.database.driver_module)

    @cached_property
    def _result_criteria(self) -> QueryResultCriteria:
        return QueryResultCriteria(self.expectation_expressions, self.preference_expressions)

    @cached_property
    def _query(self) -> SqlQuery:
        from watchdog.queues.clients.sql_query import SqlQuery

        expressions = (*self.expectation_expressions, *self.preference_expressions)
        reads_clock = any("now_epoch_s" in expression.used_variables for expression in expressions)
        return SqlQuery(self.sql.query, self.sql.params, self.sql.timezone, reads_clock)

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        from watchdog.queues.clients.sql_query import run_sql_query

        phase_timer, criteria = context.phase_timer, self._result_criteria
        connect_context = QueueConnectContext(
            context.network,
            phase_timer,
            self.allow_private_addresses,
            context.remaining_s,
            context.started_at,
            ends_at_monotonic=monotonic() + context.remaining_s,
        )
        phase_timer.facts["query"] = truncate_to_single_line(self.sql.query, MAX_QUERY_CHARS)
        try:
            result = await run_sql_query(self.sql.url, self._query, connect_context)
            observation = await context.network.run_cpu_work_inline_or_in_worker(
                phase_timer,
                build_query_observation,
                result,
                criteria,
                context.slot,
                in_worker=_needs_worker_process(result, loops=criteria.has_looping_expression),
            )
        except ProbeError as error:
            return build_observation_from_error(error, phase_timer)
        observation = add_facts_to_observation_evidence(observation, phase_timer.facts)
        return replace(observation, phases=phase_timer.phase_durations_ms)


class QueryResultCriteria(NamedTuple):
    """What is expected of the result of a query."""

    expectation_expressions: tuple[CelExpression, ...]
    preference_expressions: tuple[CelExpression, ...]

    @property
    def has_looping_expression(self) -> bool:
        """Whether an expression is evaluated for each row."""
        return any(expression.loops for expression in self._expressions)

    @property
    def columns_read(self) -> list[str]:
        """The columns of the first row that the expressions name."""
        names = (name for each in self._expressions for name in _COLUMN_OF_ROW_PATTERN.findall(each.text))
        return list(dict.fromkeys(names))

    @property
    def _expressions(self) -> tuple[CelExpression, ...]:
        return (*self.expectation_expressions, *self.preference_expressions)


def _needs_worker_process(result: SqlQueryResult, *, loops: bool) -> bool:
    """Whether the result must not be judged in the event loop."""
    return estimate_json_size_bytes(result.rows) > MAX_BODY_BYTES_IN_EVENT_LOOP or (
        loops and count_json_elements(result.rows) > MAX_JSON_ELEMENTS_IN_EVENT_LOOP
    )


def build_query_observation(result: SqlQueryResult, criteria: QueryResultCriteria, slot: int) -> Observation:
    """The observation, without phases."""
    context = _build_expression_context(result, criteria)
    verdict = evaluate_expectations_to_verdict(
        context, criteria.expectation_expressions, criteria.preference_expressions
    )
    is_good = verdict.outcome is Outcome.PASS
    facts = _build_query_evidence_facts(result) | ({"expect": verdict.evidence} if verdict.evidence else {})
    return Observation(
        verdict.outcome,
        verdict.reason,
        verdict.message,
        duration=result.elapsed_ms,
        measurements=_build_query_measurements(result),
        listings=context.evaluate_all_preferences_as_listing_by_rule(criteria.preference_expressions, slot)
        if is_good
        else {},
        evidence=Evidence(facts, _build_rows_excerpt(result)),
    )


def _build_expression_context(result: SqlQueryResult, criteria: QueryResultCriteria) -> ExpressionEvaluationContext:
    variables: dict[str, Json] = {"elapsed_ms": round(result.elapsed_ms), "now_epoch_s": result.now_epoch_s}
    unavailable: dict[str, ExpressionVariableValueProblem] = {}
    too_large = ExpressionVariableValueProblem(
        *build_reason_and_message("database.result_too_large", problem=result.problem)
    )
    if result.problem:
        unavailable |= dict.fromkeys(_ALL_ROWS_VARIABLES, too_large)
    else:
        variables |= {"rows": result.rows, "row_count": len(result.rows)}
    if result.rows:
        variables["row"] = result.rows[0]
    else:
        no_rows = ExpressionVariableValueProblem(*build_reason_and_message("database.no_rows"))
        unavailable["row"] = too_large if result.problem else no_rows
    malformed: dict[str, ExpressionVariableValueProblem] = {}
    nulls = [name for name in criteria.columns_read if result.rows and result.rows[0].get(name, "") is None]
    if nulls:
        columns = format_names([f"row.{name}" for name in nulls])
        malformed["row"] = ExpressionVariableValueProblem(*build_reason_and_message("database.null", columns=columns))
    return ExpressionEvaluationContext(variables, unavailable, malformed_variables=malformed)


def _build_query_measurements(result: SqlQueryResult) -> dict[str, JsonScalar]:
    """The numbers of the first row."""
    measurements: dict[str, JsonScalar] = {} if result.problem else {"rows": len(result.rows)}
    first = result.rows[0] if result.rows else {}
    numbers = {
        f"{ROW_MEASUREMENT_PREFIX}{name}": value
        for name, value in first.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return measurements | dict(list(numbers.items())[:MAX_QUERY_MEASUREMENTS])


def _build_query_evidence_facts(result: SqlQueryResult) -> dict[str, Json]:
    facts: dict[str, Json] = {"elapsed_ms": round(result.elapsed_ms)}
    if result.problem:
        facts["result_incomplete"] = result.problem
    else:
        facts["returned"] = format_count_with_noun(len(result.rows), "row")
    row = {"row": map_json_strings(result.rows[0], lambda text: text[:MAX_ROWS_EXCERPT_CHARS])} if result.rows else {}
    return facts | row


def _build_rows_excerpt(result: SqlQueryResult) -> str:
    """Several rows, as JSON. A single one is a fact."""
    rows = result.rows[:MAX_ROWS_IN_EXCERPT] if len(result.rows) > 1 else []
    lines = (json.dumps(row, ensure_ascii=False, default=str) for row in rows)
    return "\n".join(lines)[:MAX_ROWS_EXCERPT_CHARS]
