"""Each field of two configurations, which have all of them, has an effect: the configuration without it is another."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.config.test_load import FLEET_ENV
from watchdog.config.load import LoadedConfig, load_config
from watchdog.config.problems import ConfigError

ROOT = Path(__file__).parents[2]
FULL, FURTHER = ROOT / "examples/full.yaml", ROOT / "tests/config/further_fields.yaml"
ENV = FLEET_ENV | {"PAGERDUTY_KEY": "0123456789abcdef0123456789abcdef", "APPRISE_URL": "json://acme.example/hook"}


class Yaml12Loader(yaml.SafeLoader):
    """`on` and `off` are text, as for Watchdog."""


Yaml12Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if first not in "yYnNoO" or tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
DOCUMENT: dict[str, Any] = yaml.load(FULL.read_text(encoding="utf-8"), Yaml12Loader)
FURTHER_DOCUMENT: dict[str, Any] = yaml.load(FURTHER.read_text(encoding="utf-8"), Yaml12Loader)
SECTIONS = [(document, name) for document in (DOCUMENT, FURTHER_DOCUMENT) for name in document]
NodePath = tuple[str | int, ...]
INVALID_VALUE = {"no field": ["has this value"]}


def iter_leaves(node: Any, path: NodePath = ()) -> Iterator[NodePath]:
    """The fields and list elements that contain no others."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        if isinstance(child, dict | list) and child:
            yield from iter_leaves(child, (*path, key))
        else:
            yield (*path, key)


def find_parent(document: Any, path: NodePath) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


def change(document: dict[str, Any], path: NodePath, value: Any = None) -> dict[str, Any]:
    """The document with another value; None: without the field."""
    changed = copy.deepcopy(document)
    if value is None:
        del find_parent(changed, path)[path[-1]]
    else:
        find_parent(changed, path)[path[-1]] = value
    return changed


def load(document: dict[str, Any]) -> LoadedConfig:
    return load_config(FULL, yaml.safe_dump(document, sort_keys=False), ENV)


def is_refused(document: dict[str, Any]) -> bool:
    """Whether a field with an invalid value is read: it may have stated the default."""
    try:
        load(document)
    except ConfigError:
        return True
    return False


def list_ignored_fields(document: dict[str, Any], section: str) -> list[str]:
    """The fields of a section without which the configuration is the same, although another value is accepted."""
    whole = load(document).config
    ignored = []
    for path in iter_leaves({section: document[section]}):
        try:
            has_effect = load(change(document, path)).config != whole
        except ConfigError:
            has_effect = True
        if not has_effect and not is_refused(change(document, path, INVALID_VALUE)):
            ignored.append(".".join(map(str, path)))
    return ignored


@pytest.mark.parametrize(("document", "section"), SECTIONS, ids=[name for _, name in SECTIONS])
def test_every_line_has_an_effect(document: dict[str, Any], section: str) -> None:
    assert list_ignored_fields(document, section) == []


@pytest.mark.parametrize("path", [("server", "listen"), ("email", "port"), ("status_page", "title")])
def test_a_field_that_is_ignored_is_noticed(path: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the loader did not read it."""

    load_reading_all = load

    def load_without_reading(document: dict[str, Any]) -> LoadedConfig:
        return load_reading_all(change(document, path, find_parent(DOCUMENT, path)[path[-1]]))

    monkeypatch.setattr(f"{__name__}.load", load_without_reading)
    assert list_ignored_fields(DOCUMENT, path[0]) == [".".join(path)]
