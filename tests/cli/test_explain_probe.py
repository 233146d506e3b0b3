"""`watchdog explain PROBE`: why there is no incident, and whom a new one would notify."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.command_line import invoke_command
from tests.support.store import StoreHarness, make_registered_probe, make_results
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS
from watchdog.domain.muting import MutingProbe
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable, ProbeMatcher
from watchdog.resources import find_resource_folder
from watchdog.service.clock import read_wall_clock_ms
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema

ROUTES = NotificationRoutingTable(
    {"oncall": ("oncall/slack",), "mail": ("mail/email",), "security": ("security/email",)},
    (
        NotificationRoute(("mail",), ProbeMatcher(group="Core")),
        NotificationRoute(("security",), reason_patterns=("tls",)),
        NotificationRoute(("oncall",)),
    ),
)
NOTHING_IS_SENT = "Until it ends, nothing is sent about"
EXCEPT_RECOVERIES = "except recoveries of those that were sent before."


@pytest.fixture
def harness(write: Callable[..., Path]) -> Iterator[StoreHarness]:
    """A probe that needs another one; both have run in the last minutes."""
    write()
    now = read_wall_clock_ms()
    database = Database("sqlite:///watchdog.db")
    upgrade_schema(database, find_resource_folder("migrations"))
    api = replace(make_registered_probe("api"), routes=ROUTES, muting_probes=(MutingProbe("db"),))
    probes = [api, make_registered_probe("db", failure_threshold=1)]
    with StoreHarness(database, probes, now=now - HOUR_MS, create_schema=False, routes=ROUTES) as made:
        made.without_downtime()
        made.advance_watermark(now)
        yield made
        database.close()


def explain() -> list[str]:
    ran = invoke_command("explain", "api")
    assert (ran.exit_code, ran.stderr) == (0, "")
    return ran.stdout.replace("\xa0", " ").splitlines()


def record(harness: StoreHarness, outcomes: str, probe: str = "api") -> None:
    start = read_wall_clock_ms() - (len(outcomes) + 1) * MINUTE_MS
    harness.record_each(*make_results(harness.database_id(probe), outcomes, start))


def test_what_may_open_an_incident_and_whom_it_would_notify(harness: StoreHarness) -> None:
    record(harness, "pff")
    lines = explain()
    assert lines[:2] == ["Api: up", "No incident is open yet"]
    assert lines[2].startswith("Last result: fail ")
    assert lines[3:] == [
        "2 of the 3 bad results in a row that open an incident",
        "",
        "A new incident would notify: oncall/slack",
        "  Route 1 does not match: group is empty, not Core",
        "  Route 2 does not match: reason is http.503, not tls",
        "  Route 3 matches: notifies oncall",
    ]


def test_routes_for_some_reasons_are_named_if_the_reason_is_open(harness: StoreHarness) -> None:
    assert explain()[:2] == ["Api: unknown", "No incident is open: there is no result yet"]
    record(harness, "p")
    lines = explain()
    assert lines[1] == "No incident is open"
    assert lines[-4:] == [
        "A new incident would notify: security/email, oncall/slack",
        "  Route 1 does not match: group is empty, not Core",
        "  Route 2 matches: notifies security (only for tls)",
        "  Route 3 matches: notifies oncall",
    ]
    assert invoke_command("explain", "api", "-o", "json").json["new_incident"]["destinations"] == [
        "security/email",
        "oncall/slack",
    ]


def test_what_holds_an_incident_back(harness: StoreHarness) -> None:
    record(harness, "pf")
    record(harness, "pf", "db")
    assert invoke_command("silence", "--id", "api", "--for", "2h", "--comment", "upgrade").exit_code == 0
    assert invoke_command("maintenance", "begin", "--id", "api", "--for", "1h", "--comment", "move").exit_code == 0
    assert invoke_command("pause", "api", "--for", "2d").exit_code == 0
    lines = explain()
    assert lines[:2] == ["Api: paused", "No incident is open"]
    begins = ["Paused until ", "In maintenance until ", "Silenced until ", "Muted while Db is down (needs). "]
    holds = {begin: [line for line in lines if line.startswith(begin)] for begin in begins}
    assert {begin: len(held) for begin, held in holds.items()} == dict.fromkeys(begins, 1)
    silence = holds["Silenced until "][0]
    assert silence.endswith(f", id api: upgrade). {NOTHING_IS_SENT} incidents, {EXCEPT_RECOVERIES}")
    assert "move" in holds["In maintenance until "][0]
    assert any(line.startswith("After that, a new incident would notify: ") for line in lines)
    body = invoke_command("explain", "api", "-o", "json").json["new_incident"]
    assert ([each["comment"] for each in body["silences"]], body["muted_because_of"]) == (["upgrade"], ["db"])
    assert len(body["maintenance"]) == 1


def test_a_silence_of_one_subject_does_not_hold_back_the_others(harness: StoreHarness) -> None:
    assert invoke_command("silence", "--id", "api", "--subject", "nightly-*", "--for", "2h").exit_code == 0
    (line,) = (line for line in explain() if line.startswith("Silenced until "))
    end = f"{NOTHING_IS_SENT} incidents with this subject, {EXCEPT_RECOVERIES}"
    assert line.endswith(f", subject nightly-*). {end}")
    assert any(line.startswith("A new incident would notify: ") for line in explain())


def test_a_silence_is_described_once_although_it_also_covers_the_open_incident(harness: StoreHarness) -> None:
    assert invoke_command("silence", "--id", "api", "--for", "2h", "--comment", "upgrade").exit_code == 0
    record(harness, "pfff")
    (incident,) = invoke_command("incidents", "-o", "json").json
    for subject in ("api", incident["id"]):
        silenced = [line for line in invoke_command("explain", subject).stdout.splitlines() if "ilenced" in line]
        description, event = silenced
        assert description.startswith("Silenced until ")
        assert re.match(r"  \d\d:\d\d:\d\d  Silenced: ", event)


def test_the_newest_incident_follows_if_none_is_open(harness: StoreHarness) -> None:
    record(harness, "fffpp")
    lines = explain()
    assert lines[:2] == ["Api: up", "No incident is open"]
    assert "Api: HTTP 503" in lines
    assert any(line.startswith("Resolved after ") for line in lines)


def test_a_comment_adds_no_line_of_its_own(harness: StoreHarness) -> None:
    record(harness, "pp")
    comment = "upgrade\n\nAnother incident would notify: no one"
    assert invoke_command("silence", "--id", "api", "--for", "2h", "--comment", comment).exit_code == 0
    assert invoke_command("maintenance", "begin", "--id", "api", "--for", "1h", "--comment", comment).exit_code == 0
    lines = explain()
    assert [line for line in lines if line.startswith("Another")] == []
    assert sum("upgrade  Another incident" in line for line in lines) == 2


def test_a_new_incident_is_held_back_while_the_alert_flaps(harness: StoreHarness) -> None:
    record(harness, "fffppfffppfffpp")
    (line,) = [line for line in explain() if line.startswith("A new incident would notify: ")]
    assert re.fullmatch(
        r"A new incident would notify: .*oncall/slack, but is held back while the alert flaps \(until .* UTC at the "
        r"earliest\)",
        line,
    )
