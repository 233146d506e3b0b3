"""What is stored or sent states instants: "10 s ago" would be wrong as soon as it is read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "watchdog"
STORED_TEXTS = ("domain", "net", "queues", "probes", "remediations", "notifiers", "service", "store")
"""The packages whose texts end up in results, incidents and messages."""
RELATIVE_TIME = re.compile(r"\bago\b|\bjust now\b|\bcurrently\b")
PAGE_HELPERS = ("domain/formatting.py",)
"""What renders a time when a page is shown."""


def relative_texts(source: str) -> Iterator[str]:
    """The string constants of a module that name a time relative to now, without docstrings."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings)
    texts = (node.value for node in constants if isinstance(node.value, str))
    yield from (text for text in texts if RELATIVE_TIME.search(text))


@pytest.mark.parametrize("package", STORED_TEXTS)
def test_no_stored_text_is_relative_to_the_present(package: str) -> None:
    texts_by_file = {
        str(path.relative_to(PACKAGE)): texts
        for path in sorted((PACKAGE / package).rglob("*.py"))
        if str(path.relative_to(PACKAGE)) not in PAGE_HELPERS and (texts := list(relative_texts(path.read_text())))
    }
    assert texts_by_file == {}


def test_a_relative_text_is_found() -> None:
    assert list(relative_texts('"""Long ago."""\nx = f"the heartbeat was {age} ago"\n')) == [" ago"]
