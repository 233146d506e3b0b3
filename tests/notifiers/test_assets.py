from __future__ import annotations

from pathlib import Path

import pytest

from watchdog import assets
from watchdog.assets import asset


def test_a_checkout_has_templates_beside_the_package() -> None:
    assert (asset("templates") / "email/incident.html.j2").is_file()


def test_an_installed_package_has_them_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "_PACKAGE", tmp_path / "watchdog")
    beside, inside = tmp_path / "templates", tmp_path / "watchdog/_data/templates"
    beside.mkdir()
    assert asset("templates") == beside
    inside.mkdir(parents=True)
    assert asset("templates") == inside


def test_what_is_missing_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="hats is missing: reinstall watchdog-monitor"):
        asset("hats")
