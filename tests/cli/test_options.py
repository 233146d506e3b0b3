"""Options that several commands have: the file of the configuration, help, the version, filters, completion."""

from __future__ import annotations

import json
import signal
import socketserver
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command_line import WATCHDOG_COMMAND, invoke_command, run_completion, subprocess_env
from tests.support.fixture_rows import FixtureRows
from tests.support.polling import HANG_S
from watchdog.domain.model import Severity
from watchdog.resources import find_resource_folder
from watchdog.service.clock import read_wall_clock_ms
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema

Write = Callable[..., Path]
HOUR = 3_600_000


@pytest.fixture
def database(write: Write) -> None:
    """Two probes in different groups, each with an open incident of its own severity, and a paused one."""
    write()
    now = read_wall_clock_ms()
    rows = FixtureRows()
    for name, group, severity in (("API", "Core", Severity.CRITICAL), ("Shop", "Sales", Severity.WARNING)):
        probe = rows.add_probe(name, group=group, tags=("prod", "eu") if name == "API" else ("prod",))
        rows.add_incident(probe, "availability", "HTTP 503", now - HOUR, severity=severity)
    rows.add_pause(rows.add_probe("Mail", "mcp"), now - HOUR)
    rows.add_watermark(now + HOUR)
    database = Database("sqlite:///watchdog.db")
    upgrade_schema(database, find_resource_folder("migrations"))
    with database.open_write_transaction() as connection:
        rows.insert_into(connection)
    database.close()


@pytest.mark.parametrize(
    ("words", "probes"),
    [
        ([], ["api", "shop"]),
        (["--probe", "Shop"], ["shop"]),
        (["--probe", "shop"], ["shop"]),
        (["--severity", "critical"], ["api"]),
        (["--severity", "info"], []),
        (["--open", "--probe", "API", "--severity", "warning"], []),
    ],
)
@pytest.mark.usefixtures("database")
def test_incidents_can_be_filtered(words: list[str], probes: list[str]) -> None:
    ran = invoke_command("incidents", *words, "-o", "json")
    assert (ran.exit_code, sorted(incident["probe"] for incident in ran.json)) == (0, probes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["incidents", "--probe", "sho"], "there is no probe with the name or id sho: `watchdog status` lists them"),
        (["incidents", "--severity", "high"], "--severity high: expected info, warning, critical"),
        (
            ["status", "--state", "broken"],
            "--state broken: expected down, degraded, unknown, maintenance, paused, up",
        ),
        (["jobs", "--state", "late"], "--state late: expected up, degraded, unknown, down"),
        (["jobs", "--probe", "sho"], "there is no probe with the name or id sho: `watchdog status` lists them"),
        (["jobs", "--verdict", "late"], "--verdict late: no job has it; there are no jobs"),
        (["silences", "--probe", "sho"], "there is no probe with the name or id sho: `watchdog status` lists them"),
        (["maintenance", "--probe", "x"], "there is no probe with the name or id x: `watchdog status` lists them"),
    ],
)
@pytest.mark.usefixtures("database")
def test_a_filter_that_is_not_valid(words: list[str], message: str) -> None:
    ran = invoke_command(*words)
    assert (ran.exit_code, ran.stdout, ran.stderr) == (2, "", f"watchdog: {message}\n")


@pytest.mark.parametrize(
    ("words", "probes"),
    [
        ("--group Sales", ["shop"]),
        ("--kind http", ["api", "shop"]),
        ("--tag prod", ["api", "shop"]),
        ("--tag prod --tag eu", ["api"]),
        ("--state down", ["api", "shop"]),
        ("--state Paused", ["mail"]),
        ("--state up --state paused", ["mail"]),
        ("--state down --group Core", ["api"]),
        ("--state up", []),
        ("--search cor", ["api"]),
        ("--search tag:prod", ["api", "shop"]),
        ("--search state:down --kind http --tag eu", ["api"]),
        ("--search AP", ["api"]),
    ],
)
@pytest.mark.usefixtures("database")
def test_the_status_of_some_probes(words: str, probes: list[str]) -> None:
    ran = invoke_command("status", *words.split(), "-o", "json")
    assert sorted(row["probe"] for row in ran.json) == probes
    if not probes:
        assert invoke_command("status", *words.split()).stdout == "no probe matches\n"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--group", "sales"], "no probe has the group 'sales' now; did you mean 'Sales'?"),
        (["--kind", "htpp"], "no probe is of the kind 'htpp' now; did you mean 'http'?"),
        (["--tag", "prod", "--tag", "us"], "no probe has the tag 'us' now"),
        (["--tag", "eu", "--group", "Sales"], "no probe matches group Sales, tag eu now"),
    ],
)
@pytest.mark.usefixtures("database")
def test_a_selection_that_no_probe_can_match(words: list[str], problem: str) -> None:
    """A script must not take it as good news."""
    ran = invoke_command("status", *words)
    assert (ran.exit_code, ran.stdout) == (3, "no probe matches\n")
    assert f"watchdog: {problem}\n" in ran.stderr


