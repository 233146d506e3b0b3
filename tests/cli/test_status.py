"""`watchdog status`, `watchdog service`, `watchdog incidents` and `watchdog jobs`, as tables and JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.builders import task_aged
from tests.support.command_line import invoke_command
from tests.support.fixture_rows import FixtureRows
from tests.support.store import StoreHarness, make_registered_probe, make_result, make_results
from watchdog.domain.formatting import DAY_MS, format_iso8601, format_utc_timestamp, format_utc_timestamp_without_zone
from watchdog.domain.model import Outcome
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.rules import service
from watchdog.domain.schedule import CronSchedule
from watchdog.resources import find_resource_folder
from watchdog.service.clock import read_wall_clock_ms
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema

Write = Callable[..., Path]
MINUTE = 60_000


@pytest.fixture
def harness(write: Write) -> Iterator[StoreHarness]:
    """Three probes, registered an hour ago, of a service that runs now."""
    write()
    now = read_wall_clock_ms()
    database = Database("sqlite:///watchdog.db")
    upgrade_schema(database, find_resource_folder("migrations"))
    members = [make_registered_probe(key, failure_threshold=2, success_threshold=1) for key in ("api", "shop", "new")]
    with StoreHarness(database, members, now=now - 60 * MINUTE, create_schema=False) as made:
        made.without_downtime()
        made.advance_watermark(now)
        yield made
        database.close()


def see(harness: StoreHarness, key: str, outcomes: str) -> None:
    """Records results one minute apart, the last of them a minute ago."""
    harness.record_each(
        *make_results(harness.database_id(key), outcomes, read_wall_clock_ms() - (len(outcomes) + 1) * MINUTE)
    )


def test_status_as_table(harness: StoreHarness) -> None:
    see(harness, "api", "ppff")
    see(harness, "shop", "pppp")
    ran = invoke_command("status")
    rows = [line.split() for line in ran.stdout.splitlines()]
    assert rows == [
        ["state", "probe", "last", "result", "open", "incidents"],
        ["down", "Api", "fail", "1", "min", "ago", "HTTP", "503"],
        ["unknown", "New", "none", "yet"],
        ["up", "Shop", "pass", "1", "min", "ago"],
    ]
    assert (ran.exit_code, ran.stderr) == (1, "")


def test_status_as_json(harness: StoreHarness) -> None:
    see(harness, "api", "ppff")
    ran = invoke_command("status", "-o", "json")
    rows = {row["probe"]: row for row in ran.json}
    last = rows["api"]["latest"]
    assert (rows["api"]["state"], last["outcome"], last["message"]) == ("down", "fail", "HTTP 503")
    assert len(rows["api"]["incidents"]) == 1
    assert last["slot"].endswith("Z")
    assert (rows["new"]["state"], rows["new"]["latest"]) == ("unknown", None)


@pytest.mark.parametrize(
    ("outcomes_by_probe", "code"),
    [({"api": "pp", "shop": "pp", "new": "pp"}, 0), ({"api": "pp", "shop": "pp"}, 3), ({"api": "ff", "shop": "pp"}, 1)],
    ids=["every probe is up", "a probe has no result", "a probe is down, another has no result"],
)
def test_the_exit_code_is_the_worst(harness: StoreHarness, outcomes_by_probe: dict[str, str], code: int) -> None:
    for key, outcomes in outcomes_by_probe.items():
        see(harness, key, outcomes)
    assert invoke_command("status").exit_code == invoke_command("status", "-o", "json").exit_code == code


def test_states_are_unknown_while_the_service_is_down(harness: StoreHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("api", "shop", "new"):
        see(harness, key, "pp")
    now = read_wall_clock_ms()
    monkeypatch.setattr("watchdog.service.clock.read_wall_clock_ms", lambda: now + 3 * 60 * MINUTE)
    ran = invoke_command("status", "-o", "json")
    assert (ran.exit_code, len(ran.json)) == (3, 3)
    assert ran.stderr.replace("\N{NO-BREAK SPACE}", " ") == (
        "watchdog: no probe has run for 3 h: is `watchdog run` running?\n"
    )


def test_the_clock_of_the_database_decides(harness: StoreHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of the machine on which the command runs: instants and leases are by the database's clock."""
    for key in ("api", "shop", "new"):
        see(harness, key, "pp")
    now = read_wall_clock_ms()
    monkeypatch.setattr("watchdog.service.clock.read_wall_clock_ms", lambda: now + 3 * 60 * MINUTE)
    monkeypatch.setattr(Database, "read_database_server_clock_ms", lambda _: now)
    ran = invoke_command("status")
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert "pass 1 min ago" in ran.stdout.replace("\N{NO-BREAK SPACE}", " ")


