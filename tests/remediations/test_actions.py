"""Each kind of action against a real system: its effect, its dry run, and its errors."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from tests.support.fakes import CannedResponse, FakeHttpReceiver
from tests.support.mariadb import MariaDbServer
from tests.support.mcp_servers.raw_http import RawMcpResponse, running_raw_server, tool_definition
from tests.support.ports import find_free_port
from tests.support.postgres import PostgresServer
from watchdog.net import NetworkAccess, PhaseTimer
from watchdog.net.errors import ProbeError
from watchdog.probes import PROBE_KINDS, JobsProbe, Probe
from watchdog.queues import QueueConnectContext
from watchdog.remediations import RemediationParameters, RemediationSettings
from watchdog.remediations.reasons import expand_reason_shorthand
from watchdog.remediations.sql import SqlRemediation

NBSP = "\N{NO-BREAK SPACE}"
STUCK = RemediationParameters("7", "ledger", "job.stuck", "billing", "a1b2")
RESET = "UPDATE jobs SET status = 'pending' WHERE id = :id AND status = 'running'"


def apply(
    config: dict[str, Any], context: RemediationParameters = STUCK, *, dry: bool = False, timeout_s: float = 10.0
) -> str:
    async def execute() -> str:
        async with NetworkAccess() as network:
            connect_context = QueueConnectContext(network, PhaseTimer(), True, timeout_s, 1_700_000_000_000)
            remediation = RemediationSettings.model_validate({"on": "stuck", **config})
            async with asyncio.timeout(timeout_s):
                return await remediation.action.execute(context, connect_context, dry_run=dry)

    return asyncio.run(execute())


# --- statements


class Table:
    """Two hundred running jobs."""

    def __init__(self, url: str, key: str = "INTEGER"):
        self.url = url.replace("+psycopg", "").replace("+pymysql", "")
        self.engine = sa.create_engine(url, poolclass=sa.NullPool)
        self.do(f"CREATE TABLE jobs (id {key} PRIMARY KEY, kind VARCHAR(80), status VARCHAR(20))")
        if key != "UUID":
            rows = ", ".join(f"({n}, 'ledger', 'running')" for n in range(1, 201))
            self.do(f"INSERT INTO jobs VALUES {rows}")

    def do(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(sa.text(statement))

    @property
    def pending(self) -> list[Any]:
        with self.engine.begin() as connection:
            return list(connection.execute(sa.text("SELECT id FROM jobs WHERE status = 'pending'")).scalars())

    def sql(self, statement: str = RESET, **more: str) -> dict[str, Any]:
        return {"sql": {"statement": statement, "url": self.url, **more}}


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    if request.param == "sqlite":
        yield Table(f"sqlite:///{tmp_path / 'app.db'}")
        return
    server: PostgresServer | MariaDbServer = request.getfixturevalue(request.param)
    with server.temporary_database() as url:
        yield Table(url)


@pytest.fixture
def pg(postgres: PostgresServer) -> Iterator[str]:
    with postgres.temporary_database() as url:
        yield url


def test_a_statement_changes_only_the_row_of_the_job(table: Table) -> None:
    assert apply(table.sql()) == f"changed 1{NBSP}row"
    assert table.pending == [7]
    assert apply(table.sql()) == f"changed 0{NBSP}rows"


def test_a_dry_run_is_rolled_back(table: Table) -> None:
    assert apply(table.sql(), dry=True) == f"would change 1{NBSP}row"
    assert table.pending == []


def test_a_statement_that_changes_too_many_rows_is_rolled_back(table: Table) -> None:
    with pytest.raises(ProbeError, match=f"changes 200{NBSP}rows, more than 100: rolled back") as failure:
        apply(table.sql("UPDATE jobs SET status = 'pending'"))
    assert failure.value.reason == "remediation.too_many_rows"
    assert table.pending == []


@pytest.mark.parametrize("name", ["x'; DROP TABLE jobs; --", "%s %(id)s :id", "\\'; --", '"'])
def test_any_job_name_is_passed_as_a_value(table: Table, name: str) -> None:
    renamed = table.sql("UPDATE jobs SET kind = :subject, status = 'pending' WHERE id = :id")
    assert apply(renamed, STUCK._replace(subject=name)) == f"changed 1{NBSP}row"
    with table.engine.begin() as connection:
        assert connection.execute(sa.text("SELECT kind FROM jobs WHERE id = 7")).scalar() == name


def test_a_key_may_be_a_uuid(pg: str) -> None:
    table, key = Table(pg, "UUID"), "0b0e7c1e-6a35-4a1e-9c3f-0f8d6a1f2b3c"
    table.do(f"INSERT INTO jobs VALUES ('{key}', 'ledger', 'running')")
    assert apply(table.sql(), STUCK._replace(id=key)) == f"changed 1{NBSP}row"
    assert [str(value) for value in table.pending] == [key]


def test_a_cast_is_not_a_parameter(pg: str) -> None:
    cast = "UPDATE jobs SET status = 'pending'::text WHERE id = CAST(:id AS int)"
    assert apply(Table(pg).sql(cast)) == f"changed 1{NBSP}row"
    with pytest.raises(ValidationError, match=r"write CAST\(:id AS ...\)"):
        SqlRemediation(statement="UPDATE jobs SET status = 'pending' WHERE id = :id::int")


def test_a_missing_privilege_is_reported(pg: str) -> None:
    table = Table(pg)
    table.do("CREATE ROLE reader LOGIN PASSWORD 'a'", "GRANT SELECT ON jobs TO reader")
    role = f"reader:a@{table.url.partition('@')[2]}"
    with pytest.raises(ProbeError, match="PostgreSQL returned an error: permission denied for table jobs"):
        apply({"sql": {"statement": RESET, "url": f"postgresql://{role}"}})
    table.do("DROP OWNED BY reader", "DROP ROLE reader")


def test_a_lock_of_another_session_is_not_awaited(pg: str) -> None:
    table = Table(pg)
    with table.engine.begin() as connection:
        connection.execute(sa.text("UPDATE jobs SET kind = 'mine' WHERE id = 7"))
        with pytest.raises(ProbeError, match="lock timeout") as failure:
            apply(table.sql())
    assert failure.value.reason == "database.query_timeout"


def test_an_invalid_statement_is_refused_by_the_database(table: Table) -> None:
    with pytest.raises(ProbeError, match=" returned an error: ") as failure:
        apply(table.sql("UPDATE jobs SET nothing = 1 WHERE id = :id"))
    assert failure.value.reason == "broker.refused"


def test_an_unavailable_database(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="database unreachable"):
        apply({"sql": {"statement": RESET, "url": f"postgresql://me@127.0.0.1:{find_free_port()}/app"}})
    with pytest.raises(ProbeError, match="does not exist"):
        apply({"sql": {"statement": RESET, "url": f"sqlite:///{tmp_path / 'gone.db'}"}})
    assert not (tmp_path / "gone.db").exists()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("WITH x AS (SELECT 1) UPDATE jobs SET status = 'pending'", "expected an UPDATE, INSERT, DELETE or MERGE"),
        ("SELECT pg_terminate_backend(1)", "expected an UPDATE, INSERT, DELETE or MERGE"),
        ("CALL reset(:id)", "expected an UPDATE, INSERT, DELETE or MERGE"),
        ("UPDATE jobs SET status = 'pending'; COMMIT", "expected a single statement without ';'"),
        ("UPDATE jobs SET status = 'pending' RETURNING id", "RETURNING is not supported"),
    ],
)
def test_statements_that_cannot_be_counted_and_rolled_back_are_refused(statement: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SqlRemediation(statement=statement)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"http": "https://ops.example/{job}"}, r"unknown parameter \{job\}; valid parameters: \{id\}"),
        ({"http": {"url": "https://ops.example/", "json": {"a": ["{job}"]}}}, r"unknown parameter \{job\}"),
        (
            {"http": {"url": "https://ops.example/", "body": "{id}"}},
            "parameters are supported in url and json, not in body",
        ),
        (
            {"http": {"url": "https://ops.example/", "headers": {"X-Job": "{subject}"}}},
            "supported in url and json, not in headers",
        ),
        (
            {"mcp": {"url": "https://a.example/", "tool": "t", "arguments": {"a": "{name}"}}},
            r"unknown parameter \{name\}",
        ),
    ],
)
def test_an_unknown_parameter_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RemediationSettings.model_validate({"on": "stuck", **config})


def test_the_description_has_the_table_and_no_values() -> None:
    assert (
        SqlRemediation(statement="  update billing.jobs set token = 'hush' where id = :id").description
        == "UPDATE billing.jobs"
    )
    assert SqlRemediation(statement="INSERT INTO wakes(id) VALUES (:id)").description == "INSERT INTO wakes"


def test_parameters_are_recognised_as_by_the_database() -> None:
    statement = r"UPDATE t SET a = :subject, b = '12\:30', c = now()::text, d = :id WHERE e = ':'"
    assert SqlRemediation(statement=statement).used_parameters == {"subject", "id"}


# --- requests


def test_a_request_contains_only_the_values() -> None:
    with FakeHttpReceiver() as ops:
        url = f"{ops.url}/workers/{{subject}}/restart?run={{id}}"
        config = {
            "http": {
                "url": url,
                "json": {"message": "{reason}", "who": ["{subject}"], "n": 3, "{id}": "{subject} {id}"},
            }
        }
        assert apply(config, STUCK._replace(subject='a/b?c&"d" {id}')) == "HTTP 200"
        [received] = ops.received
    assert received.path == "/workers/a%2Fb%3Fc%26%22d%22%20%7Bid%7D/restart?run=7"
    assert received.json == {"message": "job.stuck", "who": ['a/b?c&"d" {id}'], "n": 3, "{id}": 'a/b?c&"d" {id} 7'}
    assert received.headers["idempotency-key"] == "wd-a1b2-job.stuck-7"


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_that_changes_the_path_is_not_put_into_a_url(name: str) -> None:
    with FakeHttpReceiver() as ops:
        with pytest.raises(ProbeError, match="which changes the URL's path"):
            apply({"http": f"{ops.url}/workers/{{subject}}/restart"}, STUCK._replace(subject=name))
        assert ops.received == []


def test_a_refused_request_reports_the_status() -> None:
    with FakeHttpReceiver() as ops:
        ops.canned_responses.append(
            CannedResponse(409, b'{"error": "a restart is in progress"}', (("content-type", "application/json"),))
        )
        with pytest.raises(ProbeError, match="HTTP 409: a restart is in progress"):
            apply({"http": ops.url})


def test_a_dry_run_sends_no_request() -> None:
    with FakeHttpReceiver() as ops:
        assert apply({"http": ops.url}, dry=True) == "would send the request"
        assert ops.received == []


# --- tools


def call(responses: dict[str, Any], *, dry: bool = False, name: str = "trigger_task", **result: Any) -> tuple[str, Any]:
    """The result of a tool call, and the methods that the server received."""

    async def execute() -> tuple[str, Any]:
        async with (
            running_raw_server(responses, tools=[tool_definition(name)], result=result) as server,
            NetworkAccess() as network,
        ):
            arguments = {"task": "{subject}"}
            settings = {"on": "stale", "mcp": {"url": server.url, "tool": "trigger_task", "arguments": arguments}}
            connect_context = QueueConnectContext(network, PhaseTimer(), True, 10.0, 1_700_000_000_000)
            remediation = RemediationSettings.model_validate(settings)
            return await remediation.action.execute(
                STUCK._replace(reason="task.stale"), connect_context, dry_run=dry
            ), server.received_methods

    return asyncio.run(execute())


def test_a_tool_is_called() -> None:
    description, received = call({}, content=[{"type": "text", "text": "on its way"}])
    assert description == "called"
    assert received.count("tools/call") == 1


def test_a_tool_that_starts_a_job_returns_its_id() -> None:
    assert call({}, content=[{"type": "text", "text": '{"job_id": 12}'}])[0] == "started as job 12"


def test_a_dry_run_checks_that_the_tool_exists() -> None:
    description, received = call({}, dry=True)
    assert description == "would call the tool, which is listed"
    assert "tools/call" not in received
    with pytest.raises(ProbeError, match=f"tool trigger_task is missing: 1{NBSP}tool listed"):
        call({}, dry=True, name="another")


def test_the_error_of_a_failing_tool_is_reported() -> None:
    with pytest.raises(ProbeError, match="trigger_task reports an error: no such task"):
        call({}, isError=True, content=[{"type": "text", "text": "no such task"}])
    with pytest.raises(ProbeError, match="no more tonight"):
        call({"tools/call": RawMcpResponse(error=(-32000, "no more tonight"))})


def test_a_server_can_be_a_command() -> None:
    server = Path(__file__).parents[1] / "support/mcp_servers" / "job_server.py"
    command = [sys.executable, str(server), "stdio"]
    description = apply(
        {"mcp": {"command": command, "tool": "export_data", "arguments": {"format": "{subject}"}}}, timeout_s=60
    )
    assert description == "started as job ledger-1"


def test_a_parameter_in_braces_is_refused_in_a_statement() -> None:
    with pytest.raises(ValidationError, match=r"write :id instead of \{id\}"):
        SqlRemediation(statement="UPDATE jobs SET status = 'x' WHERE id = {id}")


def test_a_remediation_of_celery_beat_schedules_uses_their_database() -> None:
    celery = {"database": "postgresql://beat@db/shop"}
    remediation = {"on": "overdue", "sql": "DELETE FROM locks"}
    probe = JobsProbe.model_validate({"name": "Beat", "jobs": {"celery": celery}, "remediation": remediation})
    assert isinstance(probe.remediation_action, SqlRemediation)
    assert probe.remediation_action.url == "postgresql://beat@db/shop"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("threshold", ("queue.threshold",)),
        ("stalled", ("job.stalled", "queue.stalled")),
        ("not_picked_up", ("canary.not_picked_up",)),
        ("http.503", ("http.503",)),
        ("http.5xx", ("http.5xx",)),
        ("timeout", ("timeout",)),
        ("job", ("job",)),
    ],
)
def test_reasons_of_jobs_and_queues_can_be_abbreviated(word: str, meant: tuple[str, ...]) -> None:
    assert expand_reason_shorthand(word) == meant


def test_every_suggested_reason_is_valid() -> None:
    with pytest.raises(ValueError, match="did you mean 'no_consumers'") as error:
        expand_reason_shorthand("No consumers")
    assert expand_reason_shorthand(str(error.value).rpartition("did you mean ")[2].strip("?'"))


@pytest.mark.parametrize(
    ("probe", "reported", "never"),
    [
        ({"http": "https://api.example/"}, "http.503", "stuck"),
        ({"steps": [{"name": "1", "http": "https://api.example/"}]}, "capture.missing", "stuck"),
        ({"mcp": "https://api.example/mcp"}, "stale", "job.overdue"),
        ({"jobs": {"apscheduler": {"url": "sqlite:////jobs.db"}}}, "overdue", "no_consumers"),
        ({"queue": {"bullmq": {"redis": "redis://redis", "queue": "mail"}}}, "no_consumers", "task.failed"),
        ({"canary": {"bullmq": {"redis": "redis://redis", "queue": "mail"}}}, "job.failed", "job.stuck"),
        ({"heartbeat": {"token": "k" * 22, "every": "1h"}}, "max_runtime", "queue.threshold"),
    ],
)
def test_a_remediation_for_a_reason_that_its_probe_never_reports_is_refused(
    probe: dict[str, Any], reported: str, never: str
) -> None:
    def configured(*on: str) -> Probe:
        remediation = {"on": on, "http": "https://ops.example/restart"}
        return PROBE_KINDS[next(iter(probe))].model_validate(
            {"name": "A", "every": "5m", **probe, "remediation": remediation}
        )

    assert configured(reported, "timeout.exceeded").remediation
    with pytest.raises(ValidationError, match=f"probes never report {never}"):
        configured(reported, never)
