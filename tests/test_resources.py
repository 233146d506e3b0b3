from __future__ import annotations

from pathlib import Path

import pytest

from watchdog import resources
from watchdog.resources import find_resource_folder


def test_a_checkout_has_templates_beside_the_package() -> None:
    assert (find_resource_folder("templates") / "email/incident.html.j2").is_file()


def test_an_installed_package_has_them_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_WATCHDOG_PACKAGE_DIR", tmp_path / "watchdog")
    beside, inside = tmp_path / "templates", tmp_path / "watchdog/_data/templates"
    beside.mkdir()
    assert find_resource_folder("templates") == beside
    inside.mkdir(parents=True)
    assert find_resource_folder("templates") == inside


def test_a_missing_resource_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="hats is missing: reinstall watchdog-monitor"):
        find_resource_folder("hats")
