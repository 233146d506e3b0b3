"""`watchdog maintenance`, `maintenance begin` and `maintenance end`."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command_line import invoke_command
from tests.support.store import StoreHarness, make_registered_probe
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS, format_time_of_day
from watchdog.domain.maintenance_windows import ConfiguredMaintenanceWindow
from watchdog.domain.routing import ProbeMatcher
from watchdog.resources import find_resource_folder
from watchdog.service.clock import read_wall_clock_ms
from watchdog.store.database import Database
from watchdog.store.maintenance_tables import maintenance_periods, maintenance_windows
from watchdog.store.migrate import upgrade_schema

Write = Callable[..., Path]
USER = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def harness(write: Write) -> Iterator[StoreHarness]:
    write()
    now = read_wall_clock_ms()
    database = Database("sqlite:///watchdog.db")
    upgrade_schema(database, find_resource_folder("migrations"))
    with StoreHarness(database, [make_registered_probe("api")], now=now - HOUR_MS, create_schema=False) as made:
        made.without_downtime()
        made.advance_watermark(now)
        yield made
        database.close()


def test_maintenance_begins_is_listed_and_ends(harness: StoreHarness) -> None:
    ran = invoke_command("maintenance", "begin", "--id", "api", "--for", "1h", "--comment", "[red]upgrade")
    assert (ran.exit_code, ran.stderr) == (0, "")
    (row,) = harness.select_rows(maintenance_windows)
    assert ran.stdout.startswith(f"{row['id']} puts 1\N{NO-BREAK SPACE}probe into maintenance until ")
    assert f"`watchdog maintenance end {row['id']}` ends it." in ran.stdout
    assert (row["author"], row["interface"], row["ends_at"] - row["starts_at"]) == (USER, "cli", HOUR_MS)
    (listed,) = invoke_command("maintenance", "-o", "json").json
    assert (listed["id"], listed["state"], listed["by"], listed["comment"]) == (
        row["id"],
        "in_effect",
        USER,
        "[red]upgrade",
    )
    assert listed["match"] == {"id": "api", "group": None, "tags": [], "kind": None, "severity": None, "all": False}
    table = invoke_command("maintenance").stdout
    assert "id api" in table
    assert "[red]upgrade" in table
    assert invoke_command("maintenance", "end", row["id"]).stdout == f"Ended: {row['id']}\n"
    assert harness.select_row(maintenance_periods)["ends_at"] <= read_wall_clock_ms()
    assert invoke_command("maintenance").stdout == "no maintenance\n"
    (ended,) = invoke_command("maintenance", "--ended", "-o", "json").json
    assert (ended["state"], ended["ended_by"]) == ("ended", USER)
    window = invoke_command("maintenance", "begin", "--id", "api", "--for", "1h", "-o", "json").json
    ended = invoke_command("maintenance", "end", window["id"], "-o", "json").json
    assert (ended["id"], ended["state"], ended["ended_by"]) == (window["id"], "ended", USER)


def test_planned_maintenance_is_listed_and_cancelled(harness: StoreHarness) -> None:
    starts_at = (read_wall_clock_ms() + HOUR_MS) // MINUTE_MS * MINUTE_MS
    start = f"{format_time_of_day(starts_at)}Z"
    ran = invoke_command("maintenance", "begin", "--id", "api", "--start", start, "--for", "2h")
    assert (ran.exit_code, ran.stderr) == (0, "")
    row = harness.select_row(maintenance_windows)
    assert (row["starts_at"], row["ends_at"]) == (starts_at, starts_at + 2 * HOUR_MS)
    assert re.match(rf"{row['id']} puts 1\N{{NO-BREAK SPACE}}probe into maintenance from .* until .* UTC\n", ran.stdout)
    assert f"`watchdog maintenance end {row['id']}` cancels it." in ran.stdout
    (listed,) = invoke_command("maintenance", "-o", "json").json
    assert (listed["state"], listed["by"]) == ("planned", USER)
    assert "in maintenance" not in invoke_command("status").stdout
    assert invoke_command("maintenance", "end", row["id"]).stdout == f"Cancelled: {row['id']}\n"
    assert invoke_command("maintenance").stdout == "no maintenance\n"
    assert "cancelled" in invoke_command("maintenance", "--ended").stdout
    for words, error in (
        (["--start", "soon", "--for", "1h"], "--start soon: expected a date and a time"),
        (["--start", "2001-01-01T00:00Z", "--for", "1h"], "would start in the past"),
        (["--start", start], "give --for (how long) or --until (when it ends)"),
    ):
        ran = invoke_command("maintenance", "begin", "--id", "api", *words)
        assert (ran.exit_code, error in ran.stderr) == (2, True), words


def test_the_end_of_planned_maintenance_is_the_next_one_after_its_start(harness: StoreHarness) -> None:
    now = read_wall_clock_ms() // MINUTE_MS * MINUTE_MS
    start, end = (f"{format_time_of_day(now + hours * HOUR_MS)}Z" for hours in (4, 2))
    ran = invoke_command("maintenance", "begin", "--id", "api", "--start", start, "--until", end)
    assert (ran.exit_code, ran.stderr) == (0, "")
    row = harness.select_row(maintenance_windows)
    assert (row["starts_at"], row["ends_at"]) == (now + 4 * HOUR_MS, now + 26 * HOUR_MS)


def test_the_status_states_maintenance(harness: StoreHarness) -> None:
    begin = invoke_command("maintenance", "begin", "--id", "api", "--for", "1h", "-o", "json").json
    assert "in maintenance until " in " ".join(invoke_command("status").stdout.split())
    (probe,) = invoke_command("status", "-o", "json").json[:1]
    assert probe["maintenance_until"] == begin["until"]


def test_the_next_time_of_a_configured_window_is_listed(harness: StoreHarness) -> None:
    now = read_wall_clock_ms()
    window = ConfiguredMaintenanceWindow("Upgrade", ProbeMatcher(), HOUR_MS, starts_at=now + 30 * MINUTE_MS)
    harness.plan_maintenance(now, window)
    (listed,) = invoke_command("maintenance", "-o", "json").json
    assert (listed["name"], listed["state"], listed["by"], listed["through"]) == ("Upgrade", "planned", "", "")
    assert "everything" in invoke_command("maintenance").stdout


def test_json_of_a_beginning(harness: StoreHarness) -> None:
    began = invoke_command("maintenance", "begin", "--all", "--until", "2030-01-01T00:00Z", "-o", "json")
    assert "30 days at most" in began.stderr
    began = invoke_command("maintenance", "begin", "--all", "--for", "5m", "-o", "json")
    assert began.json["state"] == "in_effect"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["begin", "--for", "1h"], "nothing is selected"),
        (["begin", "--all", "--group", "Core", "--for", "1h"], "`--all` selects everything"),
        (["begin", "--all"], "give --for (how long) or --until (when it ends)"),
        (["begin", "--all", "--for", "0s"], "longer than 0"),
        (["begin", "--all", "--for", "soon"], "--for soon"),
        (["begin", "--all", "--until", "2020-01-01T00:00Z"], "would end in the past"),
        (["begin", "--all", "--until", "2026-12-01T22:00"], "add the time zone"),
        (["begin", "--severity", "high", "--for", "1h"], "expected info, warning, critical"),
        (
            ["begin", "--group", "Nothing", "--for", "1h"],
            "no probe has the group 'Nothing' now: `watchdog status` lists them",
        ),
        (["begin", "--all", "--for", "1h", "--comment", "x" * 600], "600 characters"),
        (["end", "m-nothing"], "no maintenance window has the id m-nothing: `watchdog maintenance` lists them"),
    ],
)
def test_errors(harness: StoreHarness, words: list[str], error: str) -> None:
    ran = invoke_command("maintenance", *words)
    assert ran.exit_code == 2
    assert error in ran.stderr
    assert "Traceback" not in ran.stderr
    assert harness.select_rows(maintenance_windows) == []
