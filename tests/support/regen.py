"""Rebuilds every file that is generated from the code: `./dev regen`.

These are docs/configuration.md, docs/reasons.md, the table of rules in docs/architecture.md and, for every
tests/config/bad/*.yaml, a .txt with its error messages.
Review the diff afterwards: tests compare the files with what the code generates. The screenshot docs/img/status.png is
not among them, as it differs by machine: tests/support/screenshots.py takes it.
"""

from __future__ import annotations

import inspect
import os
import re
from contextlib import chdir
from pathlib import Path
from types import ModuleType

from watchdog.config.load import load_config
from watchdog.config.problems import ConfigError
from watchdog.config.reference import render_config_reference
from watchdog.domain.reasons.reference import render_reason_reference_page
from watchdog.domain.rules import stale
from watchdog.domain.rules.engine import RESULT_RULE_MODULES

ROOT = Path(__file__).parents[2]
REFERENCE_FILE = ROOT / "docs/configuration.md"
REASONS_FILE = ROOT / "docs/reasons.md"
ARCHITECTURE_FILE = ROOT / "docs/architecture.md"
BAD_CONFIG_FOLDER = ROOT / "tests/config/bad"
PLANTED_SECRET, SHORT_SECRET = "s3cr3t-Pl4nted/value", "471"
BAD_CONFIG_ENV = {"PLANTED": PLANTED_SECRET, "PIN": SHORT_SECRET, "NUMBER": "3", "EMPTY": ""}


def bad_config_error(file: Path) -> ConfigError:
    """The error that a file in tests/config/bad causes. Paths in its messages are relative to that folder."""
    with chdir(BAD_CONFIG_FOLDER):
        try:
            load_config(Path(file.name), env=BAD_CONFIG_ENV)
        except ConfigError as error:
            return error
    raise AssertionError(f"{file} loads")


def render_architecture_page() -> str:
    """The page with a current table of rules. A rule is described by the first sentence of its module's docstring."""
    rows = [
        f"| `{rule.ALERT_RULE_NAME}` | {_first_sentence(rule)} | {rule.ALERT_RULE_INCIDENT_HEALTH_STATE.value} |"
        for rule in (*RESULT_RULE_MODULES, stale)
    ]
    page = ARCHITECTURE_FILE.read_text(encoding="utf-8")
    before, header, after = re.split(r"(^\| rule \| requires .*\n\|---.*\n)", page, maxsplit=1, flags=re.MULTILINE)
    return "".join([before, header, "\n".join(rows), "\n\n", after.partition("\n\n")[2]])


def _first_sentence(rule: ModuleType) -> str:
    text = inspect.cleandoc(rule.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=\.)\s", text.removeprefix(f"{rule.ALERT_RULE_NAME}: "))[0].rstrip(".")


def regenerate() -> list[Path]:
    """Write all generated files. Returns those that changed."""
    contents = {
        REFERENCE_FILE: render_config_reference(),
        REASONS_FILE: render_reason_reference_page(),
        ARCHITECTURE_FILE: render_architecture_page(),
    }
    for file in sorted(BAD_CONFIG_FOLDER.glob("*.yaml")):
        contents[file.with_suffix(".txt")] = f"{bad_config_error(file)}\n"
    changed = [file for file, content in contents.items() if not file.exists() or file.read_text() != content]
    for file in changed:
        file.write_text(contents[file])
    return changed


if __name__ == "__main__":
    for changed_file in regenerate():
        print(os.path.relpath(changed_file, ROOT))
