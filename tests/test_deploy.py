"""The files for containers and systemd refer to things that exist, and are consistent."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from watchdog.cli.main import cli_app

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
UNIT = (ROOT / "deploy/watchdog-monitor.service").read_text(encoding="utf-8")
SAMPLE = (ROOT / "deploy/watchdog.yaml").read_text(encoding="utf-8")


def copied() -> list[str]:
    """The files that the image is built from."""
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, flags=re.MULTILINE)
    return [source for line in lines for source in line.split()]


def test_the_image_is_built_from_files_that_exist_and_are_sent_to_the_builder() -> None:
    sent = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert [source for source in copied() if not (ROOT / source).exists()] == []
    assert {source.split("/")[0] for source in copied()} == set(sent)


def test_the_image_holds_what_the_wheel_is_built_from() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*wheel["packages"], *wheel["force-include"], project["project"]["readme"], "pyproject.toml", "LICENSE"]
    assert [name for name in needed if name not in copied()] == []


def test_the_unit_starts_once_the_clock_is_synchronized() -> None:
    """systemd orders a unit after a target only if something wants that target."""
    for setting in ("Wants", "After"):
        (targets,) = re.findall(rf"^{setting}=(.*)$", UNIT, flags=re.MULTILINE)
        assert "time-sync.target" in targets.split()


def test_compose_mounts_files_that_exist() -> None:
    mounts = [mount.split(":")[0] for service in COMPOSE["services"].values() for mount in service.get("volumes", [])]
    assert [m for m in mounts if not ((ROOT / m).is_file() if m.startswith(".") else m in COMPOSE["volumes"])] == []


def test_compose_sets_every_variable_that_its_configuration_asks_for() -> None:
    wanted = set(re.findall(r"\$\{(\w+)", SAMPLE))
    assert wanted == set(COMPOSE["services"]["watchdog"]["environment"])


def test_compose_publishes_the_port_where_the_service_listens_on_this_machine_alone() -> None:
    listen = yaml.safe_load(SAMPLE)["server"]["listen"]
    assert COMPOSE["services"]["watchdog"]["ports"] == [f"127.0.0.1:8080:{listen.rsplit(':')[-1]}"]
    assert "EXPOSE 8080" in DOCKERFILE


@pytest.mark.parametrize(
    "command",
    [
        re.findall(r'^CMD \["(\w+)"', DOCKERFILE, flags=re.MULTILINE)[0],
        re.findall(r"^ExecStart=\S+/watchdog (\w+)", UNIT, flags=re.MULTILINE)[0],
    ],
    ids=["container", "systemd"],
)
def test_the_service_is_started_with_an_existing_command(command: str) -> None:
    assert command in {item.name or (item.callback and item.callback.__name__) for item in cli_app.registered_commands}


def test_the_container_and_the_unit_read_the_same_configuration_file() -> None:
    mounted = COMPOSE["services"]["watchdog"]["volumes"][0].split(":")[1]
    assert mounted == "/etc/watchdog/watchdog.yaml"
    assert f"-c {mounted}\n" in UNIT
    assert f'"-c", "{mounted}"' in DOCKERFILE


def test_everything_shipped_that_checks_watchdog_asks_readyz() -> None:
    """/healthz answers as long as the process lives, also while nothing is stored or notified."""
    shipped = {file: (ROOT / file).read_text(encoding="utf-8") for file in ("Dockerfile", "docker-compose.yml")}
    folders = [file for folder in ("deploy", "examples") for file in (ROOT / folder).rglob("*") if file.is_file()]
    shipped |= {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in folders}
    assert [name for name, text in shipped.items() if "healthz" in text] == []
    assert [name for name, text in shipped.items() if ":8080/readyz" in text] == ["Dockerfile", "deploy/watchdog.yaml"]


def test_the_documentation_names_readyz_as_the_url_to_watch_from_outside() -> None:
    section = (ROOT / "docs/mcp.md").read_text(encoding="utf-8").partition("## Monitor Watchdog from outside")[2]
    assert "https://status.acme.example/readyz" in section
    assert "](docs/mcp.md#monitor-watchdog-from-outside)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "mcp.md#monitor-watchdog-from-outside" in UNIT
