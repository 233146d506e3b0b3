"""The reference page, docs/configuration.md."""

from __future__ import annotations

import re

import pytest

from tests.support.regen import REFERENCE_FILE
from watchdog.config.load import load_config
from watchdog.config.models import Config
from watchdog.config.reference import render_config_reference
from watchdog.config.reference_examples import CONFIG_EXAMPLES, CONFIG_KIND_EXAMPLES
from watchdog.config.schema import build_config_json_schema

PAGE = render_config_reference()
ENV = {
    name: f"{name.lower()}-0123456789" for text in CONFIG_EXAMPLES.values() for name in re.findall(r"\$\{(\w+)", text)
} | {
    "DATABASE_URL": "",
    "PAGERDUTY_ROUTING_KEY": "0123456789abcdef0123456789abcdef",
    "NTFY_URL": "ntfys://acme-oncall",
    "TELEGRAM_URL": "tgram://123456789:abcdefghijklmnopqrstuvwxyz012345678/1234",
    "CORE_APP_TOKEN": "xapp-1-0123456789",
    "SLACK_WEBHOOK_URL": "https://hooks.slack.example/services/T0/B0/abcdefgh",
    "REDIS_URL": "redis://:abcdefgh@localhost:6379/0",
    "APP_DB_URL": "postgresql://reader:abcdefgh@localhost/app",
    "APP_DB_REMEDIATION_URL": "postgresql://healer:abcdefgh@localhost/app",
}


def test_the_page_is_current() -> None:
    assert REFERENCE_FILE.read_text() == PAGE, "run ./dev regen"


def test_the_page_names_every_field() -> None:
    schema = build_config_json_schema()
    for definition in (schema, *schema["$defs"].values()):
        for field in definition.get("properties", {}):
            assert f"`{field}`" in PAGE or field.endswith("_file")


def test_no_description_is_blank() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert len(rows) > 250
    assert [row for row in rows if row.endswith("|  |")] == []


def test_no_name_of_a_class_is_shown() -> None:
    assert re.findall(r"\w+(?:Settings|Source|Notifier|Target|Threshold|Canary|Remediation)\b", PAGE) == []


def test_the_contents_link_to_every_heading() -> None:
    headings = re.findall(r"^###? (.+)$", PAGE.partition("## Syntax")[2], re.MULTILINE)
    links = re.findall(r"^ *- \[(.+)\]\(#(.+)\)$", PAGE.partition("## Syntax")[0], re.MULTILINE)
    assert [title for title, _ in links[1:]] == headings
    assert len({anchor for _, anchor in links}) == len(links)


@pytest.mark.parametrize("text", CONFIG_EXAMPLES.values(), ids=CONFIG_EXAMPLES)
def test_an_example_loads(text: str) -> None:
    load_config(None, text, ENV)


def test_every_example_is_shown() -> None:
    assert [path for path, text in CONFIG_EXAMPLES.items() if text not in PAGE] == []


def test_every_section_has_an_example() -> None:
    """Every kind has one as well: the registries require it."""
    sections = {*Config.model_fields} - {"version", "include", "probes", "reload"} | {"probes[]"}
    assert sections - CONFIG_EXAMPLES.keys() == set()


def test_no_kind_shows_the_example_of_another() -> None:
    assert len(set(CONFIG_KIND_EXAMPLES.values())) == len(CONFIG_KIND_EXAMPLES)
