"""Fixtures of the command line."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes import FakeHttpTarget


@pytest.fixture(autouse=True)
def _isolated_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands read and write in the working directory. Logging is configured per process, so not in tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("watchdog.cli.logs.configure_logging", lambda *_, **__: None)
    monkeypatch.setattr("watchdog.cli.logs.configure_logging_on_first_record", lambda *_: None)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write watchdog.yaml with these sections."""

    def written(**sections: Any) -> Path:
        file = tmp_path / "watchdog.yaml"
        file.write_text(json.dumps(sections))
        return file

    return written


@pytest.fixture
def target() -> Iterator[FakeHttpTarget]:
    with FakeHttpTarget() as made:
        yield made


@pytest.fixture
def silent() -> Iterator[str]:
    """A URL that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
