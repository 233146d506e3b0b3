"""The documents match the code: examples load and run, links have a target, lists are complete."""

from __future__ import annotations

import re
import socket
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.alert_contexts import OPENED_ALERT, notification_for
from tests.support.builders import alert_policy
from tests.support.fakes import CannedResponse, FakeHttpReceiver
from tests.support.regen import ARCHITECTURE_FILE, render_architecture_page
from tests.support.source_code import PACKAGE, read_sources
from tests.test_architecture import LAYERS
from watchdog.config.load import load_config
from watchdog.domain.model import Outcome, ProbeResult
from watchdog.net import NetworkAccess
from watchdog.notifiers.base import NotificationDeliveryError, NotificationDeliveryRequest, Notifier
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.store.tables import metadata

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
ENVIRONMENT = {
    "BACKUP_CHECKIN_TOKEN": "0123456789abcdef0123456789abcdef01234567",
    "PING_KEY": "ping-0123456789",
    "PAGERDUTY_ROUTING_KEY": "0123456789abcdef0123456789abcdef",
    "NTFY_URL": "ntfys://acme-oncall",
    "TELEGRAM_URL": "tgram://123456789:abcdefghijklmnopqrstuvwxyz012345678/1234",
    "DATABASE_URL": "postgresql://watchdog:abcdefgh@localhost/watchdog",
    "REDIS_URL": "redis://:abcdefgh@localhost:6379/0",
    "APP_DB_URL": "postgresql://reader:abcdefgh@localhost/app",
    "APP_DB_REMEDIATION_URL": "postgresql://healer:abcdefgh@localhost/app",
    "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T0/B0/abcdefgh",
    "SWEEPER_CHECKIN_TOKEN": "76543210fedcba9876543210fedcba9876543210",
    "WATCHDOG_KEY": "0123456789abcdef0123456789abcdef",
}


def fenced(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_have_a_target(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)]+)\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not has_target(page, target)] == []


def has_target(page: Path, target: str) -> bool:
    """Whether the file and, in a Markdown file, the section of a link exist."""
    path, _, anchor = target.partition("#")
    file = page.parent / path if path else page
    return file.exists() and (not anchor or file.suffix != ".md" or anchor in read_anchors(file))


@cache
def read_anchors(page: Path) -> frozenset[str]:
    """Those of the headings, as GitHub names them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return frozenset(re.sub(r"[^a-z0-9_ -]", "", title.lower()).replace(" ", "-") for title in titles)


@pytest.mark.parametrize(
    ("target", "expected"),
    [("#close-an-incident", True), ("acts.md#close-an-incident", True), ("acts.md", True), ("api.md#acts", True)]
    + [
        (target, False)
        for target in ("#no-such-section", "acts.md#no-such-section", "api.md#close-an-incident", "no.md")
    ],
)
def test_a_link_leads_to_a_section(target: str, expected: bool) -> None:
    assert has_target(ROOT / "docs/acts.md", target) is expected


@pytest.mark.parametrize(
    "text",
    [
        *fenced(ROOT / "README.md", "yaml"),
        fenced(ROOT / "docs/heartbeats.md", "yaml")[0],
        (ROOT / "deploy/watchdog.yaml").read_text(),
    ],
    ids=["README.md", "docs/heartbeats.md", "deploy/watchdog.yaml"],
)
def test_a_documented_configuration_loads(text: str) -> None:
    assert load_config(None, text, ENVIRONMENT).config.probes


def contributed(path: str) -> ModuleType:
    """The module that CONTRIBUTING.md shows for this path."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition(f"save it as `{path}`:")[2]
    code = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)[0]
    module = ModuleType(f"contributed_{Path(path).stem}")
    sys.modules[module.__name__] = module  # pydantic resolves annotations there
    exec(compile(code, "CONTRIBUTING.md", "exec", dont_inherit=True), module.__dict__)
    return module


@pytest.mark.parametrize(("listening", "reason"), [(True, ""), (False, "connection.refused")])
async def test_the_example_of_a_probe_kind_works(listening: bool, reason: str) -> None:
    kind: type[Probe] = contributed("watchdog/probes/ssh.py").SshProbe
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listening:
            server.listen()
        probe = kind.model_validate({"name": "Port", "ssh": f"127.0.0.1:{server.getsockname()[1]}"})
        async with NetworkAccess() as network:
            observation = await probe.observe(ProbeAttemptContext(0, 0, 5.0, "key", {}, network))
    assert (observation.outcome, observation.reason) == (Outcome.FAIL if reason else Outcome.PASS, reason)
    assert probe.network_endpoint == probe.target


@pytest.mark.parametrize("status", [200, 403])
async def test_the_example_of_a_notifier_works(status: int) -> None:
    kind: type[Notifier] = contributed("watchdog/notifiers/ntfy.py").NtfyNotifier
    with FakeHttpReceiver() as server:
        server.canned_responses.append(lambda: CannedResponse(status))
        notifier = kind.model_validate({"topic": "oncall", "token": "abcdefgh", "url": server.url})
        async with NetworkAccess() as network:
            request = NotificationDeliveryRequest(notification_for(OPENED_ALERT), OPENED_ALERT, {}, network)
            if status == 200:
                assert await notifier.send(request) == {}
            else:
                with pytest.raises(NotificationDeliveryError, match="403"):
                    await notifier.send(request)
    assert server.received[0].json["topic"] == "oncall"
    assert server.received[0].json["title"].startswith("API: ")
    assert server.received[0].headers["authorization"] == "Bearer abcdefgh"
    assert notifier.recipient == "127.0.0.1/oncall"


@pytest.mark.parametrize(("attempts", "message"), [(1, ""), (3, "passed only after 3 attempts")])
def test_the_example_of_a_rule_works(attempts: int, message: str) -> None:
    rule = contributed("watchdog/domain/rules/retried.py")
    result = ProbeResult(1, 0, "local", Outcome.PASS, measurements={"attempts": attempts})
    [finding] = rule.evaluate_result(alert_policy(), result)
    assert (finding.rule, finding.bad, finding.message) == ("retried", bool(message), message)


# --- docs/architecture.md


def rows(title: str) -> list[list[str]]:
    """The cells of every table in a section."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines]


def named(cell: str) -> list[str]:
    return [name.rstrip("/") for name in re.findall(r"`([a-z_/]+)`", cell)]


def test_the_packages_are_listed_in_the_order_that_is_enforced() -> None:
    listed = [named(row[0]) for row in rows("Packages")][1:]
    assert listed == [list(layer) for layer in LAYERS]
    packages = {source.component for source in read_sources(PACKAGE)} - {"__init__"}
    assert {name for layer in listed for name in layer} == packages


def test_the_steps_are_those_of_the_scheduler() -> None:
    docstring = (PACKAGE / "service/scheduler.py").read_text(encoding="utf-8").split('"""')[1]
    steps = re.findall(r"^([a-z]+) {2,}", docstring, flags=re.MULTILINE)
    assert steps == [row[0].strip("*") for row in rows("The path of a result")][1:]


def test_the_tables_are_those_of_the_schema() -> None:
    assert sorted(name for row in rows("Storage") for name in named(row[0])) == sorted(metadata.tables)


def test_the_table_of_rules_is_current() -> None:
    assert ARCHITECTURE_FILE.read_text(encoding="utf-8") == render_architecture_page(), "run ./dev regen"


def test_the_files_named_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    files = re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", text)
    assert [file for file in files if not ((PACKAGE / file).exists() or (ROOT / file).exists())] == []
