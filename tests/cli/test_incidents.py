"""`watchdog incidents ID`: one incident in detail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import invoke_command
from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.web import create_test_app, request_page
from watchdog.domain.formatting import format_time_of_day
from watchdog.domain.model import Evidence, Outcome, Severity
from watchdog.domain.reasons import get_reason_advice
from watchdog.resources import find_resource_folder
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema

MINUTE = 60_000
SINCE = NOW // MINUTE * MINUTE - 30 * MINUTE
OPENED_AT = SINCE + 2 * MINUTE + 2_000
PREFIX = "the beginning of an id needs at least 6 characters"
Write = Callable[..., Path]


@pytest.fixture
def incident(write: Write, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of an open incident with evidence and two destinations."""
    write(server={"public_url": "https://status.example/"})
    monkeypatch.setattr("watchdog.service.clock.read_wall_clock_ms", lambda: NOW)
    rows = FixtureRows()
    probe = rows.add_probe(
        "API", group="Core", tags=("prod", "eu"), target="https://api.example/", runbook="https://wiki.example/api"
    )
    rows.add_result(probe, SINCE - MINUTE)
    evidence = Evidence(facts={"status": 503, "server": "nginx"}, excerpt='{"ok": false,\n "db": "away"}')
    rows.add_result(probe, SINCE, Outcome.FAIL, "HTTP 503, expected 200", "http.503", evidence=evidence)
    incident = rows.add_incident(
        probe, "availability", "HTTP 503, expected 200", SINCE, severity=Severity.CRITICAL, reason="http.503"
    )
    rows.add_notification(incident, "oncall/slack", created_at=OPENED_AT, finished_at=OPENED_AT + 1_000)
    rows.add_notification(
        incident, "mail/email", "undelivered", created_at=OPENED_AT, finished_at=OPENED_AT + MINUTE, attempts=3,
        detail="550 no such mailbox",
    )  # fmt: skip
    database = Database("sqlite:///watchdog.db")
    upgrade_schema(database, find_resource_folder("migrations"))
    with database.open_write_transaction() as connection:
        rows.insert_into(connection)
    database.close()
    return incident


def show(incident: str, *words: str) -> list[str]:
    """The parts of the output."""
    ran = invoke_command("incidents", incident, *words)
    assert (ran.exit_code, ran.stderr) == (0, "")
    return ran.stdout.replace("\N{NO-BREAK SPACE}", " ").rstrip("\n").split("\n\n")


def test_everything_about_an_incident(incident: str) -> None:
    invoke_command("ack", incident, "--comment", "on it")
    invoke_command("silence", "--id", "api", "--for", "1h", "--comment", "upgrade")
    head, about, first_bad, last_good, _, notifications, timeline = show(incident)
    title, state, acknowledged, comment_of_silence, undelivered, advice, runbook, page = head.splitlines()
    assert (title, state) == ("API: HTTP 503, expected 200", "Down for 30 min · critical")
    assert acknowledged.startswith("Acknowledged by ")
    assert acknowledged.endswith(". on it")
    assert comment_of_silence.startswith("Silenced until ")
    assert "upgrade" in comment_of_silence
    assert undelivered == "mail/email was not notified: 550 no such mailbox, 3 attempts. oncall/slack was notified."
    assert advice == f"What to do: {get_reason_advice('http.503')}"
    assert runbook == "Runbook: https://wiki.example/api"
    assert page == f"Page: https://status.example/incidents/{incident}"
    assert about.splitlines() == [
        "About",
        "  probe    API (api, http)",
        "  target   https://api.example/",
        "  group    Core",
        "  tags     prod, eu",
        "  rule     availability",
        "  reason   http.503",
        f"  since    {format_time_of_day(SINCE, seconds=True)} UTC",
        f"  opened   {format_time_of_day(OPENED_AT, seconds=True)} UTC",
    ]
    bad_lines = first_bad.splitlines()
    assert bad_lines[0].startswith(f"First bad: {format_time_of_day(SINCE, seconds=True)}")
    assert [line.split() for line in bad_lines if "server" in line or "status" in line] == [
        ["status", "503"],
        ["server", "nginx"],
    ]
    assert bad_lines[-3:] == ["  response excerpt (untrusted):", '    {"ok": false,', '     "db": "away"}']
    assert last_good.startswith(f"Last good: {format_time_of_day(SINCE - MINUTE, seconds=True)}")
    assert notifications.splitlines()[0].startswith("Notifications: ")
    assert notifications.splitlines()[1:3] == [
        f"  mail/email opened: undelivered, 3 attempts until {format_time_of_day(OPENED_AT + MINUTE, seconds=True)}"
        " · 550 no such mailbox",
        f"  oncall/slack opened: delivered, {format_time_of_day(OPENED_AT + 1_000, seconds=True)} · 1 s",
    ]
    assert notifications.splitlines()[3].startswith("  oncall/slack acknowledged: not sent yet, ")
    events = timeline.splitlines()
    assert events[0] == "What happened (UTC)"
    texts = [event.split("  ", 2)[2].partition(":")[0] for event in events[1:]]
    assert texts[:3] == ["Last good result", "First bad result", "Opened, critical"]
    assert [text.partition(" by ")[0] for text in texts[-2:]] == ["Acknowledged", "Silenced"]


