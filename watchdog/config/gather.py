"""From a file and what it includes to one set of trees, `defaults` put under every probe."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from watchdog.config.document import Node, parse
from watchdog.config.models import Config
from watchdog.config.problems import NOTHING, Mark, Problem, did_you_mean
from watchdog.fields import parse_duration
from watchdog.probes import KINDS, Common

LARGEST = 16 * 1024 * 1024
SHARED = ("probes", "receivers", "routes", "include", "version")
"""Sections that an included file may hold."""


@dataclass
class Sources:
    """Everything that was read. What stood in included files comes after what stood in the including one."""

    root: Mapping[str, Node] = field(default_factory=dict)
    """The main file's sections."""
    mark: Mark = field(default_factory=lambda: Mark(""))
    probes: list[Node] = field(default_factory=list)
    receivers: dict[str, Node] = field(default_factory=dict)
    routes: list[Node] = field(default_factory=list)
    trees: list[Node] = field(default_factory=list)
    """Every file's whole tree."""
    folders: dict[str, Path] = field(default_factory=dict)
    """File, as problems name it -> the folder at which its relative paths start. In the order of reading."""
    files: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def complain(self, mark: Mark, path: str, message: str) -> None:
        self.problems.append(Problem(*mark, path, message))


def gather(path: Path | None, text: str | None, env: Mapping[str, str]) -> Sources:
    """Read the main file, or the text in its stead, and all that it includes."""
    found = Sources()
    name = "configuration" if path is None else str(path)
    folder = Path() if path is None else path.parent
    if path is not None:
        found.files.append(path)
    if text is None:
        text = _read(path, Mark(name), "", found) if path is not None else ""
    if text is not None:
        tree = _tree(text, name, folder, env, found)
        found.mark = Mark(name)
        if tree is not None:
            found.root = tree.entries
            _take(tree, (path,) if path else (), env, found)
            found.probes = [_under(found.root.get("defaults"), probe) for probe in found.probes]
    return found


def _read(path: Path, mark: Mark, where: str, found: Sources) -> str | None:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as e:
        reason = (e.strerror or "not a file").lower()
        hint = "; 'watchdog init' writes one" if isinstance(e, FileNotFoundError) and not where else ""
        found.complain(mark, where, f"cannot read {path}: {reason}{hint}" if where else f"{reason}{hint}")
        return None
    if len(content) > LARGEST:
        found.complain(mark, where, "larger than 16 MiB")
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        before = content[: e.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode()) + 1
        found.complain(Mark(str(path), line, column), "", "not text in UTF-8")
        return None


def _tree(text: str, name: str, folder: Path, env: Mapping[str, str], found: Sources) -> Node | None:
    found.folders[name] = folder
    tree, problems = parse(text, name, env)
    found.problems += problems
    if tree is None:
        return None
    found.trees.append(tree)
    if not isinstance(tree.value, dict):
        if not tree.broken:
            found.complain(tree.mark, "", "expected sections such as 'probes:', each at the start of a line")
        return None
    return tree


def _take(tree: Node, chain: tuple[Path, ...], env: Mapping[str, str], found: Sources) -> None:
    """Take the sections that files share, then those of the files that this one includes."""
    for name, taken in (("probes", found.probes), ("routes", found.routes)):
        begin = "'- name: ...'" if name == "probes" else "'- receivers: ...'"
        section = _section(tree, name, list, f"a list: each of the {name} begins with {begin}", found)
        taken.extend(section.items if section else ())
    section = _section(tree, "receivers", dict, "receivers by name: 'oncall: {slack: ...}'", found)
    for name, receiver in section.entries.items() if section else ():
        if (first := found.receivers.setdefault(name, receiver)) is not receiver:
            found.complain(receiver.key, receiver.path, f"there is a receiver '{name}' already, at {first.key}")
    for item in tree.entries["include"].items if "include" in tree.entries else ():
        if isinstance(item.value, str) and not item.broken:
            _include(item, chain, env, found)


def _section(
    tree: Node, name: str, shape: type[list[Node] | dict[str, Node]], told: str, found: Sources
) -> Node | None:
    section = tree.entries.get(name)
    if section is not None and not isinstance(section.value, shape) and not section.broken:
        found.complain(section.mark, section.path, NOTHING if section.value is None else f"expected {told}")
    return section


def _include(item: Node, chain: tuple[Path, ...], env: Mapping[str, str], found: Sources) -> None:
    folder, pattern = found.folders[item.mark.file], str(item.value)
    matches = glob.glob(str(folder / pattern), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute patterns
    paths = sorted(path for path in map(Path, matches) if not path.is_dir())
    if not paths and not glob.has_magic(pattern):
        found.complain(item.mark, item.path, f"no file '{item.written}'; paths start at the folder of {item.mark.file}")
    for path in paths:
        if path.resolve() in {file.resolve() for file in chain}:
            way = " -> ".join(str(file) for file in (*chain, path))
            found.complain(item.mark, item.path, f"a file includes itself: {way}")
        elif path.resolve() not in {file.resolve() for file in found.files}:
            found.files.append(path)
            text = _read(path, item.mark, item.path, found)
            tree = None if text is None else _tree(text, str(path), path.parent, env, found)
            if tree is not None:
                _refuse_sections(tree, found)
                _take(tree, (*chain, path), env, found)


def _refuse_sections(tree: Node, found: Sources) -> None:
    """An included file holds shared sections only."""
    for name, node in tree.entries.items():
        if name in Config.model_fields and name not in SHARED:
            found.complain(
                node.key, node.path, f"'{name}' belongs in the main file; here stand probes, receivers, routes"
            )
        elif name not in SHARED:
            found.complain(node.key, node.path, f"unknown section{did_you_mean(name, SHARED)}")
        elif name == "version" and node.value != 1:
            found.complain(node.mark, node.path, "expected 1")


def _under(defaults: Node | None, probe: Node) -> Node:
    """The probe with the defaults for what it does not say itself."""
    own = probe.value
    if defaults is None or not isinstance(own, dict):
        return probe
    given = {name: node for name, node in defaults.entries.items() if name in Common.model_fields}
    for name in _yielding(own, given):
        given.pop(name, None)
    merged = {**own, **{name: node for name, node in given.items() if name not in own}}
    if "alert" in own and "alert" in given and isinstance(own["alert"].value, dict):
        merged["alert"] = replace(own["alert"], value={**given["alert"].entries, **own["alert"].value})
    return replace(probe, value=merged)


def _yielding(own: Mapping[str, Node], given: Mapping[str, Node]) -> Iterator[str]:
    """Defaults that make way for how a probe says it runs."""
    for kind in own.keys() & KINDS.keys():
        yield from KINDS[kind].refuses
    if "schedule" in own:
        yield "every"
    if "every" in own:
        yield "schedule"
        if "recheck" in given and "recheck" not in own and _length(given["recheck"]) > _length(own["every"]):
            yield "recheck"


def _length(node: Node) -> int:
    try:
        return parse_duration(node.value)
    except ValueError:
        return 0
