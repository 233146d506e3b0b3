"""`watchdog ack`, `unack`, `silence`, `unsilence`, `silences`, `pause` and `resume`."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.support.command_line import invoke_command
from tests.support.missing_jobs import store_missing_jobs
from tests.support.store import StoreHarness, make_registered_probe, make_result, make_results
from watchdog.cli.common import DATABASE_UNKNOWN_ADVICE
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, format_iso8601, format_time_of_day
from watchdog.resources import find_resource_folder
from watchdog.service.clock import read_wall_clock_ms
from watchdog.store.act_tables import acts, pauses, silences
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema
from watchdog.store.tables import incidents

Write = Callable[..., Path]
USER = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def harness(write: Write) -> Iterator[StoreHarness]:
    """A probe with an open incident."""
    write()
    now = read_wall_clock_ms()
    database = Database("sqlite:///watchdog.db")
    upgrade_schema(database, find_resource_folder("migrations"))
    probe = make_registered_probe("api", failure_threshold=1, success_threshold=1)
    with StoreHarness(database, [probe], now=now - HOUR_MS, create_schema=False) as made:
        made.without_downtime()
        made.advance_watermark(now)
        made.record_each(*make_results(made.database_id("api"), "pf", now - 3 * MINUTE_MS))
        yield made
        database.close()


def incident_id(harness: StoreHarness) -> str:
    id: str = harness.select_row(incidents)["id"]
    return id


def test_an_incident_is_acknowledged_in_the_name_of_the_user(
    harness: StoreHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "mallory")
    id = incident_id(harness)
    ran = invoke_command("ack", id, "--comment", "on it")
    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, f"Acknowledged: {id}\n", "")
    row = harness.select_row(incidents)
    assert (row["acknowledged_by"], row["acknowledged_through"], row["acknowledgement_comment"]) == (
        USER,
        "cli",
        "on it",
    )
    again = invoke_command("ack", id)
    assert again.stdout.startswith(f"Already acknowledged by {USER} at ")
    assert invoke_command("incidents", "-o", "json").json[0]["acknowledgement"]["by"] == USER
    assert invoke_command("ack", id, "-o", "json").json["acknowledgement"]["comment"] == "on it"
    assert invoke_command("unack", id).stdout == f"No longer acknowledged: {id}\n"
    assert invoke_command("unack", id, "-o", "json").json == {"incident": id, "acknowledgement": None}
    assert [row["kind"] for row in harness.select_rows(acts)] == ["acknowledge", "unacknowledge"]


@pytest.mark.parametrize("name", ["api", "Api", "an id", "the beginning of an id", "an id that a table cuts"])
def test_an_incident_is_named_by_its_probe_or_the_beginning_of_its_id(harness: StoreHarness, name: str) -> None:
    id = incident_id(harness)
    name = {"an id": id, "the beginning of an id": id[:6], "an id that a table cuts": f"{id[:11]}…"}.get(name, name)
    assert invoke_command("ack", name).stdout == f"Acknowledged: {id}\n"
    assert invoke_command("unack", name).stdout == f"No longer acknowledged: {id}\n"
    assert "until the incident is resolved" in invoke_command("silence", "--incident", name).stdout
    resent = invoke_command("resend", name)
    assert "no incident has the id" not in resent.stderr
    assert invoke_command("close", name).stdout.startswith(f"Closed: {id}\n")
    if name.lower() == "api":
        refused = invoke_command("ack", name)
        assert (refused.exit_code, refused.stderr) == (2, "watchdog: Api has no open incident\n")


def test_several_open_incidents_of_a_probe_are_listed(harness: StoreHarness) -> None:
    id, probe = incident_id(harness), harness.database_id("api")
    at = read_wall_clock_ms() + MINUTE_MS
    harness.record_each(make_result(probe, at, "fail", preferences={"result.fast": "slow"}))
    other = harness.select_row(incidents, incidents.c.id != id)["id"]
    ran = invoke_command("ack", "api")
    assert (ran.exit_code, ran.stderr.count("\n")) == (2, 1)
    assert ran.stderr.startswith("watchdog: Api has 2 open incidents; state the id of one of them: ")
    assert id in ran.stderr
    assert other in ran.stderr
    assert harness.select_rows(acts) == []


def test_an_incident_is_closed_and_explained(harness: StoreHarness) -> None:
    id = incident_id(harness)
    ran = invoke_command("close", id, "--comment", "host removed")
    assert (ran.exit_code, ran.stderr) == (0, "")
    closed, outlook = ran.stdout.splitlines()
    assert closed == f"Closed: {id}"
    assert outlook.startswith("The probe still fails: another incident opens after 1\xa0more bad result (within about ")
    assert invoke_command("close", id, "--comment", "again").stdout.startswith(f"Already closed by {USER} at ")
    closure = invoke_command("close", id, "-o", "json").json["closure"]
    assert (closure["by"], closure["through"], closure["comment"]) == (USER, "cli", "host removed")
    assert invoke_command("incidents", "-o", "json").json[0]["closure"] == closure
    explained = invoke_command("explain", id).stdout
    assert f"Closed by {USER}: host removed" in explained
    assert f"Closed by hand: {USER} (cli): host removed" in explained
    assert [row["kind"] for row in harness.select_rows(acts)] == ["close"]
    harness.record_each(*make_results(harness.database_id("api"), "fp", read_wall_clock_ms() + MINUTE_MS))
    again = harness.select_row(incidents, incidents.c.id != id)["id"]
    refused = invoke_command("close", again)
    assert (refused.exit_code, "only an open incident can be closed" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ["ack", "nothing"],
            "no incident has the id nothing, and no probe has this id or name: `watchdog incidents` lists them",
        ),
        (["unack", "nothing"], "no incident has the id nothing"),
        (["resend", "nothing"], "no incident has the id nothing"),
        (["resend", "api", "x" * 501], "the destination has 501 characters; at most 500 are possible"),
        (["ack", "api", "--comment", "x" * 501], "the comment has 501 characters; at most 500 are possible"),
        (["unsilence", "s-1"], "no silence has the id s-1: `watchdog silences` lists them"),
        (
            ["silence", "--for", "1h"],
            "nothing is selected: state an id, group, tag, kind, severity or subject, or `--all`",
        ),
        (["silence", "--all", "--group", "Core", "--for", "1h"], "`--all` silences everything"),
        (["silence", "--group", "Core"], "give --for (how long) or --until (when it ends)"),
        (
            ["silence", "--group", "Core", "--for", "1h", "--until", "2999-01-01T00:00Z"],
            "give --for (how long) or --until",
        ),
        (["silence", "--group", "Core", "--for", "soon"], "--for soon: "),
        (["silence", "--group", "Core", "--for", "366d"], "may last for 365 days at most"),
        (["silence", "--group", "Core", "--until", "tomorrow"], "--until tomorrow: expected a date and a time"),
        (["silence", "--group", "Core", "--until", "2999-01-01T00:00"], "add the time zone"),
        (["silence", "--group", "Core", "--until", "22:00"], "--until 22:00: add the time zone, such as +01:00"),
        (["silence", "--group", "Core", "--until", "2001-01-01T00:00Z"], "would end in the past"),
        (["pause", "nothing"], "no probe has the id or name nothing: `watchdog status` lists them"),
        (["pause", "Appi"], "no probe has the id or name Appi; did you mean 'Api'? `watchdog status` lists them"),
        (["resume", "Appi"], "no probe has the id or name Appi; did you mean 'Api'? `watchdog status` lists them"),
        (["ack", "Appi"], "no incident has the id Appi, and no probe has this id or name; did you mean 'Api'?"),
        (
            ["pause", "Api", "--for", "1h", "--until", "2999-01-01T00:00Z"],
            "give --for (how long) or --until (when it ends), not both",
        ),
        (["pause", "Api", "--for", "366d"], "a pause may last for 365 days at most"),
        (["pause", "Api", "--until", "2001-01-01T00:00Z"], "the pause would end in the past"),
        (["resume", "Api"], "Api is not paused"),
        (["silence", "--incident", "nothing"], "no incident has the id nothing"),
        (["silence", "--incident", "nothing", "--for", "1h"], "--incident cannot be combined"),
        (["silence", "--incident", "nothing", "--tag", "x"], "--incident cannot be combined"),
        (["silence", "--severity", "urgent", "--for", "1h"], "--severity urgent: expected info, warning, critical"),
    ],
)
def test_a_refusal_is_one_line(harness: StoreHarness, words: list[str], error: str) -> None:
    ran = invoke_command(*words)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert error in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert harness.select_rows(silences) == []


def test_a_silence_is_listed_and_ended(harness: StoreHarness) -> None:
    assert invoke_command("silences").stdout == "no silences\n"
    ran = invoke_command("silence", "--id", "api", "--for", "2h", "--comment", "[red]upgrade[/]")
    id = harness.select_row(silences)["id"]
    first, second = ran.stdout.splitlines()
    assert first.startswith(f"{id} silences id api until ")
    assert second.replace("\xa0", " ") == f"It covers 1 probe and 1 open incident. `watchdog unsilence {id}` ends it."
    (row,) = invoke_command("silences").stdout.splitlines()[1:]
    assert row.replace("\xa0", " ").split()[:9] == [id, "id", "api", "1", "probe", "and", "1", "open", "incident"]
    (listed,) = invoke_command("silences", "-o", "json").json
    assert (listed["probe_count"], listed["open_incident_count"]) == (1, 1)
    assert "[red]upgrade[/]" in row
    ran = invoke_command("unsilence", id)
    assert (ran.exit_code, ran.stdout) == (0, f"Ended: {id}\n")
    assert invoke_command("silences", "-o", "json").json == []
    (ended,) = invoke_command("silences", "--ended", "-o", "json").json
    assert (ended["id"], ended["ended_by"], ended["match"]["id"]) == (id, USER, "api")
    assert (ended["probe_count"], ended["open_incident_count"]) == (None, None)
    again = invoke_command("unsilence", id)
    assert again.exit_code == 2
    assert f"by {USER}" in again.stderr


def test_a_silence_ends_at_the_next_time_of_day(harness: StoreHarness) -> None:
    ends_at = (read_wall_clock_ms() + HOUR_MS) // MINUTE_MS * MINUTE_MS
    words = ["--id", "api", "--until", f"{format_time_of_day(ends_at)}Z"]
    assert invoke_command("silence", *words).exit_code == 0
    assert harness.select_row(silences)["ends_at"] == ends_at


def test_an_incident_is_silenced_until_it_is_resolved(harness: StoreHarness) -> None:
    incident = incident_id(harness)
    ran = invoke_command("silence", "--incident", incident, "--comment", "known")
    silence = harness.select_row(silences)["id"]
    assert ran.stdout.splitlines() == [
        f"{silence} silences id api, incident {incident} until the incident is resolved",
        f"`watchdog unsilence {silence}` ends it earlier.",
    ]
    again = invoke_command("silence", "--incident", incident, "-o", "json").json
    assert (again["id"], again["incident"], again["comment"]) == (silence, incident, "known")
    (row,) = invoke_command("silences").stdout.splitlines()[1:]
    assert "the incident is resolved" in row
    harness.record_each(*make_results(harness.database_id("api"), "p", read_wall_clock_ms()))
    assert invoke_command("silence", "--incident", incident).stderr.startswith(
        "watchdog: the incident was resolved at "
    )


def test_every_option_of_a_silence(harness: StoreHarness) -> None:
    ends_at = (read_wall_clock_ms() + 10 * DAY_MS) // 1000 * 1000
    words = ["--group", "Core", "--tag", "b", "--tag", "a", "--kind", "http", "--severity", "critical"]
    ran = invoke_command("silence", *words, "--subject", r"5 \* *", "--until", format_iso8601(ends_at), "-o", "json")
    silence = ran.json
    assert silence["until"] == format_iso8601(ends_at)
    assert silence["through"] == "cli"
    assert silence["match"] == {
        "id": None,
        "group": "Core",
        "tags": ["a", "b"],
        "kind": "http",
        "severity": "critical",
        "subject": r"5 \* *",
        "all": False,
    }


@pytest.mark.parametrize("words", [["silence", "--all", "--for", "1h"], ["close", "INCIDENT"]])
def test_an_act_whose_response_cannot_be_completed_prints_no_traceback(
    harness: StoreHarness, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    def fail(*_: object) -> None:
        password = "hunter2-hunter2"
        raise KeyError(password)

    monkeypatch.setattr("watchdog.service.acts.load_silence_selection_summary", fail)
    monkeypatch.setattr("watchdog.service.acts.load_reopening_outlook_text", fail)
    ran = invoke_command(*(incident_id(harness) if word == "INCIDENT" else word for word in words), "-o", "json")
    assert (ran.exit_code, isinstance(ran.json, dict)) == (0, True)
    assert not any(text in ran.stdout + ran.stderr for text in ("hunter2", "Traceback", "locals"))


def test_everything_can_be_silenced_on_purpose(harness: StoreHarness) -> None:
    assert invoke_command("silence", "--all", "--for", "1m", "-o", "json").json["match"]["all"]


def test_without_a_database_the_message_states_what_to_do(write: Write) -> None:
    write()
    ran = invoke_command("ack", "x")
    assert ran.exit_code == 3
    assert "does not exist: start `watchdog run`" in ran.stderr


def test_a_probe_is_paused_and_resumed(harness: StoreHarness) -> None:
    ran = invoke_command("pause", "Api", "--for", "2h", "--comment", "moved")
    assert ran.exit_code == 0, ran.stderr
    assert re.fullmatch(r"Paused until .* UTC: Api\n", ran.stdout)
    assert harness.select_row(pauses)["author"] == USER
    assert invoke_command("pause", "api").stdout == "Still paused until it is resumed: Api\n"
    status = invoke_command("status")
    assert "paused" in status.stdout
    assert status.exit_code == 0, "what is paused is not down"
    probe = invoke_command("status", "-o", "json").json[0]
    assert (probe["state"], probe["next_due"], probe["pause"]["until"]) == ("paused", None, None)
    assert (probe["pause"]["by"], probe["pause"]["through"]) == (USER, "cli")
    assert invoke_command("resume", "Api").stdout.startswith("Resumed after ")
    assert invoke_command("status", "-o", "json").json[0]["pause"] is None
    paused = invoke_command("pause", "Api", "-o", "json").json
    assert (paused["probe"], paused["pause"]["until"]) == ("api", None)
    assert invoke_command("resume", "Api", "-o", "json").json == {"probe": "api", "pause": None}
    assert [row["kind"] for row in harness.select_rows(acts)] == ["pause", "pause", "resume", "pause", "resume"]


def test_a_silence_that_no_probe_matches_is_stored_with_a_warning(harness: StoreHarness) -> None:
    ran = invoke_command("silence", "--id", "apii", "--tag", "prod", "--for", "2h")
    assert ran.exit_code == 0
    assert ran.stderr.splitlines() == [
        "watchdog: warning: No probe has the id or name 'apii' now; did you mean 'Api'?",
        "watchdog: warning: No probe has the tag 'prod' now.",
    ]
    assert "It covers 0 probes and no open incident." in ran.stdout.replace("\xa0", " ")
    assert harness.select_row(silences)["ended_at"] is None
    selecting = invoke_command("silence", "--id", "api", "--for", "2h", "-o", "json")
    assert (selecting.stderr, selecting.json["match"]["id"]) == ("", "api")
    assert (selecting.json["probe_count"], selecting.json["open_incident_count"], selecting.json["warnings"]) == (
        1,
        1,
        [],
    )


def test_lists_state_who_takes_care_and_what_is_held_back(harness: StoreHarness) -> None:
    id = incident_id(harness)
    assert invoke_command("incidents", "-o", "json").json[0]["notes"] == []
    for words in (["ack", id], ["silence", "--incident", id], ["maintenance", "begin", "--id", "api", "--for", "1h"]):
        assert invoke_command(*words).exit_code == 0
    acknowledged, silenced, maintenance = invoke_command("incidents", "-o", "json").json[0]["notes"]
    assert (acknowledged, silenced) == (f"acknowledged by {USER}", "silenced until the incident is resolved")
    assert re.fullmatch(r"in maintenance until .* UTC", maintenance)
    table = invoke_command("incidents").stdout.splitlines()
    assert table[0].split()[-1] == "notes"
    assert f"acknowledged by {USER}, silenced until the incident is resolved, in maintenance until" in table[1]
    status = invoke_command("status").stdout
    assert f"HTTP 503 (acknowledged by {USER}, silenced until the incident is resolved)" in status
    assert "<time" not in status


def test_missing_jobs_are_forgotten_in_the_name_of_the_user(harness: StoreHarness) -> None:
    store_missing_jobs(harness.database, harness.database_id("api"), "nightly", "weekly\n", listed="hourly")
    ran = invoke_command("jobs", "forget", "Api", "nightly", "--comment", "moved")
    line = "No longer expected, starting with the next run of Api: nightly\n"
    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, line, "")
    ran = invoke_command("jobs", "forget", "api", "-o", "json")
    assert (ran.exit_code, ran.json) == (0, {"probe": "api", "jobs": ["nightly", "weekly\n"]})
    rows = [(row["kind"], row["author"], row["interface"], row["comment"]) for row in harness.select_rows(acts)]
    assert rows == [
        ("forget_jobs", USER, "cli", "nightly: moved"),
        ("forget_jobs", USER, "cli", "nightly, weekly"),
    ]
    for words, message in {
        "api hourly": "hourly is not missing; missing jobs of Api: nightly, weekly",
        "apj": "no probe has the id or name apj; did you mean 'Api'? `watchdog status` lists them",
    }.items():
        ran = invoke_command("jobs", "forget", *words.split())
        assert (ran.exit_code, ran.stdout, ran.stderr) == (2, "", f"watchdog: {message}\n")


def test_notes_are_not_read_for_a_status_as_json(harness: StoreHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchdog.cli.status._load_notes_by_incident", Mock(side_effect=AssertionError))
    assert invoke_command("status", "-o", "json").json[0]["state"] == "down"


@pytest.mark.parametrize(
    "words",
    [
        ["status"], ["service"], ["incidents"], ["jobs"], ["silences"], ["maintenance"], ["explain", "ID"],
        ["ack", "ID"],
        ["unack", "ID"], ["close", "ID"], ["silence", "--all", "--for", "1h"], ["unsilence", "s-1"], ["pause", "api"],
        ["resume", "api"], ["resend", "ID"], ["maintenance", "begin", "--all", "--for", "1h"],
        ["maintenance", "end", "m-1"], ["jobs", "forget", "api"], ["run-now", "nothing"], ["db", "check"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_only_the_database_is_read_of_an_invalid_configuration(
    harness: StoreHarness, write: Write, words: list[str]
) -> None:
    """Each command does the same as with a valid one, after a line that states where the first problem is."""
    words = [incident_id(harness) if word == "ID" else word for word in words]
    write(probes=[{"name": "API", "http": "http://127.0.0.1:1/", "evry": "1m"}], email={"host": 1})
    ran = invoke_command(*words)
    notice, *_ = ran.stderr.splitlines()
    assert notice.startswith("watchdog: the configuration cannot be loaded here: watchdog.yaml:1:")
    assert notice.endswith("(`watchdog validate` lists every problem); only its database is used")
    assert "evry" not in ran.stderr
    refused = {"unsilence s-1", "resume api", "maintenance end m-1", "jobs forget api", "run-now nothing"}
    is_refused = " ".join(words) in refused or words[0] == "resend"
    assert ran.exit_code == (2 if is_refused else 1 if words[0] == "status" else 0), ran.stderr


@pytest.mark.parametrize(
    "sections",
    [
        {"storage": {"url": "mysql://x"}, "probes": []},
        {"storage": {"url": "sqlite:///watchdog.db", "keep": "1d"}},
        {"storage": []},
        {"storage": {"url": "${WATCHDOG_NO_SUCH_VARIABLE}"}},
        {"database": {"url": "sqlite:///other.db"}, "probes": []},
        {"storge": {"url": "sqlite:///other.db"}, "probes": []},
        {"server": {"storage": {"url": "sqlite:///other.db"}}},
        {"probes": [{"name": "API", "http": "http://127.0.0.1:1/", "storage": {"url": "sqlite:///other.db"}}]},
        {"probes": [{"name": "API", "http": "x", "tcp": "x", "storage": {"url": "sqlite:///other.db"}}]},
        {"db": {"url": "sqlite:///other.db"}},
        {"persistence": {"url": "sqlite:///other.db"}},
        {"x": 1},
        {"<<": {"url": "sqlite:///other.db"}},
    ],
    ids=[
        "another scheme", "an unknown field", "a list", "a variable without value", "a synonym", "a misspelt name",
        "indented too deep", "in a probe", "in a probe that is not validated", "a short name", "another name",
        "an unknown section", "a merge key",
    ],
)  # fmt: skip
def test_without_a_valid_section_storage_every_problem_is_listed(
    harness: StoreHarness, write: Write, sections: dict[str, object]
) -> None:
    write(**sections)
    ran = invoke_command("status")
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr == invoke_command("validate").stderr + f"watchdog: {DATABASE_UNKNOWN_ADVICE}\n"
    assert "only its database is used" not in ran.stderr


def test_a_file_that_is_not_yaml_names_no_database(harness: StoreHarness, tmp_path: Path) -> None:
    (tmp_path / "watchdog.yaml").write_text("storage: {url: 'sqlite:///watchdog.db'\nprobes: [")
    ran = invoke_command("status")
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr == invoke_command("validate").stderr + f"watchdog: {DATABASE_UNKNOWN_ADVICE}\n"


def test_before_the_first_start_every_problem_is_listed(write: Write) -> None:
    write(probes=[{"name": "API", "http": "http://127.0.0.1:1/", "evry": "1m"}])
    ran = invoke_command("status")
    assert (ran.exit_code, ran.stdout, ran.stderr) == (2, "", invoke_command("validate").stderr)


def test_the_password_of_the_database_is_masked_also_if_the_configuration_is_invalid(write: Write) -> None:
    url = "postgresql://ops:s3cr3t-Pl4nted@127.0.0.1:1/watchdog?password=s3cr3t-Pl4nted"
    write(storage={"url": url}, probes=[{"name": "API"}])
    ran = invoke_command("status")
    assert (ran.exit_code, ran.stdout) == (3, "")
    notice, error = ran.stderr.splitlines()
    assert notice.startswith("watchdog: the configuration cannot be loaded here: watchdog.yaml:1:")
    assert error.startswith("watchdog: cannot use the database: ")
    assert "s3cr3t" not in ran.stderr


@pytest.mark.parametrize(
    ("receivers", "notice"),
    [
        ({"a": "${NO_A}"}, "variable NO_A is not set in this shell; "),
        ({"a": "${NO_A}", "b": "${NO_B}", "c": "${NO_A}"}, "variables NO_A, NO_B are not set in this shell; "),
        ({"a": "${NO_A}", "b": "ftp://x"}, "the configuration cannot be loaded here: watchdog.yaml:1:"),
    ],
)
def test_a_variable_of_the_service_need_not_be_set(
    harness: StoreHarness, write: Write, receivers: dict[str, str], notice: str
) -> None:
    write(receivers={name: {"webhook": {"url": url}} for name, url in receivers.items()})
    ran = invoke_command("silences")
    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (0, "no silences\n", 1)
    assert ran.stderr.startswith(f"watchdog: {notice}")
    assert "only" in ran.stderr
