"""`watchdog explain`: why an incident opened, who was notified, who was not, and why."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command_line import invoke_command
from tests.support.fixture_rows import NOW, FixtureRows
from watchdog.domain.formatting import format_time_of_day
from watchdog.domain.model import Outcome, Severity
from watchdog.domain.notification import UNEDITABLE_MESSAGE_TEXT
from watchdog.domain.reasons import get_reason_advice
from watchdog.resources import find_resource_folder
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema

MINUTE = 60_000
ROUTING_LOG = (
    "route 1 does not match: group is Core, not Search",
    "route 2 matches: notifies oncall, mail",
    "chat/slack is left out: no route matches",
)


@pytest.fixture
def since(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> int:
    """An incident of a probe with three destinations, half an hour old; it is the only one."""
    write()
    monkeypatch.setattr("watchdog.service.clock.read_wall_clock_ms", lambda: NOW)
    since = NOW // MINUTE * MINUTE - 30 * MINUTE
    rows = FixtureRows()
    probe = rows.add_probe("API", group="Core")
    rows.add_result(probe, since, Outcome.FAIL, "HTTP 503, expected 200", "http.503")
    incident = rows.add_incident(
        probe, "availability", "HTTP 503, expected 200", since, severity=Severity.CRITICAL, reason="http.503",
        routing_log=ROUTING_LOG,
    )  # fmt: skip
    opened_at = since + 2 * MINUTE + 2_000
    rows.add_notification(incident, "oncall/slack", created_at=opened_at, finished_at=opened_at + 1_000)
    rows.add_notification(
        incident, "mail/email", "undelivered", created_at=opened_at, finished_at=opened_at + MINUTE, attempts=3,
        detail="550 no such mailbox",
    )  # fmt: skip
    for name in ("oncall/slack", "mail/email", "chat/slack"):
        rows.rows["revision_destinations"].append({"revision": 1, "destination": name, "definition": "d"})
    database = Database("sqlite:///watchdog.db")
    upgrade_schema(database, find_resource_folder("migrations"))
    with database.open_write_transaction() as connection:
        rows.insert_into(connection)
    database.close()
    return since


def test_the_chain_of_decisions(since: int) -> None:
    ran = invoke_command("explain", f"{1:024x}")
    assert (ran.exit_code, ran.stderr) == (0, "")
    first_at, sent_at = (format_time_of_day(since + ms, seconds=True) for ms in (0, 2 * MINUTE + 3_000))
    text = ran.stdout.replace("\N{NO-BREAK SPACE}", " ")
    head, decision_text, destination_text, event_text = text.split("\n\n")
    assert head.splitlines() == [
        "API: HTTP 503, expected 200",
        "Down for 30 min · critical",
        "mail/email was not notified: 550 no such mailbox, 3 attempts. oncall/slack was notified.",
        f"What to do: {get_reason_advice('http.503')}",
    ]
    assert decision_text.splitlines() == [
        "Why it opened, and which routes apply",
        "  3 bad results in a row (alert.failure_threshold: 3)",
        "  Severity critical, from the probe's configuration (alert.severity: critical)",
        "  Route 1 does not match: group is Core, not Search",
        "  Route 2 matches: notifies oncall, mail",
        "  Chat/slack is left out: no route matches",
    ]
    assert destination_text.splitlines()[:3] == [
        "Who was notified",
        "  chat/slack: not notified: chat/slack is left out: no route matches",
        "  mail/email: route 2 matches: notifies oncall, mail",
    ]
    assert destination_text.splitlines()[3].startswith("    opened: undelivered, 3 attempts until ")
    assert destination_text.splitlines()[4:] == [
        "  oncall/slack: route 2 matches: notifies oncall, mail",
        f"    opened: delivered, {sent_at} · 1 s",
    ]
    events = event_text.splitlines()
    assert events[0] == "What happened (UTC)"
    assert events[1] == f"  {first_at}  First bad result: HTTP 503, expected 200 · state not changed yet"
    assert [event.split("  ")[2].partition(":")[0] for event in events[2:]] == [
        "Opened, critical",
        "Notified oncall/slack",
        "Could not notify mail/email",
    ]


def test_what_shares_a_message_is_named(since: int) -> None:
    """At each destination alone, without what is held back."""
    rows, first = FixtureRows(), f"{1:024x}"
    rows.add_probe("API")
    rows.add_incident(1, "availability", "HTTP 503", since)
    for name, state in (("Shop\n*b*", "sent"), ("Thumbnails", "waiting"), ("Search", "muted")):
        incident = rows.add_incident(rows.add_probe(name, group="Core"), "availability", "HTTP 503", since)
        rows.add_notification(incident, "oncall/slack", state, created_at=since, lead_incident=first)
    for table, added in rows.rows.items():  # the first probe and its incident are there already
        rows.rows[table] = [row for row in added if 1 not in (row.get("probe"), row.get("id"))]
    database = Database("sqlite:///watchdog.db")
    with database.open_write_transaction() as connection:
        rows.insert_into(connection)
    database.close()
    lines = invoke_command("explain", first).stdout.splitlines()
    shared = [(lines[n - 1], line) for n, line in enumerate(lines) if "in one message with" in line]
    assert shared == [
        ("  oncall/slack: route 2 matches: notifies oncall, mail", "    in one message with Shop *b*, Thumbnails")
    ]


@pytest.mark.usefixtures("since")
def test_as_json() -> None:
    detail = invoke_command("explain", f"{1:024x}", "-o", "json").json
    assert (detail["id"], detail["routing_log"]) == (f"{1:024x}", list(ROUTING_LOG))
    assert [(each["destination"], each["notified"]) for each in detail["destinations"]] == [
        ("chat/slack", False),
        ("mail/email", True),
        ("oncall/slack", True),
    ]


@pytest.mark.usefixtures("since")
@pytest.mark.parametrize("id", ["nothing", f"{2:024x}", "", "%", "1'; DROP TABLE incidents"])
def test_an_unknown_incident(id: str) -> None:
    ran = invoke_command("explain", id)
    assert (ran.exit_code, ran.stdout) == (2, "")
    refusal = f"no incident has the id {id}, and no probe has this id or name: `watchdog incidents` lists them"
    assert ran.stderr == f"watchdog: {refusal}\n"


@pytest.mark.usefixtures("since")
def test_the_beginning_of_an_id_is_enough() -> None:
    assert invoke_command("explain", "0" * 6).stdout == invoke_command("explain", f"{1:024x}").stdout


@pytest.mark.usefixtures("since")
def test_the_incident_of_a_probe() -> None:
    """With the state of the probe before it."""
    ran = invoke_command("explain", "API")
    incident = invoke_command("explain", f"{1:024x}").stdout
    head, routing, rest = ran.stdout.split("\n\n", 2)
    assert head.splitlines()[:2] == ["API: down", "1\xa0open incident, below"]
    assert routing.startswith("Another incident would notify: no one")
    assert rest == incident
    detail = invoke_command("explain", "api", "-o", "json").json
    assert (detail["probe"]["probe"], [each["id"] for each in detail["incidents"]]) == ("api", [f"{1:024x}"])


def test_the_times_of_banners_are_plain_text(since: int) -> None:
    """Pages have elements for the script that shows local times."""
    acknowledge = invoke_command("ack", f"{1:024x}", "--comment", "<b>on it</b>")
    assert (acknowledge.exit_code, acknowledge.stderr) == (0, "")
    text = invoke_command("explain", f"{1:024x}").stdout
    (banner,) = [line for line in text.splitlines() if line.startswith("Acknowledged by ")]
    assert re.search(r" at \d\d:\d\d", banner)
    assert "<b>on it</b>" in banner
    assert "<time" not in text


def test_an_act_that_a_message_cannot_show_is_not_sent_by_itself(since: int) -> None:
    """A Slack webhook cannot edit its messages, so it is not notified of an acknowledgement."""
    rows, incident = FixtureRows(), f"{1:024x}"
    rows.add_notification(
        incident, "oncall/slack", "merged", seq=1, event="acknowledged", created_at=since, finished_at=since,
        detail=UNEDITABLE_MESSAGE_TEXT,
    )  # fmt: skip
    database = Database("sqlite:///watchdog.db")
    with database.open_write_transaction() as connection:
        rows.insert_into(connection)
    database.close()
    (line,) = [line for line in invoke_command("explain", incident).stdout.splitlines() if "acknowledged:" in line]
    assert "acknowledged: not sent, " in line
    assert line.endswith(UNEDITABLE_MESSAGE_TEXT)


def test_what_no_one_has_been_notified_of_yet(since: int) -> None:
    """The first line after the state names what the message waits for."""
    rows = FixtureRows()
    rows.add_incident(1, "availability", "HTTP 503", since)
    incident = rows.add_incident(1, "task", "sweep is stale", since, subject="sweep")
    rows.rows["incidents"] = rows.rows["incidents"][1:]  # the first one is there already
    rows.add_notification(incident, "oncall/slack", "waiting", created_at=NOW, due_at=NOW + 30_000, attempts=0)
    database = Database("sqlite:///watchdog.db")
    with database.open_write_transaction() as connection:
        rows.insert_into(connection)
    database.close()
    lines = invoke_command("explain", incident).stdout.splitlines()
    assert lines[1].endswith(" · warning")
    assert lines[2].startswith("No one has been notified yet. oncall/slack: to be sent at ")
    later = "it was added after the incident opened, and is notified of later incidents"
    assert f"  chat/slack: not notified: {later}" in lines
