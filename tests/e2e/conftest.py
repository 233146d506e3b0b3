from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.end_to_end import EndToEndHarness


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[EndToEndHarness]:
    """On SQLite."""
    with EndToEndHarness(tmp_path, f"sqlite:///{tmp_path / 'watchdog.db'}") as running:
        yield running


@pytest.fixture
def each_harness(tmp_path: Path, database_url: str) -> Iterator[EndToEndHarness]:
    """Runs the test on each database."""
    with EndToEndHarness(tmp_path, database_url) as running:
        yield running
