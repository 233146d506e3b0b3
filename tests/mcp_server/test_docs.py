"""docs/mcp.md matches the server."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.support.mcp_clients import ACTING_TOOL_NAMES, TOOL_NAMES
from watchdog.config.load import load_config

PAGE = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text(encoding="utf-8")


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_page_lists_every_tool() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (\w+) \|$", PAGE, flags=re.MULTILINE))
    assert list(rows) == TOOL_NAMES
    assert {name for name, role in rows.items() if role == "operator"} == ACTING_TOOL_NAMES


def test_the_configurations_can_be_read() -> None:
    assert [next(iter(json.loads(text)["mcpServers"])) for text in fenced("json")] == ["watchdog", "watchdog"]
    env = {"WATCHDOG_KEY": "0123456789abcdef", "PING_KEY": "0123456789"}
    probes = [probe for text in fenced("yaml") for probe in load_config(None, text, env).config.probes]
    assert [probe.max_task_ages for probe in probes] == [{"*": 600_000}, {}]
