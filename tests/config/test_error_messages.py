"""Error messages: every configuration in bad/ beside the exact lines that it is rejected with.

`# instead: "a" => "b"` at the top of a file is a correction: with it, the file loads.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from tests.support.regen import BAD_CONFIG_ENV, BAD_CONFIG_FOLDER, PLANTED_SECRET, SHORT_SECRET, bad_config_error
from watchdog.config.load import load_config
from watchdog.config.schema import build_config_json_schema
from watchdog.config.yaml_tree import parse_yaml_with_problems
from watchdog.domain.model import Json

FILES = sorted(BAD_CONFIG_FOLDER.glob("*.yaml"))
CORRECTION = re.compile(r'^# instead: (".*") => (".*")$', re.MULTILINE)
SCHEMA = jsonschema.Draft202012Validator(build_config_json_schema())


def file_name(file: Path) -> str:
    return file.stem


def content(text: str) -> Json:
    """As an editor sees it: variables are text."""
    root, _ = parse_yaml_with_problems(text, "", {})
    assert root is not None
    return root.to_python(raw=True)


@pytest.mark.parametrize("file", FILES, ids=file_name)
def test_every_problem_is_one_clear_line(file: Path) -> None:
    assert str(bad_config_error(file)) + "\n" == file.with_suffix(".txt").read_text(), "run ./dev regen"


@pytest.mark.parametrize("file", FILES, ids=file_name)
def test_no_secret_is_shown(file: Path) -> None:
    assert "${PLANTED}" in file.read_text()
    error = bad_config_error(file)
    output = repr([str(error), repr(error), error.problems, error.args])
    assert PLANTED_SECRET not in output
    assert SHORT_SECRET not in output


@pytest.mark.parametrize("file", [file for file in FILES if CORRECTION.search(file.read_text())], ids=file_name)
def test_the_corrected_file_loads(file: Path) -> None:
    text = file.read_text()
    body = CORRECTION.sub("", text)
    for invalid, corrected in CORRECTION.findall(text):
        assert json.loads(invalid) in body
        body = body.replace(json.loads(invalid), json.loads(corrected))
    load_config(file, body, BAD_CONFIG_ENV)
    SCHEMA.validate(content(body))


INVALID_FOR_EDITORS = re.compile(
    r"(field|section|kind|duration|number|severity|method|version)-|(text|list)-for-|probe-(of|is)-"
)


@pytest.mark.parametrize("file", [file for file in FILES if INVALID_FOR_EDITORS.match(file.stem)], ids=file_name)
def test_an_editor_marks_an_invalid_form(file: Path) -> None:
    assert not SCHEMA.is_valid(content(file.read_text()))


def test_every_file_has_its_messages() -> None:
    assert len(FILES) >= 50
    assert {file.stem for file in BAD_CONFIG_FOLDER.glob("*.txt")} == {file.stem for file in FILES}