def test_the_json_is_that_of_the_api(incident: str) -> None:
    detail = invoke_command("incidents", incident, "-o", "json").json
    database = Database("sqlite:///watchdog.db")
    api_detail = request_page(create_test_app(database), f"/api/v1/incidents/{incident}").json()
    database.close()
    assert detail == api_detail
    assert detail["first_bad"]["evidence"]["facts"]["status"] == 503


@pytest.mark.parametrize(
    ("server", "page"),
    [({}, "http://127.0.0.1:8080"), ({"listen": "127.0.0.1:0"}, ""), ({"lisen": ":1"}, "")],
    ids=["no public URL", "a random port", "an invalid section"],
)
def test_the_link_to_its_page(incident: str, write: Write, server: dict[str, Any], page: str) -> None:
    write(server=server)
    lines = invoke_command("incidents", incident).stdout.splitlines()
    assert [line for line in lines if line.startswith("Page: ")] == [f"Page: {page}/incidents/{incident}"] * bool(page)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["f00"],
            f"no incident has the id f00, and no probe has this id or name; {PREFIX}: `watchdog incidents` lists",
        ),
        (["f00", "-o", "json"], f"no incident has the id f00, and no probe has this id or name; {PREFIX}"),
        (["f00", "--open"], "the id of an incident cannot be combined with --open, --probe or --severity"),
        (["f00", "--severity", "critical"], "the id of an incident cannot be combined with --open, --probe or"),
    ],
)
@pytest.mark.usefixtures("incident")
def test_what_is_refused(words: list[str], message: str) -> None:
    ran = invoke_command("incidents", *words)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"watchdog: {message}")


def test_a_comment_adds_no_line_of_its_own(incident: str) -> None:
    comment = "ok\n  22:10:00  Resolved: recovered"
    assert invoke_command("ack", incident, "--comment", comment).exit_code == 0
    for command in ("incidents", "explain"):
        lines = invoke_command(command, incident).stdout.splitlines()
        assert [line for line in lines if line.startswith("  22:10:00")] == []
        assert any("ok   22:10:00  Resolved" in line for line in lines)


def test_the_list_states_what_is_wrong_with_notifications_and_who_closed_an_incident(incident: str) -> None:
    (listed,) = invoke_command("incidents", "-o", "json").json
    assert listed["notes"] == ["mail/email: undelivered"]
    assert "(mail/email: undelivered)" in " ".join(invoke_command("status").stdout.split())
    assert invoke_command("close", incident, "--comment", "host removed").exit_code == 0
    (listed,) = invoke_command("incidents", "-o", "json").json
    (note,) = listed["notes"]
    assert note.startswith("closed by ")
    assert note.endswith(": host removed")
