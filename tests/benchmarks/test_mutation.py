"""The evaluation of a mutation run, and whether the listed survivors still match the code."""

from __future__ import annotations

import inspect
from pkgutil import resolve_name

import pytest

from benchmarks.mutation import (
    EXPECTED_SURVIVORS_FILE,
    MUTATED_PATHS,
    Mutant,
    Survivor,
    changed_lines,
    find_problems,
    format_table,
    load_expected_survivors,
)

MODULES = (
    "rules.engine", "rules.job", "rules.queue", "rules.canary", "routing", "heartbeat", "uptime_clock", "own_network",
    "shared_cause", "delivery_pace", "membership",
)  # fmt: skip
HEALTHY = [Mutant(f"watchdog.domain.{module}.x_f__mutmut_{n}", "killed") for module in MODULES for n in range(100)]
HEALTHY += [Mutant(f"watchdog.domain.schedule.xǁCronScheduleǁafter__mutmut_{n}", "timeout") for n in range(100)]
SURVIVOR = Survivor("watchdog.domain.rules.engine.advance_alert_state_in_place", ("- if a:", "+ if not a:"))
UNLISTED = "unlisted survivor: watchdog.domain.rules.engine.advance_alert_state_in_place\n    - if a:\n    + if not a:"


def with_survivors(n: int, status: str = "survived") -> list[Mutant]:
    mutants = [
        Mutant(f"watchdog.domain.rules.engine.x_advance_alert_state_in_place__mutmut_{i}", status) for i in range(n)
    ]
    return mutants + HEALTHY[n:]


@pytest.mark.parametrize(
    ("sentence", "mutants", "survived", "listed", "problems"),
    [
        ("all mutants are noticed", HEALTHY, [], {}, []),
        ("a survivor is listed with its reason", with_survivors(1), [SURVIVOR], {SURVIVOR: "the same"}, []),
        ("a survivor is not listed", with_survivors(1), [SURVIVOR], {}, [UNLISTED]),
        ("a survivor is listed with another difference", with_survivors(1), [SURVIVOR],
         {SURVIVOR._replace(diff=("- b", "+ c")): "x"},
         [UNLISTED, "stale entry: watchdog.domain.rules.engine.advance_alert_state_in_place\n    - b\n    + c"]),
        ("a listed mutant is noticed", HEALTHY, [], {SURVIVOR: "the same"},
         ["stale entry: watchdog.domain.rules.engine.advance_alert_state_in_place\n    - if a:\n    + if not a:"]),
        ("an entry has no reason", with_survivors(1), [SURVIVOR], {SURVIVOR: " "},
         ["no reason: watchdog.domain.rules.engine.advance_alert_state_in_place"]),
        ("three in a hundred survive", with_survivors(3), [SURVIVOR], {SURVIVOR: "the same"}, []),
        ("four in a hundred survive, listed or not", with_survivors(4), [SURVIVOR], {SURVIVOR: "the same"},
         ["rules: 4 of 100 mutants survive, over 3 %"]),
        ("no test runs a mutant", with_survivors(4, "no tests"), [SURVIVOR], {SURVIVOR: "the same"},
         ["rules: 4 of 100 mutants survive, over 3 %"]),
        ("a group has no mutants", HEALTHY[:1100], [], {}, ["schedule: nothing was mutated"]),
    ],
)  # fmt: skip
def test_problems(
    sentence: str, mutants: list[Mutant], survived: list[Survivor], listed: dict[Survivor, str], problems: list[str]
) -> None:
    assert find_problems(mutants, survived, listed) == problems, sentence


def test_the_table() -> None:
    lines = format_table(with_survivors(3)).splitlines()
    assert lines[:3] == [
        "group       mutants   killed  timeout  survived      %  limit",
        "rules           100       97        0         3   3.00   3.00",
        "job             100      100        0         0   0.00   3.00",
    ]
    assert lines[6] == "schedule        100        0      100         0   0.00   3.00"
    assert len(lines) == 1 + len(MUTATED_PATHS)


@pytest.mark.parametrize(
    ("name", "function", "group"),
    [
        (
            "domain.rules.engine.x_advance_alert_state_in_place__mutmut_12",
            "domain.rules.engine.advance_alert_state_in_place",
            "rules",
        ),
        ("domain.rules.job.x__judge__mutmut_3", "domain.rules.job._judge", "job"),
        ("domain.schedule.x__fault__mutmut_1", "domain.schedule._fault", "schedule"),
        ("domain.uptime_clock.xǁUptimeClockǁ__init____mutmut_16", "domain.uptime_clock.UptimeClock.__init__", "uptime"),
    ],
)
def test_names(name: str, function: str, group: str) -> None:
    mutant = Mutant(f"watchdog.{name}", "killed")
    assert (mutant.function, mutant.group) == (f"watchdog.{function}", group)


def test_a_difference_is_its_lines_without_headers_and_indentation() -> None:
    headers = "# x: survived\n--- watchdog/x.py\n+++ watchdog/x.py\n@@ -1,3 +1,3 @@\n"
    diff = f"{headers} def f():\n-    a = 1\n+    a = 2\n     b\n"
    assert changed_lines(diff) == ("- a = 1", "+ a = 2")


@pytest.mark.parametrize(
    "survivor", load_expected_survivors(EXPECTED_SURVIVORS_FILE), ids=lambda survivor: survivor.function
)
def test_a_listed_survivor_still_matches_the_code(survivor: Survivor) -> None:
    """This takes a second; the next mutation run takes minutes."""
    source = inspect.getsource(resolve_name(survivor.function))
    removed = [line.removeprefix("- ") for line in survivor.diff if line.startswith("-")]
    assert removed
    assert all(line in source for line in removed)