@pytest.mark.usefixtures("database")
def test_silences_and_maintenance_of_a_probe() -> None:
    for command in ("silence", "maintenance begin"):
        for selection in (["--id", "api"], ["--group", "Sales"], ["--tag", "prod"]):
            assert invoke_command(*command.split(), *selection, "--for", "1h").exit_code == 0
    for command in ("silences", "maintenance"):
        assert len(invoke_command(command, "-o", "json").json) == 3
        listed = invoke_command(command, "--probe", "API", "-o", "json").json
        matches = [each["match"] for each in listed]
        assert sorted((each["id"] or "", *each["tags"]) for each in matches) == [("", "prod"), ("api",)]
        assert invoke_command(command, "--probe", "mail").stdout == f"no {command}\n"


@pytest.mark.parametrize("words", [["-h"], ["status", "-h"], ["db", "upgrade", "-h"], ["exec", "-h"]])
def test_short_help(words: list[str]) -> None:
    ran, whole = invoke_command(*words), invoke_command(*words[:-1], "--help")
    assert (ran.exit_code, ran.stdout) == (0, whole.stdout)
    assert "Usage: watchdog" in ran.stdout


def test_the_version() -> None:
    assert invoke_command("--version").stdout == invoke_command("version").stdout
    assert invoke_command("--version").exit_code == 0


def test_the_configuration_of_the_environment(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(probes=[{"name": "API", "http": "http://127.0.0.1:9/"}]).rename(tmp_path / "other.yaml")
    assert invoke_command("validate").exit_code == 2
    monkeypatch.setenv("WATCHDOG_CONFIG", str(file))
    assert invoke_command("validate").stdout.startswith("ok: 1\N{NO-BREAK SPACE}probe, ")
    assert invoke_command("validate", "-c", "missing.yaml").exit_code == 2, "an option comes before a variable"
    monkeypatch.setenv("WATCHDOG_CONFIG", "")
    assert invoke_command("validate").exit_code == 2, "an empty variable is as none"


def complete(words: str, env: dict[str, str]) -> list[str]:
    """What the completion of bash offers for the last word."""
    return run_completion("bash", words, env).split()


def test_names_of_probes_are_completed(write: Write) -> None:
    write(probes=[{"name": name, "http": "http://127.0.0.1:9/"} for name in ("api", "apex", "shop")])
    assert sorted(complete("watchdog probe ap", {})) == ["apex", "api"]
    assert complete("watchdog probe x", {}) == []
    assert complete("watchdog probe ap", {"WATCHDOG_CONFIG": "missing.yaml"}) == []


HEARTBEAT = {"name": "backup", "heartbeat": {"token": "0123456789abcdef-backup", "every": "1h"}}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("watchdog pause ", ["api", "backup"]),
        ("watchdog resume b", ["backup"]),
        ("watchdog run-now ", ["api"]),
        ("watchdog exec ", ["backup"]),
        ("watchdog silence --id a", ["api"]),
        ("watchdog maintenance begin --id a", ["api"]),
    ],
)
def test_commands_complete_the_probes_that_they_accept(write: Write, words: str, names: list[str]) -> None:
    write(probes=[{"name": "api", "http": "http://127.0.0.1:9/"}, HEARTBEAT])
    assert sorted(complete(words, {})) == names


@pytest.mark.usefixtures("database")
def test_ids_of_incidents_are_completed() -> None:
    """Of the open ones where a command accepts no other."""
    first, second = f"{1:024x}", f"{2:024x}"
    invoke_command("close", first)
    assert sorted(complete("watchdog explain 0", {})) == [first, second]
    assert complete("watchdog incidents 1", {}) == []
    for command in ("ack", "unack", "close", "silence --incident"):
        assert complete(f"watchdog {command} 0", {}) == [second]


def test_completion_prints_no_problem(write: Write, tmp_path: Path) -> None:
    assert complete("watchdog ack 0", {}) == [], "no configuration"
    write()
    assert complete("watchdog ack 0", {}) == [], "no database"
    assert not (tmp_path / "watchdog.db").exists()
    (tmp_path / "watchdog.db").write_text("x" * 5_000)
    assert complete("watchdog ack 0", {}) == [], "damaged"


def test_completion_connects_to_no_server_that_a_file_of_the_directory_names(write: Write, tmp_path: Path) -> None:
    """The directory may be a stranger's repository: a key press would send variables to the server."""
    connections = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            connections.append(self.client_address)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        file = write(storage={"url": f"postgresql://u:p@127.0.0.1:{server.server_address[1]}/x"})
        assert complete("watchdog ack 0", {}) == []
        assert connections == []
        file.rename(tmp_path / "stated.yaml")
        assert complete("watchdog ack 0", {"WATCHDOG_CONFIG": str(tmp_path / "stated.yaml")}) == []
        assert connections != []
        server.shutdown()


@pytest.mark.parametrize("output", ["table", "json"])
@pytest.mark.usefixtures("database")
def test_the_status_is_shown_again_until_the_command_is_ended(output: str) -> None:
    """As JSON, each time on one line."""
    command = [*WATCHDOG_COMMAND, "status", "--watch", "-o", output]
    with subprocess.Popen(command, env=subprocess_env(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            count = 0
            while count < 2:
                line = process.stdout.readline()
                assert line, "it has ended"
                is_first = line.startswith(b"state") if output == "table" else len(json.loads(line)) == 3
                count += is_first
            process.terminate()
            assert process.wait(HANG_S) == 128 + signal.SIGTERM
        finally:
            process.kill()