def test_a_probe_that_was_down_before_stays_down(harness: StoreHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    see(harness, "api", "ff")
    now = read_wall_clock_ms()
    monkeypatch.setattr("watchdog.service.clock.read_wall_clock_ms", lambda: now + 3 * 60 * MINUTE)
    ran = invoke_command("status")
    assert (ran.exit_code, "no probe has run" in ran.stderr) == (1, True)


@pytest.fixture
def own_harness(write: Write) -> Iterator[StoreHarness]:
    """A running service with a receiver, and so with the built-in probe."""
    write()
    now = read_wall_clock_ms()
    database = Database("sqlite:///watchdog.db")
    upgrade_schema(database, find_resource_folder("migrations"))
    api, built_in = make_registered_probe("api"), make_registered_probe(service.WATCHDOG_SELF_PROBE_ID)
    info = replace(built_in.info, kind=service.WATCHDOG_SELF_PROBE_KIND)
    built_in = replace(built_in, policy=replace(built_in.policy, probe=info))
    with StoreHarness(database, [api, built_in], now=now, create_schema=False) as made:
        made.without_downtime()
        made.record_results(make_result(made.database_id("api"), now + 1), now=now + 2)
        yield made
        database.close()


def add_finding(harness: StoreHarness, subject: str, message: str) -> str:
    """An open incident of the built-in probe."""
    rows, now = FixtureRows(), read_wall_clock_ms()
    rows.add_incident(
        harness.database_id(service.WATCHDOG_SELF_PROBE_ID),
        service.ALERT_RULE_NAME,
        message,
        now - 10 * MINUTE,
        subject=subject,
        reason="watchdog.delivery_failing",
    )
    with harness.database.open_write_transaction() as connection:
        rows.insert_into(connection)
    return str(rows.rows["incidents"][0]["id"])


def test_what_is_wrong_with_watchdog_itself(own_harness: StoreHarness) -> None:
    message = "receiver oncall/slack has not confirmed any notification since 01:20 UTC: [HTTP 500]"
    incident = add_finding(own_harness, "receiver oncall/slack", message)
    ran = invoke_command("status", "-o", "json")
    assert (ran.exit_code, ran.stderr) == (0, f"watchdog: {message}\n"), "the probes are up"
    api, own = ran.json
    assert (api["probe"], "findings" in api) == ("api", False)
    assert (own["probe"], own["kind"], own["notes"]) == ("watchdog", "service", [])
    ran = invoke_command("service", "-o", "json")
    assert (ran.exit_code, ran.stderr) == (1, "")
    assert ran.json == own["findings"]
    (finding,) = ran.json
    assert finding | {"since": ""} == {
        "reason": "watchdog.delivery_failing", "severity": "warning", "since": "", "subject": "receiver oncall/slack",
        "message": message, "incident": incident,
    }  # fmt: skip
    rows = [re.split(" {2,}", line.strip()) for line in invoke_command("service").stdout.splitlines()]
    assert rows == [
        ["severity", "what", "since", "incident"],
        ["warning", message, "10\N{NO-BREAK SPACE}min ago", incident],
    ]


def test_nothing_is_wrong_with_watchdog_itself(own_harness: StoreHarness) -> None:
    ran = invoke_command("service")
    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, "no findings\n", "")
    ran = invoke_command("status", "-o", "json")
    assert (ran.stderr, ran.json[-1]["findings"]) == ("", [])


def test_findings_of_a_service_that_does_not_run(own_harness: StoreHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    now = read_wall_clock_ms()
    monkeypatch.setattr("watchdog.service.clock.read_wall_clock_ms", lambda: now + 3 * 60 * MINUTE)
    ran = invoke_command("service")
    assert (ran.exit_code, ran.stdout) == (3, "")
    assert ran.stderr.replace("\N{NO-BREAK SPACE}", " ") == (
        "watchdog: no probe has run for 3 h: is `watchdog run` running?\n"
    )


def test_an_unused_database(write: Write) -> None:
    write(probes=[{"name": "API", "http": "http://127.0.0.1:1/"}])
    assert invoke_command("db", "upgrade").exit_code == 0
    ran = invoke_command("status")
    assert (ran.exit_code, ran.stdout, ran.stderr) == (
        3, "no probes\n", "watchdog: no probe has run yet: start `watchdog run`\n",
    )  # fmt: skip
    ran = invoke_command("incidents")
    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, "no incidents\n", "")


def test_incidents_newest_first(harness: StoreHarness) -> None:
    see(harness, "api", "ffp")
    see(harness, "shop", "pff")
    ran = invoke_command("incidents", "-o", "json")
    assert ran.exit_code == 0
    shop, api = ran.json
    assert api.keys() >= {"id", "probe", "rule", "subject", "state", "opened_at", "resolved_at"}
    assert (api["probe"], api["rule"], api["subject"], api["state"]) == ("api", "availability", "", "resolved")
    assert (shop["probe"], shop["state"], shop["resolved_at"]) == ("shop", "open", None)
    assert api["opened_at"] < api["resolved_at"] < shop["opened_at"]
    assert invoke_command("incidents", "--open", "-o", "json").json == [shop]
    assert invoke_command("incidents", "--limit", "1", "-o", "json").json == [shop]
    for_people = invoke_command("incidents").stdout
    assert shop["id"] in for_people, "no id is cut, however narrow the terminal"
    assert [line.split()[0] for line in for_people.splitlines()] == ["state", "open", "resolved"]


