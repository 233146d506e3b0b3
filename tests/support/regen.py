"""Regenerates what is generated from the configuration models: `python -m tests.support.regen`.

Writes docs/configuration.md and, for every tests/config/bad/*.yaml, the .txt with the errors it is answered with. Read
the diff afterwards: tests compare the files with what the code generates.
"""

from __future__ import annotations

import os
from contextlib import chdir
from pathlib import Path

from watchdog.config.load import load_config
from watchdog.config.problems import ConfigError
from watchdog.config.reference import render_reference

ROOT = Path(__file__).parents[2]
REFERENCE_FILE = ROOT / "docs/configuration.md"
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


def regenerate() -> list[Path]:
    """Write all generated files. Returns those that changed."""
    contents = {REFERENCE_FILE: render_reference()}
    for file in sorted(BAD_CONFIG_FOLDER.glob("*.yaml")):
        contents[file.with_suffix(".txt")] = f"{bad_config_error(file)}\n"
    changed = [file for file, content in contents.items() if not file.exists() or file.read_text() != content]
    for file in changed:
        file.write_text(contents[file])
    return changed


if __name__ == "__main__":
    for changed_file in regenerate():
        print(os.path.relpath(changed_file, ROOT))
