"""Do the tests of the pure rooms notice when the code is wrong? Each mutant is the code with one small fault.

`python -m benchmarks.mutation` runs them all over watchdog/rules, watchdog/alerts and what judges jobs, in a copy of
the tree, against the tests of these rooms alone; a quarter of an hour. It exits with 1 when more than 3% of a room's
mutants survive, or when the survivors are not exactly those that tests/mutation_survivors.json lists, each with its
reason.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.table import Measurement

PROJECT_ROOT = Path(__file__).parents[1]
EXPECTED_SURVIVORS_FILE = PROJECT_ROOT / "tests/mutation_survivors.json"
MAX_SURVIVORS_PERCENT = 3.0
"""Percent of a room's mutants."""
MUTATED_PATHS = {
    "rules": "watchdog/rules/",
    "alerts": "watchdog/alerts/",
    "schedule": "watchdog/schedule.py",
    "beat": "watchdog/beat.py",
    "punctual": "watchdog/probes/punctual.py",
}
TEST_PATHS = [
    *(f"tests/{room}" for room in ("rules", "alerts", "schedule", "beat")),
    "tests/probes/test_punctual.py",
    "tests/overdue/test_stories.py",
]
DETECTED_STATUSES = frozenset({"killed", "timeout"})
"""A mutant that never ends is noticed: the tests never end with it."""


class Mutant(NamedTuple):
    name: str
    status: str
    """As mutmut says it: killed, timeout, survived, no tests, ..."""

    @property
    def function(self) -> str:
        """ "watchdog.rules.alive.AliveTime.at"."""
        module, _, mangled = self.name.rpartition(".")
        mangled = re.sub(r"__mutmut_\d+$", "", mangled)
        inner = mangled.split("ǁ")[1:] if mangled.startswith("xǁ") else [mangled.removeprefix("x_")]
        return ".".join([module, *inner])

    @property
    def path_group(self) -> str:
        return next(part for part in self.name.split(".") if part in MUTATED_PATHS)


class Survivor(NamedTuple):
    function: str
    diff: tuple[str, ...]
    """The lines taken away and put in, "- a" and "+ b", without their indentation."""


def load_expected_survivors(file: Path) -> dict[Survivor, str]:
    """Survivor -> why it is none that a test could notice."""
    entries = json.loads(file.read_text(encoding="utf-8"))
    return {Survivor(entry["function"], tuple(entry["diff"])): entry["reason"] for entry in entries}


def find_problems(
    mutants: Iterable[Mutant], survivors: Iterable[Survivor], expected: Mapping[Survivor, str]
) -> list[str]:
    """What is wrong with a run, in words."""
    mutants, survivors = list(mutants), set(survivors)
    found = []
    for room in MUTATED_PATHS:
        of_room = [mutant for mutant in mutants if mutant.path_group == room]
        alive = sum(mutant.status not in DETECTED_STATUSES for mutant in of_room)
        if not of_room:
            found.append(f"{room}: nothing was mutated")
        elif 100 * alive > MAX_SURVIVORS_PERCENT * len(of_room):
            found.append(f"{room}: {alive} of {len(of_room)} mutants survive, over {MAX_SURVIVORS_PERCENT:g}%")
    for title, which in (
        ("unlisted survivor", survivors - expected.keys()),
        ("stale entry", expected.keys() - survivors),
    ):
        found += ["\n    ".join([f"{title}: {one.function}", *one.diff]) for one in sorted(which)]
    return found + [f"no reason: {one.function}" for one, reason in expected.items() if not reason.strip()]


def format_table(mutants: Iterable[Mutant]) -> str:
    mutants = list(mutants)
    lines = [f"{'room':10}{'mutants':>9}{'killed':>9}{'timeout':>9}{'survived':>10}{'%':>7}{'bound':>7}"]
    for room in MUTATED_PATHS:
        statuses = [mutant.status for mutant in mutants if mutant.path_group == room]
        killed, timeout, n = statuses.count("killed"), statuses.count("timeout"), len(statuses)
        alive = n - killed - timeout
        lines.append(
            f"{room:10}{n:9}{killed:9}{timeout:9}{alive:10}{100 * alive / max(n, 1):7.2f}{MAX_SURVIVORS_PERCENT:7.2f}"
        )
    return "\n".join(lines)


def copy_tree(target: Path) -> None:
    """What the run needs, with mutmut's settings: it writes beside what it mutates."""
    for part in ("watchdog", *TEST_PATHS):
        if (PROJECT_ROOT / part).is_dir():
            shutil.copytree(PROJECT_ROOT / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (target / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT_ROOT / part, target / part)
    settings = {
        "source_paths": list(MUTATED_PATHS.values()),
        "also_copy": ["watchdog/"],
        "pytest_add_cli_args_test_selection": TEST_PATHS,
    }
    project = (PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    (target / "pyproject.toml").write_text("\n".join([project, "[tool.mutmut]", *lines, ""]), encoding="utf-8")


def run_mutmut(tree: Path, *arguments: str) -> str:
    """The property tests draw the same examples for every mutant (CI=true), so that a run can be repeated."""
    environment = {**os.environ, "CI": "true", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "mutmut", *arguments]
    ran = subprocess.run(
        command, cwd=tree, env=environment, check=False, capture_output=True, text=True, encoding="utf-8"
    )
    if ran.returncode:
        raise SystemExit(f"mutmut {' '.join(arguments)} failed:\n{ran.stdout[-4000:]}\n{ran.stderr[-4000:]}")
    return ran.stdout


def run_mutants(tree: Path) -> tuple[list[Mutant], list[Survivor]]:
    run_mutmut(tree, "run")
    told = re.findall(r"^\s+(\S+): (.+)$", run_mutmut(tree, "results", "--all", "true"), re.MULTILINE)
    mutants = [Mutant(name, status) for name, status in told]
    survived = [
        Survivor(mutant.function, changed_lines(run_mutmut(tree, "show", mutant.name)))
        for mutant in mutants
        if mutant.status not in DETECTED_STATUSES
    ]
    return mutants, survived


def changed_lines(diff: str) -> tuple[str, ...]:
    return tuple(f"{sign} {line.strip()}" for sign, line in re.findall(r"^([-+])(?!--|\+\+)(.*)$", diff, re.MULTILINE))


def prove() -> Iterator[Measurement]:
    """Complaints, printed, name what is not listed, stale, or without a reason."""
    with tempfile.TemporaryDirectory(prefix="watchdog-mutation-") as folder:
        copy_tree(Path(folder))
        mutants, survived = run_mutants(Path(folder))
    print(format_table(mutants))
    found = find_problems(mutants, survived, load_expected_survivors(EXPECTED_SURVIVORS_FILE))
    print(*found, sep="\n")
    yield Measurement("mutants", len(mutants))
    yield Measurement("survivors not listed, entries stale, rooms over 3 %", len(found), "", 0)


def main() -> int:
    return 0 if all(figure.within_bound for figure in prove()) else 1


if __name__ == "__main__":
    sys.exit(main())
