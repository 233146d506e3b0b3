"""What a person reads who got a configuration wrong: every file in bad/ beside the exact lines it is answered with.

`# instead: "a" => "b"` at the top of a file says what would have been right: with that, the file loads.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import jsonschema
import pytest

from tests.support.regen import BAD_CONFIG_ENV, BAD_CONFIG_FOLDER, PLANTED_SECRET, SHORT_SECRET, bad_config_error
from watchdog.config.load import load_config
from watchdog.config.schema import json_schema
from watchdog.config.yaml_tree import parse_yaml
from watchdog.domain.model import Json

FILES = sorted(BAD_CONFIG_FOLDER.glob("*.yaml"))
RIGHT = re.compile(r'^# instead: (".*") => (".*")$', re.MULTILINE)
SCHEMA = jsonschema.Draft202012Validator(json_schema())


def named(file: Path) -> str:
    return file.stem


def content(text: str) -> Json:
    """As an editor sees it: variables are text."""
    root, _ = parse_yaml(text, "", {})
    assert root is not None
    return root.to_raw_python()


@pytest.mark.parametrize("file", FILES, ids=named)
def test_every_problem_is_one_clear_line(file: Path) -> None:
    assert str(bad_config_error(file)) + "\n" == file.with_suffix(".txt").read_text()


@pytest.mark.parametrize("file", FILES, ids=named)
def test_no_secret_is_shown(file: Path) -> None:
    assert "${PLANTED}" in file.read_text()
    error = bad_config_error(file)
    told = repr([str(error), repr(error), error.problems, error.args])
    assert PLANTED_SECRET not in told
    assert SHORT_SECRET not in told


@pytest.mark.parametrize("file", [file for file in FILES if RIGHT.search(file.read_text())], ids=named)
def test_the_corrected_file_loads(file: Path) -> None:
    text = file.read_text()
    body = RIGHT.sub("", text)
    for wrong, right in RIGHT.findall(text):
        assert json.loads(wrong) in body
        body = body.replace(json.loads(wrong), json.loads(right))
    load_config(file, body, BAD_CONFIG_ENV)
    SCHEMA.validate(content(body))


OF_FORM = re.compile(r"(field|section|kind|duration|number|severity|method|version)-|(text|list)-for-|probe-(of|is)-")


@pytest.mark.parametrize("file", [file for file in FILES if OF_FORM.match(file.stem)], ids=named)
def test_an_editor_shows_what_has_the_wrong_form(file: Path) -> None:
    assert not SCHEMA.is_valid(content(file.read_text()))


def test_refusing_takes_no_time() -> None:
    began = time.process_time()
    for file in FILES:
        bad_config_error(file)
    assert (time.process_time() - began) / len(FILES) < 0.1


def test_there_are_as_many_answers_as_files() -> None:
    assert len(FILES) >= 50
    assert {file.stem for file in BAD_CONFIG_FOLDER.glob("*.txt")} == {file.stem for file in FILES}
