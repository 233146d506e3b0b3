"""What the mutation run makes of what it finds, and that the survivors that are listed still fit the code."""

from __future__ import annotations

import inspect
from pkgutil import resolve_name

import pytest

from benchmarks.mutation import (
    EXPECTED_SURVIVORS_FILE,
    Mutant,
    Survivor,
    changed_lines,
    find_problems,
    format_table,
    load_expected_survivors,
)

MODULES = ("rules", "alerts", "beat", "probes.punctual")
HEALTHY = [Mutant(f"watchdog.{module}.x_f__mutmut_{n}", "killed") for module in MODULES for n in range(100)]
HEALTHY += [Mutant(f"watchdog.schedule.xǁCronǁafter__mutmut_{n}", "timeout") for n in range(100)]
ONE = Survivor("watchdog.domain.rules.engine.apply_finding", ("- if a:", "+ if not a:"))


def with_alive(n: int, status: str = "survived") -> list[Mutant]:
    return [Mutant(f"watchdog.rules.engine.x_turn__mutmut_{i}", status) for i in range(n)] + HEALTHY[n:]


@pytest.mark.parametrize(
    ("sentence", "mutants", "survived", "listed", "found"),
    [
        ("everything noticed is well", HEALTHY, [], {}, []),
        ("a survivor that is listed with its reason is well", with_alive(1), [ONE], {ONE: "the same"}, []),
        ("one that is not listed is not", with_alive(1), [ONE], {},
         ["unlisted survivor: watchdog.rules.engine.turn\n    - if a:\n    + if not a:"]),
        ("one with another difference is another one", with_alive(1), [ONE], {ONE._replace(diff=("- b", "+ c")): "x"},
         ["unlisted survivor: watchdog.rules.engine.turn\n    - if a:\n    + if not a:",
          "stale entry: watchdog.rules.engine.turn\n    - b\n    + c"]),
        ("an entry that survives no more is stale", HEALTHY, [], {ONE: "the same"},
         ["stale entry: watchdog.rules.engine.turn\n    - if a:\n    + if not a:"]),
        ("an entry needs its reason", with_alive(1), [ONE], {ONE: " "}, ["no reason: watchdog.rules.engine.turn"]),
        ("three in a hundred are within the bound", with_alive(3), [ONE], {ONE: "the same"}, []),
        ("four are over it, listed or not", with_alive(4), [ONE], {ONE: "the same"},
         ["rules: 4 of 100 mutants survive, over 3%"]),
        ("what no test reaches survives", with_alive(4, "no tests"), [ONE], {ONE: "the same"},
         ["rules: 4 of 100 mutants survive, over 3%"]),
        ("a room without mutants proves nothing", HEALTHY[:400], [], {}, ["schedule: nothing was mutated"]),
    ],
)  # fmt: skip
def test_complaints(
    sentence: str, mutants: list[Mutant], survived: list[Survivor], listed: dict[Survivor, str], found: list[str]
) -> None:
    assert find_problems(mutants, survived, listed) == found, sentence


def test_the_table() -> None:
    assert format_table(with_alive(3)).splitlines() == [
        "room        mutants   killed  timeout  survived      %  bound",
        "rules           100       97        0         3   3.00   3.00",
        "alerts          100      100        0         0   0.00   3.00",
        "schedule        100        0      100         0   0.00   3.00",
        "beat            100      100        0         0   0.00   3.00",
        "punctual        100      100        0         0   0.00   3.00",
    ]


@pytest.mark.parametrize(
    ("mangled", "function", "room"),
    [
        ("watchdog.domain.rules.engine.x_turn__mutmut_12", "watchdog.domain.rules.engine.apply_finding", "rules"),
        ("watchdog.domain.schedule.x__fault__mutmut_1", "watchdog.domain.schedule._describe_cron_error", "schedule"),
        ("watchdog.probes.job_rules.x_judge__mutmut_3", "watchdog.probes.job_rules.evaluate_job_facts", "punctual"),
        (
            "watchdog.domain.uptime_clock.xǁAliveTimeǁ__init____mutmut_16",
            "watchdog.domain.uptime_clock.UptimeClock.__init__",
            "rules",
        ),
    ],
)
def test_names(mangled: str, function: str, room: str) -> None:
    mutant = Mutant(mangled, "killed")
    assert (mutant.function, mutant.path_group) == (function, room)


def test_a_difference_is_its_lines_without_headers_and_indentation() -> None:
    headers = "# x: survived\n--- watchdog/x.py\n+++ watchdog/x.py\n@@ -1,3 +1,3 @@\n"
    diff = f"{headers} def f():\n-    a = 1\n+    a = 2\n     b\n"
    assert changed_lines(diff) == ("- a = 1", "+ a = 2")


@pytest.mark.parametrize(
    "survivor", load_expected_survivors(EXPECTED_SURVIVORS_FILE), ids=lambda survivor: survivor.function
)
def test_a_listed_survivor_still_fits_the_code(survivor: Survivor) -> None:
    """Found in a second, not only by the next mutation run."""
    source = inspect.getsource(resolve_name(survivor.function))
    removed = [line.removeprefix("- ") for line in survivor.diff if line.startswith("-")]
    assert removed
    assert all(line in source for line in removed)
