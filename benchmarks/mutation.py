"""Do the tests of the pure code notice a fault? Each mutant is the code with one small fault.

`python -m benchmarks.mutation` creates all mutants of the modules in MUTATED_PATHS, in a copy of the tree, and runs the
tests of the domain against each; about 15 minutes. It exits with 1 if more than 3 % of a group's mutants survive, or if
the survivors are not exactly those that mutation_survivors.json lists, each with its reason.
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

from benchmarks.measurements import Measurement

PROJECT_ROOT = Path(__file__).parents[1]
EXPECTED_SURVIVORS_FILE = PROJECT_ROOT / "tests/benchmarks/mutation_survivors.json"
MAX_SURVIVORS_PERCENT = 3.0
MUTATED_PATHS = {
    "rules": "watchdog/domain/rules/",
    "job": "watchdog/domain/rules/job.py",
    "queue": "watchdog/domain/rules/queue.py",
    "canary": "watchdog/domain/rules/canary.py",
    "routing": "watchdog/domain/routing.py",
    "schedule": "watchdog/domain/schedule.py",
    "heartbeat": "watchdog/domain/heartbeat.py",
    "uptime": "watchdog/domain/uptime_clock.py",
    "network": "watchdog/domain/own_network.py",
    "cause": "watchdog/domain/shared_cause.py",
    "pace": "watchdog/domain/delivery_pace.py",
    "membership": "watchdog/domain/membership.py",
}
"""Group -> what it mutates. A file that has its own group belongs to no other."""
TEST_PATHS = [
    "tests/domain/rules",
    *(f"tests/domain/{file.name}" for file in sorted((PROJECT_ROOT / "tests/domain").glob("test_schedule_*.py"))),
    *(
        f"tests/domain/test_{name}.py"
        for name in (
            "delivery_pace",
            "heartbeat",
            "membership",
            "own_network",
            "routing",
            "shared_cause",
            "uptime_clock",
        )
    ),
]
DETECTED_STATUSES = frozenset({"killed", "timeout"})
"""A mutant that never ends is noticed, because the tests never end."""


class Mutant(NamedTuple):
    name: str
    status: str
    """As mutmut reports it: killed, timeout, survived, no tests, ..."""

    @property
    def function(self) -> str:
        """The mutated function, such as "watchdog.domain.uptime_clock.UptimeClock.at"."""
        module, _, mangled = self.name.rpartition(".")
        mangled = re.sub(r"__mutmut_\d+$", "", mangled)
        inner = mangled.split("ǁ")[1:] if mangled.startswith("xǁ") else [mangled.removeprefix("x_")]
        return ".".join([module, *inner])

    @property
    def group(self) -> str:
        file = re.split(r"\.xǁ|\.x_", self.name)[0].replace(".", "/") + ".py"
        return max(
            (group for group, path in MUTATED_PATHS.items() if file.startswith(path)),
            key=lambda group: len(MUTATED_PATHS[group]),
        )


class Survivor(NamedTuple):
    function: str
    diff: tuple[str, ...]
    """The removed and the added lines, "- a" and "+ b", without their indentation."""


def load_expected_survivors(file: Path) -> dict[Survivor, str]:
    """Survivor -> why no test can notice it."""
    entries = json.loads(file.read_text(encoding="utf-8"))
    return {Survivor(entry["function"], tuple(entry["diff"])): entry["reason"] for entry in entries}


def find_problems(
    mutants: Iterable[Mutant], survivors: Iterable[Survivor], expected: Mapping[Survivor, str]
) -> list[str]:
    """The problems of a run, as lines of text."""
    mutants, survivors = list(mutants), set(survivors)
    problems = []
    for group in MUTATED_PATHS:
        statuses = [mutant.status for mutant in mutants if mutant.group == group]
        survived = sum(status not in DETECTED_STATUSES for status in statuses)
        if not statuses:
            problems.append(f"{group}: nothing was mutated")
        elif 100 * survived > MAX_SURVIVORS_PERCENT * len(statuses):
            problems.append(f"{group}: {survived} of {len(statuses)} mutants survive, over {MAX_SURVIVORS_PERCENT:g} %")
    for title, entries in (
        ("unlisted survivor", survivors - expected.keys()),
        ("stale entry", expected.keys() - survivors),
    ):
        problems += ["\n    ".join([f"{title}: {entry.function}", *entry.diff]) for entry in sorted(entries)]
    return problems + [f"no reason: {entry.function}" for entry, reason in expected.items() if not reason.strip()]


def format_table(mutants: Iterable[Mutant]) -> str:
    mutants = list(mutants)
    lines = [f"{'group':10}{'mutants':>9}{'killed':>9}{'timeout':>9}{'survived':>10}{'%':>7}{'limit':>7}"]
    for group in MUTATED_PATHS:
        statuses = [mutant.status for mutant in mutants if mutant.group == group]
        killed, timeout, count = statuses.count("killed"), statuses.count("timeout"), len(statuses)
        survived = count - killed - timeout
        percent = 100 * survived / max(count, 1)
        lines.append(f"{group:10}{count:9}{killed:9}{timeout:9}{survived:10}{percent:7.2f}{MAX_SURVIVORS_PERCENT:7.2f}")
    return "\n".join(lines)


def copy_tree(target: Path) -> None:
    """Copy what the run needs, and add mutmut's settings: mutmut writes beside what it mutates."""
    for part in ("watchdog", "tests/support", *TEST_PATHS):
        if (PROJECT_ROOT / part).is_dir():
            shutil.copytree(PROJECT_ROOT / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (target / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT_ROOT / part, target / part)
    paths = list(MUTATED_PATHS.values())
    settings = {
        "source_paths": [path for path in paths if not any(path.startswith(p) for p in paths if p != path)],
        "also_copy": ["watchdog/", "tests/"],
        "pytest_add_cli_args_test_selection": TEST_PATHS,
    }
    project = (PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    (target / "pyproject.toml").write_text("\n".join([project, "[tool.mutmut]", *lines, ""]), encoding="utf-8")


def run_mutmut(tree: Path, *arguments: str) -> str:
    """CI=true makes the property tests use the same examples for every mutant, so that a run is repeatable."""
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
    listed = re.findall(r"^\s+(\S+): (.+)$", run_mutmut(tree, "results", "--all", "true"), re.MULTILINE)
    mutants = [Mutant(name, status) for name, status in listed]
    survived = [
        Survivor(mutant.function, changed_lines(run_mutmut(tree, "show", mutant.name)))
        for mutant in mutants
        if mutant.status not in DETECTED_STATUSES
    ]
    return mutants, survived


def changed_lines(diff: str) -> tuple[str, ...]:
    return tuple(f"{sign} {line.strip()}" for sign, line in re.findall(r"^([-+])(?!--|\+\+)(.*)$", diff, re.MULTILINE))


def prove() -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory(prefix="watchdog-mutation-") as folder:
        copy_tree(Path(folder))
        mutants, survived = run_mutants(Path(folder))
    print(format_table(mutants))
    problems = find_problems(mutants, survived, load_expected_survivors(EXPECTED_SURVIVORS_FILE))
    print(*problems, sep="\n")
    yield Measurement("mutants", len(mutants))
    yield Measurement("unlisted survivors, stale entries, groups over 3 %", len(problems), "", 0)


def main() -> int:
    return 0 if all(measurement.within_limit for measurement in prove()) else 1


if __name__ == "__main__":
    sys.exit(main())
