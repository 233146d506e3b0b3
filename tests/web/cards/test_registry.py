"""The registry of cards: every kind of probe names its cards, and no page distinguishes kinds."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from watchdog.probes import PROBE_KINDS
from watchdog.resources import find_resource_folder
from watchdog.web.cards.registry import (
    CARDS_BY_PROBE_KIND,
    DEFAULT_PROBE_PAGE_CARD_TYPES,
    find_card_types_of_probe_kind,
    find_probe_page_jobs_section_id,
)

TEMPLATES = find_resource_folder("templates") / "pages"
CODE = Path(__file__).parents[3] / "watchdog" / "web"


@pytest.mark.parametrize("kind", [*PROBE_KINDS, "a kind of another version"])
def test_every_kind_has_cards_with_templates(kind: str) -> None:
    cards = find_card_types_of_probe_kind(kind)
    assert cards
    assert [card.template for card in cards if not (TEMPLATES / card.template).is_file()] == []


def test_a_kind_names_its_cards_only_if_they_are_not_the_default_ones() -> None:
    assert CARDS_BY_PROBE_KIND.keys() == PROBE_KINDS.keys()
    for kind, probe in PROBE_KINDS.items():
        assert (CARDS_BY_PROBE_KIND[kind] == DEFAULT_PROBE_PAGE_CARD_TYPES) is ("cards" not in vars(probe)), kind


def test_every_template_of_a_card_is_in_use() -> None:
    used = {card.template for kind in PROBE_KINDS for card in find_card_types_of_probe_kind(kind)}
    assert used == {f"cards/{file.name}" for file in (TEMPLATES / "cards").glob("*.j2")}


@pytest.mark.parametrize("kind", PROBE_KINDS)
def test_the_section_of_jobs_exists(kind: str) -> None:
    for card in find_card_types_of_probe_kind(kind):
        if card.jobs_section_id:
            assert f'id="{card.jobs_section_id}"' in (TEMPLATES / card.template).read_text()
            assert find_probe_page_jobs_section_id(kind) == card.jobs_section_id


def kind_comparisons(source: str) -> Iterator[str]:
    """Comparisons of something named `kind` with text, as Python."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = (node.left, *node.comparators)
            names = {side.attr if isinstance(side, ast.Attribute) else getattr(side, "id", "") for side in sides}
            has_text = any(isinstance(part, ast.Constant) and part.value for side in sides for part in ast.walk(side))
            if "kind" in names and has_text:
                yield ast.unparse(node)


def test_no_page_names_a_kind() -> None:
    assert {
        file.name: comparisons
        for file in CODE.rglob("*.py")
        if (comparisons := list(kind_comparisons(file.read_text())))
    } == {}
    for template in TEMPLATES.rglob("*.j2"):
        assert re.findall(r"kind\s*(?:==|!=|in|not in)\s*[\"'(\[]", template.read_text()) == [], template.name


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ("probe.kind == 'queue'", True),
        ("kind in ('canary', 'heartbeat')", True),
        ("'jobs' != job.probe.kind", True),
        ("probe.kind != self.kind", False),
        ("probe.kind in CARDS_BY_KIND", False),
        ("check_in.kind is CheckInKind.OK", False),
    ],
)
def test_comparisons_with_a_kind_are_recognised(source: str, is_found: bool) -> None:
    assert bool(list(kind_comparisons(source))) is is_found
