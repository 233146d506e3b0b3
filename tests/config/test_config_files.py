"""Whether the files of a configuration have changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from watchdog.config.config_files import read_config_file_signatures
from watchdog.config.load import load_config
from watchdog.config.problems import ConfigError, WatchedConfigPaths

MAIN = """
include: ["conf.d/*.yaml"]
probes: [{name: B, heartbeat: {token_file: secrets/token, every: 1h}}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As Kubernetes mounts a configuration: links to a folder that a link is switched over to."""
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "watchdog.yaml").write_text(MAIN)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "watchdog.yaml").symlink_to("..data/watchdog.yaml")
    for name, file, text in (("conf.d", "a.yaml", "probes: []"), ("secrets", "token", "0123456789abcdef")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
    return tmp_path


def switch_link(folder: Path) -> None:
    (folder / "..tmp").symlink_to("v2")
    (folder / "..tmp").rename(folder / "..data")


def rename_over(folder: Path) -> None:
    (folder / "new").write_text("probes: []")
    (folder / "new").rename(folder / "conf.d/a.yaml")


def make_pipe(folder: Path) -> None:
    (folder / "conf.d/a.yaml").unlink()
    os.mkfifo(folder / "conf.d/a.yaml")


def make_folder(folder: Path) -> None:
    (folder / "conf.d/a.yaml").unlink()
    (folder / "conf.d/a.yaml").mkdir()


CHANGES: list[tuple[str, Callable[[Path], object], bool]] = [
    ("nothing", lambda _: None, False),
    ("another file", lambda f: (f / "conf.d/a.txt").write_text("a"), False),
    ("the main file", lambda f: (f / "v1/watchdog.yaml").write_text(MAIN + " "), True),
    ("the link of the folder", switch_link, True),
    ("an included file", lambda f: (f / "conf.d/a.yaml").write_text("probes: [ ]"), True),
    ("a file that replaces it", rename_over, True),
    ("a new included file", lambda f: (f / "conf.d/b.yaml").write_text("probes: []"), True),
    ("an included file less", lambda f: (f / "conf.d/a.yaml").unlink(), True),
    ("a named pipe in its place", make_pipe, True),
    ("a folder in its place", make_folder, True),
    ("a secret", lambda f: (f / "secrets/token").write_text("fedcba9876543210-x"), True),
    ("permissions", lambda f: (f / "conf.d/a.yaml").chmod(0o600), True),
]


@pytest.mark.parametrize(("sentence", "change", "is_noticed"), CHANGES, ids=[case[0] for case in CHANGES])
def test_changes(folder: Path, sentence: str, change: Callable[[Path], object], is_noticed: bool) -> None:
    files = load_config(folder / "watchdog.yaml").files
    before = read_config_file_signatures(files)
    assert read_config_file_signatures(files) == before
    change(folder)
    assert (read_config_file_signatures(files) != before) is is_noticed, sentence


def test_an_invalid_configuration_names_its_files_as_well(tmp_path: Path) -> None:
    (tmp_path / "watchdog.yaml").write_text(
        "include: [a.yaml, '*.yml']\nprobes: [{name: B, heartbeat: {token_file: no, every: 1h}}]"
    )
    (tmp_path / "a.yaml").write_text("probes: [{name: A, evry: 1s}]")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "watchdog.yaml")
    names = {path.name for path in caught.value.files.paths}
    assert names == {"watchdog.yaml", "a.yaml", "no"}
    assert (tmp_path, "*.yml") in caught.value.files.include_patterns


@pytest.mark.parametrize("name", ["watchdog.yaml", "secrets/token"])
def test_named_pipes_are_refused_where_they_would_block(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ConfigError, match="not a regular file"):
        load_config(folder / "watchdog.yaml", regular_files_only=True)


def test_nothing_to_watch() -> None:
    assert read_config_file_signatures(WatchedConfigPaths()) == {}