def test_every_job_with_its_status(write: Write) -> None:
    write()
    database = Database("sqlite:///watchdog.db")
    upgrade_schema(database, find_resource_folder("migrations"))
    assert (invoke_command("jobs").exit_code, invoke_command("jobs").stdout) == (0, "no jobs\n")
    now = read_wall_clock_ms()
    then, due = now - MINUTE, (now - 3 * 60 * MINUTE) // MINUTE * MINUTE
    late = f"[red]digest is overdue: due {format_utc_timestamp(due, then)}"
    book = FixtureRows()
    probe = book.add_probe("Schedules", "jobs")
    nightly = ScheduledJobFacts("nightly", cron="0 3 * * *", last_start=then, expected_from=then)
    digest = ScheduledJobFacts("[red]digest", next_due=due, expected_from=due)
    book.add_result(probe, then, Outcome.FAIL, late, "job.overdue", jobs=[nightly, digest])
    away = book.add_probe("Tools", "mcp")
    book.add_result(away, now - MINUTE, tasks={"sweep": task_aged(MINUTE, now - MINUTE)})
    book.add_result(away, now, Outcome.FAIL, "HTTP 503")
    silent = book.add_probe("Vault", "jobs")
    read_at = now - 3 * DAY_MS
    book.add_result(silent, read_at, jobs=[ScheduledJobFacts("purge", last_start=read_at)])
    book.add_result(silent, now, Outcome.FAIL, "HTTP 503")
    with database.open_write_transaction() as connection:
        book.insert_into(connection)
    ran = invoke_command("jobs")
    rows = [re.split(" {2,}", line.strip()) for line in ran.stdout.replace("\N{NO-BREAK SPACE}", " ").splitlines()]
    assert ran.exit_code == 1
    assert rows[0] == ["status", "job", "probe", "schedule", "last run", "next run due", "problem"]
    overdue = ["Overdue", "[red]digest", "Schedules", "never", format_utc_timestamp_without_zone(due, now), late]
    assert rows[1] == [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in overdue], "with its date after midnight"
    assert rows[2][:5] == ["On time", "nightly", "Schedules", "0 3 * * * UTC", "1 min ago"]
    assert rows[3] == [
        "Ok",
        "sweep",
        "Tools",
        "2 min ago",
        f"not read since {format_utc_timestamp_without_zone(now - MINUTE, now)}".replace("\N{NO-BREAK SPACE}", " "),
    ]
    assert rows[4] == [
        "Ok",
        "purge",
        "Vault",
        "3 days ago",
        f"not read since {format_utc_timestamp_without_zone(read_at, now)}".replace("\N{NO-BREAK SPACE}", " "),
    ]
    jobs = {job["job"]: job for job in invoke_command("jobs", "-o", "json").json}
    assert jobs["[red]digest"] == {
        "probe": "schedules", "job": "[red]digest", "state": "down",
        "reason": "job.overdue", "message": late, "schedule": "",
        "duration_ms": None, "last_start": None, "last_end": None, "last_ok": None,
        "next_expected_at": format_iso8601(due),
        "read_at": format_iso8601(now - MINUTE),
    }  # fmt: skip
    due_at = CronSchedule("0 3 * * *").find_next_slot_after(then)
    assert (jobs["nightly"]["reason"], jobs["nightly"]["next_expected_at"]) == ("", format_iso8601(due_at))
    assert_jobs_are_filtered()
    database.close()


def assert_jobs_are_filtered() -> None:
    for words, names in {
        "--probe Schedules": ["[red]digest", "nightly"],
        "--probe tools": ["sweep"],
        "--state down": ["[red]digest"],
        "--state up --probe schedules": ["nightly"],
        "--state unknown": [],
        "--verdict overdue": ["[red]digest"],
        "--verdict Ok": ["purge", "sweep"],
        "--search night": ["nightly"],
        "--search kind:mcp": ["sweep"],
        "--search vault --state up": ["purge"],
    }.items():
        ran = invoke_command("jobs", *words.split(), "-o", "json")
        assert (sorted(job["job"] for job in ran.json), ran.exit_code) == (names, int("[red]digest" in names)), words
    assert invoke_command("jobs", "--search", "x").stdout == "no job matches\n"
    message = "watchdog: --verdict gone: no job has it; there are ok, on time, overdue\n"
    assert invoke_command("jobs", "--verdict", "gone").stderr == message


def test_names_are_not_markup(write: Write) -> None:
    write()
    database = Database("sqlite:///watchdog.db")
    upgrade_schema(database, find_resource_folder("migrations"))
    with StoreHarness(database, [make_registered_probe("[red]x[/] :smile:")], create_schema=False):
        assert "[Red]X[/] :Smile:" in invoke_command("status").stdout
    database.close()
