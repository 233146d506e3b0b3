"""Reads the main file and its includes into one set of trees. Without pydantic: `watchdog exec` reads them, too."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from watchdog.config.include_files import (
    MAX_TOTAL_INCLUDE_FOLDER_ENTRIES,
    IncludeFileFinder,
    TooManyFolderEntriesError,
)
from watchdog.config.problems import EMPTY_CONFIG_VALUE_MESSAGE, ConfigProblem, ConfigSourceLocation
from watchdog.config.yaml_tree import YamlNode, parse_yaml_with_problems

MAX_TOTAL_CONFIG_FILES_BYTES = 16 * 1024 * 1024
"""Of all files of a configuration together."""
MAX_INCLUDED_FILES = 1_000
MAX_INCLUDE_DEPTH = 20
"""How many files may include one another in a row."""


class IncludeLimitError(Exception):
    """A limit on included files is exceeded: no further file is read."""

    def __init__(self, item: YamlNode, message: str):
        super().__init__(message)
        self.problem = ConfigProblem(*item.location, item.path, message)


@dataclass
class MergedConfigSources:
    """The content of all files. Entries of an included file follow those of the file that includes it."""

    root: Mapping[str, YamlNode] = field(default_factory=dict)
    """The sections of the main file."""
    location: ConfigSourceLocation = field(default_factory=lambda: ConfigSourceLocation(""))
    probes: list[YamlNode] = field(default_factory=list)
    receivers: dict[str, YamlNode] = field(default_factory=dict)
    routes: list[YamlNode] = field(default_factory=list)
    trees: list[YamlNode] = field(default_factory=list)
    """The whole tree of every file."""
    base_folders: dict[str, Path] = field(default_factory=dict)
    """File, as named in problems -> the folder that its relative paths start at. In reading order."""
    files: dict[Path, None] = field(default_factory=dict)
    """Resolved, in reading order: a file that several patterns match is read once."""
    watched_paths: list[Path] = field(default_factory=list)
    """Every file that was read or could not be read, as named: links are not resolved."""
    include_patterns: list[tuple[Path, str]] = field(default_factory=list)
    """Each `include` with the folder that it starts at."""
    regular_files_only: bool = False
    """Refuse a named pipe as the main file, too: reading it would wait for its writer."""
    byte_count: int = 0
    """Of all files that were read."""
    file_finder: IncludeFileFinder = field(default_factory=IncludeFileFinder)
    managed_file: Path | None = None
    """The file that pages and the API write probes to."""
    problems: list[ConfigProblem] = field(default_factory=list)
    warnings: list[ConfigProblem] = field(default_factory=list)
    """About files; `find_config_warnings` adds those about what is in them."""

    def add_problem(self, location: ConfigSourceLocation, path: str, message: str) -> None:
        self.problems.append(ConfigProblem(*location, path, message))


def read_and_merge_config_files(
    path: Path | None,
    text: str | None,
    env: Mapping[str, str],
    *,
    regular_files_only: bool = False,
    managed_text: str | None = None,
) -> MergedConfigSources:
    """Read the main file, or `text` in its place, and all files that it includes. `managed_text`: in place of the
    managed file."""
    sources = MergedConfigSources(regular_files_only=regular_files_only)
    name = "configuration" if path is None else str(path)
    folder = Path() if path is None else path.parent
    if path is not None:
        sources.files[_resolve_real_path(path)] = None
    if text is None:
        text = _read_config_file(path, ConfigSourceLocation(name), "", sources) if path is not None else ""
    if text is not None:
        tree = _parse_config_text_and_add_to_sources(text, name, folder, env, sources)
        sources.location = ConfigSourceLocation(name)
        if tree is not None:
            sources.root = tree.mapping_entries
            try:
                managed = _find_and_register_managed_file_node(tree, sources)
                _merge_config_sections_and_includes(tree, (path,) if path else (), env, sources)
                if managed is not None:
                    _merge_managed_file_into_sources(managed, managed_text, (path,) if path else (), env, sources)
            except IncludeLimitError as e:
                sources.problems.append(e.problem)
    return sources


def _find_and_register_managed_file_node(tree: YamlNode, sources: MergedConfigSources) -> YamlNode | None:
    """The node with the path of the managed file, which patterns of `include` then leave out."""
    node = tree.mapping_entries.get("managed")
    node = node if node is None or not node.mapping_entries else node.mapping_entries.get("file")
    if node is None or node.invalid or not isinstance(node.value, str) or not node.value:
        return None
    if "\0" in node.value:
        sources.add_problem(node.location, node.path, "expected the path of a file")
        return None
    path = sources.base_folders[node.location.file] / node.value
    if _resolve_real_path(path) in sources.files:
        sources.add_problem(
            node.location, node.path, "the managed file cannot be the main file: name a file of its own"
        )
        return None
    sources.managed_file = path
    sources.files[_resolve_real_path(path)] = None
    return node


def _merge_managed_file_into_sources(
    node: YamlNode,
    text: str | None,
    include_chain: tuple[Path, ...],
    env: Mapping[str, str],
    sources: MergedConfigSources,
) -> None:
    """It may be missing or empty: it is created with the first probe. Raises IncludeLimitError."""
    path = sources.base_folders[node.location.file] / str(node.value)
    if text is None and not os.path.lexists(path):
        sources.watched_paths.append(path)
        if not path.parent.is_dir():
            message = f"the folder {path.parent} does not exist, so no probe can be added: create the folder"
            sources.warnings.append(ConfigProblem(*node.location, node.path, message))
        return
    if text is None:
        text = _read_config_file(path, node.location, node.path, sources)
        _require_includes_within_limits(path, node, include_chain, sources)
    else:
        sources.watched_paths.append(path)
    if text is None or has_no_yaml_content(text):
        return
    tree = _parse_config_text_and_add_to_sources(text, str(path), path.parent, env, sources)
    if tree is not None:
        _merge_config_sections_and_includes(tree, (*include_chain, path), env, sources)


def has_no_yaml_content(text: str) -> bool:
    """Whether it consists of comments alone."""
    return all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines())


def _resolve_real_path(path: Path) -> Path:
    """Unlike Path.resolve, also of a link that leads to itself."""
    return Path(os.path.realpath(path))


def _read_config_file(
    path: Path, location: ConfigSourceLocation, problem_path: str, sources: MergedConfigSources
) -> str | None:
    """`problem_path`: of the `include` that names the file; empty for the main file."""
    sources.watched_paths.append(path)
    is_checked = bool(problem_path) or sources.regular_files_only
    if is_checked and path.exists() and not path.is_file():  # opening a named pipe would wait for its writer
        reason = "not a regular file"
        sources.add_problem(location, problem_path, f"cannot read {path}: {reason}" if problem_path else reason)
        return None
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TOTAL_CONFIG_FILES_BYTES + 1)
    except OSError as e:
        reason = (e.strerror or "not a file").lower()
        hint = (
            "; `watchdog init` creates a configuration" if isinstance(e, FileNotFoundError) and not problem_path else ""
        )
        sources.add_problem(
            location, problem_path, f"cannot read {path}: {reason}{hint}" if problem_path else f"{reason}{hint}"
        )
        return None
    sources.byte_count += len(content)
    if len(content) > MAX_TOTAL_CONFIG_FILES_BYTES:
        if not problem_path:
            sources.add_problem(location, problem_path, "the file is larger than 16 MiB")
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        before = content[: e.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode()) + 1
        sources.add_problem(ConfigSourceLocation(str(path), line, column), "", "the file is not UTF-8 text")
        return None


def _parse_config_text_and_add_to_sources(
    text: str, name: str, folder: Path, env: Mapping[str, str], sources: MergedConfigSources
) -> YamlNode | None:
    sources.base_folders[name] = folder
    tree, problems = parse_yaml_with_problems(text, name, env)
    sources.problems += problems
    if tree is None:
        return None
    sources.trees.append(tree)
    if not isinstance(tree.value, dict):
        if not tree.invalid:
            sources.add_problem(tree.location, "", "expected sections such as `probes:` at the start of a line")
        return None
    return tree


def _merge_config_sections_and_includes(
    tree: YamlNode, include_chain: tuple[Path, ...], env: Mapping[str, str], sources: MergedConfigSources
) -> None:
    """Merge the sections that every file can hold, then those of the files that this one includes."""
    for name, nodes in (("probes", sources.probes), ("routes", sources.routes)):
        first_line = "`- name: ...`" if name == "probes" else "`- receivers: ...`"
        section = _get_config_section_and_check_type(
            tree, name, list, f"a list of entries that start with {first_line}", sources
        )
        nodes.extend(section.list_items if section else ())
    section = _get_config_section_and_check_type(
        tree, "receivers", dict, "receivers by name, such as `oncall: {slack: ...}`", sources
    )
    for name, receiver in section.mapping_entries.items() if section else ():
        if (first := sources.receivers.setdefault(name, receiver)) is not receiver:
            sources.add_problem(
                receiver.key_location, receiver.path, f"duplicate receiver: '{name}' is defined at {first.key_location}"
            )
    for item in tree.mapping_entries["include"].list_items if "include" in tree.mapping_entries else ():
        if isinstance(item.value, str) and not item.invalid:
            _load_included_files_into_sources(item, include_chain, env, sources)


def _get_config_section_and_check_type(
    tree: YamlNode,
    name: str,
    value_type: type[list[YamlNode] | dict[str, YamlNode]],
    expected: str,
    sources: MergedConfigSources,
) -> YamlNode | None:
    section = tree.mapping_entries.get(name)
    if section is not None and not isinstance(section.value, value_type) and not section.invalid:
        sources.add_problem(
            section.location,
            section.path,
            EMPTY_CONFIG_VALUE_MESSAGE if section.value is None else f"expected {expected}",
        )
    return section


def _load_included_files_into_sources(
    item: YamlNode, include_chain: tuple[Path, ...], env: Mapping[str, str], sources: MergedConfigSources
) -> None:
    """Raises IncludeLimitError."""
    folder, pattern = sources.base_folders[item.location.file], str(item.value)
    sources.include_patterns.append((folder, pattern))
    try:
        paths = sources.file_finder.find_files(folder, pattern)
    except TooManyFolderEntriesError:
        limit = f"the folders to search contain more than {MAX_TOTAL_INCLUDE_FOLDER_ENTRIES:,} entries"
        raise IncludeLimitError(item, f"{limit}: name the folder that contains the files, without `**`") from None
    if not paths:
        message = f"no file '{item.raw_value}'; paths are relative to {item.location.file}"
        if glob.has_magic(pattern):
            message = f"no file matches '{item.raw_value}', so nothing is included; add one, or remove the pattern"
            sources.warnings.append(ConfigProblem(*item.location, item.path, message))
        else:
            sources.add_problem(item.location, item.path, message)
    for path in paths:
        resolved = _resolve_real_path(path)
        if resolved in map(_resolve_real_path, include_chain):
            cycle = " -> ".join(str(file) for file in (*include_chain, path))
            sources.add_problem(item.location, item.path, f"the file includes itself: {cycle}")
        elif resolved not in sources.files:
            sources.files[resolved] = None
            text = _read_config_file(path, item.location, item.path, sources)
            _require_includes_within_limits(path, item, include_chain, sources)
            tree = (
                None
                if text is None
                else _parse_config_text_and_add_to_sources(text, str(path), path.parent, env, sources)
            )
            if tree is not None:
                _merge_config_sections_and_includes(tree, (*include_chain, path), env, sources)


def _require_includes_within_limits(
    path: Path, item: YamlNode, include_chain: tuple[Path, ...], sources: MergedConfigSources
) -> None:
    """Raises IncludeLimitError."""
    if len(sources.files) > MAX_INCLUDED_FILES + 1:  # and the main file
        message = f"more than {MAX_INCLUDED_FILES:,} files are included: use a narrower pattern, or merge files"
        raise IncludeLimitError(item, message)
    if sources.byte_count > MAX_TOTAL_CONFIG_FILES_BYTES:
        message = f"the files up to {path} are larger than 16 MiB in total: include only configuration files"
        raise IncludeLimitError(item, message)
    if len(include_chain) > MAX_INCLUDE_DEPTH:
        message = f"files include one another more than {MAX_INCLUDE_DEPTH} levels deep: include them in the main file"
        raise IncludeLimitError(item, message)
