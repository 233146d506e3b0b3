"""The world that the whole house is tried in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.end_to_end import EndToEndHarness


@pytest.fixture
def world(tmp_path: Path) -> Iterator[EndToEndHarness]:
    """On SQLite."""
    with EndToEndHarness(tmp_path, f"sqlite:///{tmp_path / 'watchdog.db'}") as made:
        yield made


@pytest.fixture
def each_world(tmp_path: Path, database_url: str) -> Iterator[EndToEndHarness]:
    """One on each database: a test that asks for this runs on both."""
    with EndToEndHarness(tmp_path, database_url) as made:
        yield made
