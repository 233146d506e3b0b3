"""A configuration that notifies no one: `validate`, the log at the start, the pages and the incident state it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.command_line import invoke_command
from tests.support.html_checks import visible_text
from tests.support.polling import wait_until
from tests.support.watchdog_process import run_watchdog

CASE = Path(__file__).with_name("routes_to_no_one.yaml")


def test_validate_names_the_probes_without_a_route_and_the_route_without_a_probe() -> None:
    ran = invoke_command("validate", "-c", CASE)
    lines = ran.stdout.replace("\N{NO-BREAK SPACE}", " ").splitlines()
    assert ran.exit_code == 0
    assert lines[0] == "ok: 3 probes, 1 receiver, 3 warnings"
    assert [line.removeprefix(f"warning: {CASE}:").partition(" ")[0] for line in lines[1:]] == [
        "5:12:", "6:12:", "10:21:"
    ]  # fmt: skip
    assert "no route matches probe 'B', so no one is notified" in lines[1]
    assert "no route matches probe 'C', so no one is notified" in lines[2]
    assert "this route matches no probe: no probe has the group 'Nope'" in lines[3]


SOON = {"every": "1s", "timeout": "1s", "alert": {"failure_threshold": 1}}


def test_the_log_the_pages_and_the_incident_state_it(tmp_path: Path) -> None:
    config = {
        "server": {"listen": "127.0.0.1:0"},
        "storage": {"url": f"sqlite:///{tmp_path / 'wd.db'}"},
        "probes": [
            {"name": "A", "tags": ["prod"], "http": "http://127.0.0.1:9/", **SOON},
            {"name": "B", "tags": ["Prod"], "http": "http://127.0.0.1:9/", **SOON},
        ],
        "receivers": {"oncall": {"log": {}}},
        "routes": [{"match": {"tags": ["prod"]}, "receivers": ["oncall"]}],
    }
    (tmp_path / "watchdog.yaml").write_text(json.dumps(config))
    with run_watchdog(tmp_path / "watchdog.yaml") as watchdog:
        wait_until(lambda: sum(entry["event"] == "incident_opened" for entry in watchdog.log_entries) == 2)
        log = watchdog.log_entries
        page = visible_text(watchdog.get("probes").text)
    (warning,) = (entry for entry in log if entry["event"] == "config_warning")
    assert (warning["level"], warning["field"]) == ("warning", "probes.1.name")
    assert warning["location"].startswith(f"{tmp_path / 'watchdog.yaml'}:1:")
    assert "no route matches probe 'B'" in warning["detail"]
    assert "1 configuration warning" in page
    assert "no route matches probe 'B'" in page
    (incident,) = (entry for entry in log if entry["event"] == "incident_notifies_no_one")
    assert (incident["level"], incident["probe_id"], incident["rule"]) == ("warning", "b", "availability")
    assert incident["routing"] == ["route 1 does not match: no tag prod", "no route matches: no one is notified"]
