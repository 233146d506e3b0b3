"""Usage errors: one clear line on standard error and the right exit code."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import CommandResult, invoke_command, run_command
from tests.support.postgres import PostgresServer
from watchdog.resources import find_resource_folder
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema

Write = Callable[..., Path]
API = {"name": "API", "http": "http://127.0.0.1:1/"}
PASSWORD = "hush:hush/hush@9"
ENCODED = "hush%3Ahush%2Fhush%409"


def one_line(ran: CommandResult, code: int) -> str:
    """The only line on standard error; standard output is empty."""
    assert (ran.exit_code, ran.stdout) == (code, "")
    (line,) = ran.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    "command", ["run", "validate", "status", "incidents", "db upgrade", "probe API", "test-alert x"]
)
def test_no_configuration_in_this_directory(command: str) -> None:
    line = one_line(invoke_command(*command.split()), 2)
    assert line == (
        "watchdog: no watchdog.yaml in this directory: create one with `watchdog init`, pass -c FILE, or set "
        "WATCHDOG_CONFIG"
    )


def test_a_missing_file() -> None:
    assert (
        one_line(invoke_command("validate", "-c", "x.yaml"), 2)
        == "x.yaml: no such file or directory; `watchdog init` creates a configuration"
    )


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    assert one_line(invoke_command("validate", "-c", tmp_path), 2) == f"{tmp_path}: is a directory"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("probes: [", "watchdog.yaml:1:10: "),
        ("- 1", "watchdog.yaml:1:1: "),
        ("probs: []", "watchdog.yaml:1:1: probs: unknown section 'probs'; did you mean 'probes'?"),
        ('probes: [{name: A, http: "${SOME_URL}"}]', "watchdog.yaml:1:26: probes.0.http: variable SOME_URL is not set"),
        ("server: {listen: '0.0.0.0:80'}", "watchdog.yaml:1:18: server.listen: an address other than loopback"),
        ("\0", "watchdog.yaml"),
    ],
)
def test_an_invalid_configuration(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "watchdog.yaml").write_text(text)
    for command in ("validate", "run"):
        assert one_line(invoke_command(command), 2).startswith(message)
    ran = invoke_command("status")
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.startswith(message)


def test_every_problem_has_a_line(write: Write) -> None:
    write(probes=[{"name": "A"}, {"name": "B", "http": "ftp://x"}, {**API, "every": "1 parsec"}])
    ran = invoke_command("validate")
    assert (ran.exit_code, ran.stdout, len(ran.stderr.splitlines())) == (2, "", 3)
    as_json = invoke_command("validate", "-o", "json")
    assert (as_json.exit_code, as_json.stderr) == (2, "")
    assert (as_json.json["is_valid"], as_json.json["warnings"]) == (False, [])
    lines = ["{file}:{line}:{column}: {field}: {message}".format_map(problem) for problem in as_json.json["problems"]]
    assert lines == ran.stderr.splitlines()


def test_an_unknown_probe(write: Write) -> None:
    write(probes=[API, {"name": "Search MCP", "http": "http://127.0.0.1:1/"}])
    assert (
        one_line(invoke_command("probe", "Serch"), 2)
        == "watchdog: no probe is named 'Serch'; did you mean 'Search MCP'?"
    )
    assert one_line(invoke_command("probe", "x"), 2) == "watchdog: no probe is named 'x'; probes: API, Search MCP"
    write()
    assert one_line(invoke_command("probe", "x"), 2) == "watchdog: no probe is named 'x'; probes: none"


def test_an_unknown_receiver(write: Write) -> None:
    write(receivers={"oncall": {"log": {}}})
    assert (
        one_line(invoke_command("test-alert", "phone"), 2)
        == "watchdog: no receiver is named 'phone'; receivers: oncall"
    )
    line = one_line(invoke_command("test-alert", "oncall/slack"), 2)
    assert line == "watchdog: no destination is named 'oncall/slack'; destinations: oncall/log"
    write()
    line = one_line(invoke_command("test-alert", "phone"), 2)
    assert line == "watchdog: no receiver is named 'phone'; receivers: none"


@pytest.mark.parametrize("command", ["status", "incidents"])
class TestADatabase:
    """A database that cannot be read."""

    def test_it_does_not_exist_yet(self, write: Write, command: str, tmp_path: Path) -> None:
        write(probes=[API])
        line = one_line(invoke_command(command), 3)
        assert line.startswith(
            f"watchdog: the database {Path.cwd()}/watchdog.db does not exist: start `watchdog run`; "
        )
        assert not (tmp_path / "watchdog.db").exists(), "a query creates no file"

    def test_it_is_empty(self, write: Write, command: str, tmp_path: Path) -> None:
        write(probes=[API])
        (tmp_path / "watchdog.db").touch()
        line = one_line(invoke_command(command), 3)
        assert line == "watchdog: the database has no schema of this version: run `watchdog db upgrade`"

    def test_it_is_another_file(self, write: Write, command: str, tmp_path: Path) -> None:
        write(probes=[API])
        (tmp_path / "watchdog.db").write_text("To whom it may concern" * 100)
        assert one_line(invoke_command(command), 3) == (
            "watchdog: cannot use the database watchdog.db: file is not a database; restore a backup, or move the file"
            " away to start with an empty database"
        )

    def test_it_is_a_folder(self, write: Write, command: str, tmp_path: Path) -> None:
        write(probes=[API])
        (tmp_path / "watchdog.db").mkdir()
        line = one_line(invoke_command(command), 3)
        assert line == "watchdog: cannot use the database watchdog.db: unable to open database file"

    def test_it_has_an_older_schema(self, write: Write, command: str, tmp_path: Path) -> None:
        write(probes=[API])
        made = Database("sqlite:///watchdog.db")
        upgrade_schema(made, find_resource_folder("migrations"))
        made.close()
        with sqlite3.connect(tmp_path / "watchdog.db") as connection:
            connection.execute("ALTER TABLE incidents DROP COLUMN routing_log")
            connection.execute("ALTER TABLE probes DROP COLUMN info")
        connection.close()
        line = one_line(invoke_command(command), 3)
        assert line == "watchdog: the database has no schema of this version: run `watchdog db upgrade`"


def test_a_postgres_without_the_schema(write: Write, postgres: PostgresServer) -> None:
    with postgres.temporary_database() as url:
        write(storage={"url": url})
        line = one_line(invoke_command("status"), 3)
    assert line == "watchdog: the database has no schema of this version: run `watchdog db upgrade`"


UNREACHABLE = {
    "storage": {"url": "${DATABASE_URL}"},
    "server": {"listen": "127.0.0.1:0"},
}


@pytest.mark.parametrize("command", ["run", "db upgrade", "status", "incidents"])
def test_an_unreachable_postgres(write: Write, command: str) -> None:
    write(**UNREACHABLE)
    url = f"postgresql://watchdog:{ENCODED}@127.0.0.1:1/watchdog"
    line = one_line(invoke_command(*command.split(), env={"DATABASE_URL": url}), 3)
    assert line.startswith("watchdog: cannot use the database: connection failed: ")
    assert "127.0.0.1" in line
    assert "hush" not in line


def test_a_postgres_that_refuses_the_login(write: Write, postgres: PostgresServer) -> None:
    with postgres.temporary_database() as url:
        there = url.replace("postgres@", f"no-such-role:{ENCODED}@")
        write(storage={"url": there})
        line = one_line(invoke_command("db", "upgrade"), 3)
    assert "no-such-role" in line
    assert "hush" not in line


@pytest.mark.parametrize("command", ["run", "db upgrade"])
@pytest.mark.parametrize(
    ("path", "why"),
    [("no/such/folder/x.db", "unable to open"), (".", "unable to open"), ("text", "file is not a database")],
)
def test_a_file_that_cannot_become_a_database(write: Write, tmp_path: Path, command: str, path: str, why: str) -> None:
    (tmp_path / "text").write_text("To whom it may concern" * 100)
    write(storage={"url": f"sqlite:///{path}"}, server={"listen": "127.0.0.1:0"})
    line = one_line(invoke_command(*command.split()), 3)
    assert line.startswith(f"watchdog: cannot use the database {path}: {why}")


@pytest.mark.parametrize("command", ["run", "db upgrade"])
def test_a_database_of_a_newer_version(write: Write, command: str, tmp_path: Path) -> None:
    write(server={"listen": "127.0.0.1:0"})
    assert re.fullmatch(r"Created the schema: \d{4}\.\n", invoke_command("db", "upgrade").stdout)
    with sqlite3.connect(tmp_path / "watchdog.db") as connection:
        connection.execute("UPDATE watchdog_version SET version_num = '9999'")
    connection.close()
    line = one_line(invoke_command(*command.split()), 2)
    assert line == (
        "watchdog: the database is at schema 9999, which this version does not support: it was upgraded by a newer"
        " Watchdog; run that version or newer"
    )


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (".", ". already exists and was not overwritten"),
        ("there.yaml", "there.yaml already exists and was not overwritten"),
        ("no/such/folder.yaml", "cannot write no/such/folder.yaml: no such file or directory"),
        ("there.yaml/below.yaml", "cannot write there.yaml/below.yaml: not a directory"),
    ],
)
def test_init_overwrites_nothing(tmp_path: Path, path: str, why: str) -> None:
    (tmp_path / "there.yaml").write_text("mine")
    assert one_line(invoke_command("init", path), 2) == f"watchdog: {why}"
    assert (tmp_path / "there.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nonsense", "No such command 'nonsense'."),
        ("stats", "No such command 'stats'. Did you mean 'status'?"),
        ("status --nonsense", "No such option: --nonsense"),
        ("status -o xml", "Invalid value for '--output' / '-o': 'xml' is not one of 'table', 'json'."),
        ("run -c", "Option '-c' requires an argument."),
        ("probe", "Missing argument 'name'."),
        ("incidents --limit 0", "Invalid value for '--limit': Input should be greater than or equal to 1"),
        ("db nonsense", "No such command 'nonsense'. The commands are upgrade, check, vacuum, backup."),
        ("maintenance stop m-1", "No such command 'stop'. The commands are begin, end."),
        ("jobs forgot A", "No such command 'forgot'. Did you mean 'forget'?"),
        (
            "validate watchdog.yaml",
            "Got unexpected extra argument(s) (watchdog.yaml); name the configuration file with -c",
        ),
        ("silence Website --for 1h", "Got unexpected extra argument(s) (Website); name a probe with --id"),
        ("reload now", "Got unexpected extra argument(s) (now)"),
    ],
)
def test_usage(words: str, message: str) -> None:
    ran = invoke_command(*words.split())
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.splitlines()[-1] == f"Error: {message}"


def test_a_process_prints_the_same(write: Write, tmp_path: Path) -> None:
    """In a process of its own: no traceback, and nothing on standard output."""
    write(**UNREACHABLE)
    env: dict[str, Any] = {"DATABASE_URL": f"postgresql://watchdog:{ENCODED}@127.0.0.1:1/watchdog"}
    line = one_line(run_command("run", cwd=tmp_path, env=env), 3)
    assert line.startswith("watchdog: cannot use the database: connection failed: ")


@pytest.mark.parametrize("words", [["status"], ["service"], ["explain", "API"], ["ack", "API"]], ids=" ".join)
def test_commands_state_that_the_service_goes_on_if_the_file_cannot_be_read(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "watchdog.yaml").write_text("probes: [")
    ran = invoke_command(*words)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.splitlines()[-1] == (
        "watchdog: the file does not show which database to use. A `watchdog run` in progress keeps its former "
        "configuration, and its pages still work. Fix the file, or choose another one with -c"
    )


@pytest.mark.parametrize("words", [["status"], ["probe", "API"]], ids=" ".join)
def test_a_misspelt_configuration_file(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "watchdog.yaml").write_text("{}")
    ran = invoke_command(*words, "-c", "watchdgo.yaml")
    assert ran.exit_code == 2
    assert ran.stderr.splitlines()[-1] == "watchdog: watchdgo.yaml does not exist; did you mean 'watchdog.yaml'?"
