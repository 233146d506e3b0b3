"""The stylesheet defines exactly the classes that pages use."""

from __future__ import annotations

import re
from pathlib import Path

from watchdog.domain.model import HealthState
from watchdog.resources import find_resource_folder

PAGES = find_resource_folder("templates") / "pages"
CODE = Path(__file__).parents[2] / "watchdog" / "web"
MADE_UP = {f"is-{state.value}" for state in HealthState} | {"is-maint"} | {f"ph{n}" for n in range(1, 6)}
"""Classes whose names are composed."""


def styled() -> set[str]:
    css = re.sub(r"/\*.*?\*/|url\(.*?\)", "", (PAGES / "watchdog.css").read_text(), flags=re.DOTALL)
    selectors = re.findall(r"([^{};]+)\{", css)
    return {name for selector in selectors for name in re.findall(r"\.([a-zA-Z][\w-]*)", selector)}


def sources() -> str:
    return "".join(path.read_text() for path in [*PAGES.rglob("*.j2"), *CODE.rglob("*.py")])


def test_every_styled_class_is_used() -> None:
    assert styled() - set(re.findall(r"[\w-]+", sources())) - MADE_UP == set()


def test_every_used_class_is_styled() -> None:
    literal = re.findall(r'class="([^"{%]*)[^"]*"', sources())
    assert {name for names in literal for name in names.split()} - styled() - {"is-", "ph"} == set()


def test_every_variable_is_defined() -> None:
    css = (PAGES / "watchdog.css").read_text()
    defined = set(re.findall(r"(--[\w-]+):", css))
    assert set(re.findall(r"var\((--[\w-]+)", css)) == defined
