"""`watchdog contracts` and `watchdog contracts accept`."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command_line import invoke_command
from tests.support.contracts import (
    REMOVED,
    SAMPLE_CONTRACT,
    build_stored_contract,
    change_contract,
    make_registered_mcp_probe,
    store_contract,
)
from tests.support.store import StoreHarness
from watchdog.resources import find_resource_folder
from watchdog.service.clock import read_wall_clock_ms
from watchdog.store.act_tables import acts
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema

USER = pwd.getpwuid(os.getuid()).pw_name
CHANGED = change_contract("tools/fetch", REMOVED, change_contract("tools/search/title", "[b]Find"))
MANY = SAMPLE_CONTRACT._replace(tools={**SAMPLE_CONTRACT.tools, **{f"tool{i}": {} for i in range(101)}})


@pytest.fixture
def harness(write: Callable[..., Path]) -> Iterator[StoreHarness]:
    write()
    database = Database("sqlite:///watchdog.db")
    upgrade_schema(database, find_resource_folder("migrations"))
    probes = [make_registered_mcp_probe("api"), make_registered_mcp_probe("shop")]
    with StoreHarness(database, probes, now=read_wall_clock_ms(), create_schema=False) as made:
        yield made
        database.close()


def store(harness: StoreHarness, probe: str, changed: object = None) -> None:
    stored = build_stored_contract(changed, accepted_at=1_795_000_000_000)  # type: ignore[arg-type] # of this module
    store_contract(harness.database, harness.database_id(probe), stored)


def test_changes_are_listed_with_their_class(harness: StoreHarness) -> None:
    ran = invoke_command("contracts")
    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, "no contracts\n", "")
    store(harness, "shop")
    ran = invoke_command("contracts")
    assert ran.exit_code == 0
    heading, line = ran.stdout.splitlines()
    assert heading.split() == ["probe", "status", "change", "before", "after"]
    assert line.split("  ")[0] == "Shop"
    assert "as accepted" in line
    assert "accepted at 18\N{NO-BREAK SPACE}Nov 11:06" in line
    store(harness, "api", CHANGED)
    ran = invoke_command("contracts")
    assert ran.exit_code == 1
    _, removed, retitled, _ = ran.stdout.splitlines()
    assert removed.split() == ["Api", "changed", "breaking:", "tool", "fetch", "was", "removed"]
    assert retitled.split()[2:] == ["notice:", "tool", "search", "has", "another", "title", "Search", "[b]Find"]
    assert len(invoke_command("contracts", "--probe", "shop").stdout.splitlines()) == 2
    assert invoke_command("contracts", "--probe", "shop").exit_code == 0
    ran = invoke_command("contracts", "--probe", "nothing")
    assert (ran.exit_code, ran.stdout) == (2, "")


def test_changes_as_json(harness: StoreHarness) -> None:
    store(harness, "api", CHANGED)
    ran = invoke_command("contracts", "-o", "json")
    (contract,) = ran.json
    assert (ran.exit_code, contract["probe"], contract["protocol"]) == (1, "api", "2026-07-28")
    assert contract["accepted"] == {"at": "2026-11-18T11:06:40.000Z", "by": "", "through": ""}
    assert contract["drift"]["digest"] == CHANGED.compute_digest()
    assert contract["drift"]["changes"][1] == {
        "effect": "notice",
        "is_certain": True,
        "part": "tools",
        "text": "tool search has another title",
        "before": "Search",
        "after": "[b]Find",
        "suspicion": "",
    }


def test_more_changes_than_are_listed_are_counted(harness: StoreHarness) -> None:
    store(harness, "api", MANY)
    lines = invoke_command("contracts").stdout.splitlines()
    assert (len(lines), lines[-1].split()) == (102, ["Api", "changed", "and", "1", "more"])


def test_a_contract_is_accepted_in_the_name_of_the_user(harness: StoreHarness) -> None:
    store(harness, "api", CHANGED)
    ran = invoke_command("contracts", "accept", "Api", "--comment", "announced")
    line = "Accepted, starting with the next run of Api: 2\N{NO-BREAK SPACE}changes"
    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, f"{line}\n", "")
    ran = invoke_command("contracts", "accept", "api")
    assert ran.stdout == f"{line} (by {USER} before)\n"
    answer = invoke_command("contracts", "accept", "api", "-o", "json", "--digest", CHANGED.compute_digest()).json
    assert (answer["probe"], answer["change_count"], answer["acceptance"]["by"]) == ("api", 2, USER)
    rows = [(row["kind"], row["author"], row["interface"], row["comment"]) for row in harness.select_rows(acts)]
    assert rows == [("accept_contract", USER, "cli", "2\N{NO-BREAK SPACE}changes: announced")]
    ran = invoke_command("contracts")
    assert (ran.exit_code, "accepted, from the next run on" in ran.stdout) == (0, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("shop", "Shop has no contract that could have changed"),
        ("apj", "no probe has the id or name apj; did you mean 'Api'? `watchdog status` lists them"),
        ("api --digest 123", "the contract of Api has changed again: read its changes once more"),
    ],
)
def test_what_is_refused(harness: StoreHarness, words: str, message: str) -> None:
    store(harness, "api", CHANGED)
    ran = invoke_command("contracts", "accept", *words.split())
    assert (ran.exit_code, ran.stdout, ran.stderr) == (2, "", f"watchdog: {message}\n")
