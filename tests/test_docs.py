"""The documents tell the truth: their examples load and run, their links lead somewhere, their lists are complete."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.test_architecture import PACKAGE, STOREYS, room, trees
from watchdog.config.load import load_config
from watchdog.domain.model import Outcome
from watchdog.domain.rules import HEALTH_STATE_BY_RULE
from watchdog.net import Network
from watchdog.probes.base import Probe, RunContext
from watchdog.store.tables import metadata

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
ENVIRONMENT = {
    "BACKUP_CHECKIN_TOKEN": "0123456789abcdef0123456789abcdef01234567",
    "DATABASE_URL": "postgresql://watchdog:abcdefgh@localhost/watchdog",
    "REDIS_URL": "redis://:abcdefgh@localhost:6379/0",
    "APP_DB_URL": "postgresql://reader:abcdefgh@localhost/app",
    "APP_DB_REMEDIATION_URL": "postgresql://healer:abcdefgh@localhost/app",
    "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T0/B0/abcdefgh",
    "SWEEPER_KEY": "76543210fedcba9876543210fedcba9876543210",
    "WATCHDOG_KEY": "0123456789abcdef0123456789abcdef",
}


def fenced(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?://)([^)]+)\)", text)
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.M)
    }
    assert [t for t in targets if not (t[1:] in anchors if t[0] == "#" else (page.parent / t).exists())] == []


@pytest.mark.parametrize(
    "text",
    [
        *fenced(ROOT / "README.md", "yaml"),
        fenced(ROOT / "docs/heartbeats.md", "yaml")[0],
        (ROOT / "deploy/watchdog.yaml").read_text(),
    ],
    ids=["README.md", "docs/heartbeats.md", "deploy/watchdog.yaml"],
)
def test_a_configuration_that_we_show_loads(text: str) -> None:
    assert load_config(None, text, ENVIRONMENT).config.probes


def the_contributed_kind() -> type[Probe]:
    (text,) = fenced(ROOT / "CONTRIBUTING.md", "python")
    module = ModuleType("contributed")
    sys.modules["contributed"] = module
    exec(compile(text, "CONTRIBUTING.md", "exec", dont_inherit=True), module.__dict__)
    kind: type[Probe] = module.TcpProbe
    return kind


@pytest.mark.parametrize(("listening", "reason"), [(True, ""), (False, "connection.refused")])
async def test_the_probe_kind_that_we_show_works(listening: bool, reason: str) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listening:
            server.listen()
        probe = the_contributed_kind().model_validate({"name": "Port", "tcp": f"127.0.0.1:{server.getsockname()[1]}"})
        async with Network() as wire:
            seen = await probe.observe(RunContext(0, 0, 5.0, "key", {}, wire))
    assert (seen.outcome, seen.reason) == (Outcome.FAIL if reason else Outcome.PASS, reason)
    assert probe.target not in probe.host


# --- docs/architecture.md


def rows(title: str) -> list[list[str]]:
    """The cells of every table in a section."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines]


def named(cell: str) -> list[str]:
    return [name.rstrip("/") for name in re.findall(r"`([a-z_/]+)`", cell)]


def test_the_rooms_are_those_of_the_package_in_the_order_that_is_enforced() -> None:
    told = [name for row in rows("Rooms") for name in named(row[0])]
    there = {room(path) for path, _ in trees(PACKAGE)} - {"__init__"}
    assert told == [name for storey in STOREYS for name in storey if name in there]


def test_the_tables_are_those_of_the_schema() -> None:
    assert sorted(name for row in rows("Storage") for name in named(row[0])) == sorted(metadata.tables)


def test_the_rules_are_those_of_the_engine() -> None:
    told = {name: row[3] for row in rows("Findings") for name in named(row[0])}
    assert told == {rule: state.value for rule, state in HEALTH_STATE_BY_RULE.items()}


def test_the_files_named_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    files = re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", text)
    assert [file for file in files if not ((PACKAGE / file).exists() or (ROOT / file).exists())] == []
