"""Which files a pattern of `include` matches, and that no pattern, file or tree makes loading endless."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest

from watchdog.config import include_files, sources
from watchdog.config.include_files import IncludeFileFinder
from watchdog.config.load import load_config
from watchdog.config.problems import ConfigError

PROBE = "probes: [{{name: {0}, http: 'http://{0}.example/'}}]\n"
TREE = ["a.yaml", "b.yml", ".hidden.yaml", "d/c.yaml", "d/e/f.yaml", ".git/g.yaml", "d/[x]/h.yaml"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in TREE:
        file = tmp_path / "tree" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    return tmp_path / "tree"


@pytest.mark.parametrize(
    "pattern",
    [
        "a.yaml", "*.yaml", "?.y*ml", "[ab].*", "**/*.yaml", "**", "**/", "d/**", "d/**/f.yaml", "*/*.yaml", ".*",
        "d/../a.yaml", "nothing", "nothing/*", "a.yaml/*", "d", "d/[[]x]/*", "**/e/**", "", ".", "./d/./c.yaml", ".*/*",
    ],
)  # fmt: skip
def test_a_pattern_matches_what_glob_matches(tree: Path, pattern: str) -> None:
    expected_paths = glob.glob(str(tree / pattern), recursive=True)  # noqa: PTH207 - the function to compare with
    expected = {os.path.realpath(path) for path in expected_paths if not Path(path).is_dir()}
    for given in (pattern, str(tree / pattern)):
        matches = IncludeFileFinder().find_files(tree, given)
        assert matches == sorted(matches)
        assert {os.path.realpath(match) for match in matches} == expected


def test_the_folder_of_the_configuration_is_no_pattern(tree: Path) -> None:
    assert IncludeFileFinder().find_files(tree / "d/[x]", "*.yaml") == [tree / "d/[x]/h.yaml"]


def test_links_to_folders_are_followed_once(tree: Path) -> None:
    for name in ("d/up", "d/e/up", "loop"):
        (tree / name).symlink_to(tree, target_is_directory=True)
    (tree / "itself").symlink_to(tree / "itself")
    matches = IncludeFileFinder().find_files(tree, "**/*.yaml")
    assert len(matches) == len({os.path.realpath(match) for match in matches}) == 4


def load_error(folder: Path, text: str) -> str:
    """The one problem that loading reports; paths without the folder."""
    (folder / "main.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(folder / "main.yaml", env={})
    assert len(error.value.problems) == 1
    return str(error.value).replace(f"{folder}/", "")


@pytest.mark.parametrize("pattern", ["**/*.yaml", "*/*.yaml", "deep/**", "*.none"])
def test_a_pattern_reads_a_limited_number_of_folder_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    monkeypatch.setattr(include_files, "MAX_TOTAL_INCLUDE_FOLDER_ENTRIES", 30)
    monkeypatch.setattr(sources, "MAX_TOTAL_INCLUDE_FOLDER_ENTRIES", 30)
    for n in range(31):
        (tmp_path / f"deep/{n}").mkdir(parents=True)
        (tmp_path / f"{n}.txt").write_text("")
    assert load_error(tmp_path, f"probes: []\ninclude: [{pattern!r}]") == (
        "main.yaml:2:11: include.0: the folders to search contain more than 30 entries: name the folder that contains "
        "the files, without `**`"
    )


def test_the_entries_of_all_patterns_count_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(include_files, "MAX_TOTAL_INCLUDE_FOLDER_ENTRIES", 30)
    for n in range(8):
        (tmp_path / f"{n}.txt").write_text("")
    patterns = ["*.none", "*.no", "*.nothing", "*.never"]
    assert load_error(tmp_path, f"include: {patterns}").startswith("main.yaml:1:42: include.3: the folders")


def test_the_number_of_included_files_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_INCLUDED_FILES", 3)
    for name in "abc":
        (tmp_path / f"{name}.yaml").write_text(PROBE.format(name))
    (tmp_path / "main.yaml").write_text("include: ['?.yaml']")
    assert len(load_config(tmp_path / "main.yaml", env={}).config.probes) == 3
    (tmp_path / "d.yaml").write_text(PROBE.format("d"))
    assert load_error(tmp_path, "include: ['?.yaml']") == (
        "main.yaml:1:11: include.0: more than 3 files are included: use a narrower pattern, or merge files"
    )


@pytest.mark.parametrize("size", [1_000, 60])
def test_the_size_of_all_files_together_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(sources, "MAX_TOTAL_CONFIG_FILES_BYTES", 150)
    for name in "abc":
        (tmp_path / f"{name}.yaml").write_text("probes: []".ljust(size))
    first = "a" if size > 150 else "c"
    assert load_error(tmp_path, "include: ['?.yaml']") == (
        f"main.yaml:1:11: include.0: the files up to {first}.yaml are larger than 16 MiB in total: include only "
        "configuration files"
    )


def test_a_chain_of_includes_is_limited(tmp_path: Path) -> None:
    for n in range(1_500):
        (tmp_path / f"{n}.yaml").write_text(f"include: [{n + 1}.yaml]")
    assert load_error(tmp_path, "include: [0.yaml]") == (
        "19.yaml:1:11: include.0: files include one another more than 20 levels deep: include them in the main file"
    )


@pytest.mark.parametrize("pattern", ["pipe.yaml", "*.yaml"])
def test_a_named_pipe_is_no_configuration(tmp_path: Path, pattern: str) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    if pattern == "pipe.yaml":
        assert load_error(tmp_path, "include: [pipe.yaml]").endswith("cannot read pipe.yaml: not a regular file")
    else:
        (tmp_path / "d").mkdir()
        os.mkfifo(tmp_path / "d/x.yaml")
        assert "cannot read d/x.yaml: not a regular file" in load_error(tmp_path, "include: ['d/*.yaml']")


def test_a_link_to_itself_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to(tmp_path / "a.yaml")
    assert "cannot read a.yaml: too many levels of symbolic links" in load_error(tmp_path, "include: [a.yaml]")
