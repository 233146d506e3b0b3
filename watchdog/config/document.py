"""One YAML file as a tree of nodes that know where they stand, what was written and what a variable made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from watchdog.config.interpolate import interpolate
from watchdog.config.problems import Mark, Problem
from watchdog.config.scalars import resolve, tagged
from watchdog.model import Json, Scalar

DEEPEST = 64
MOST_UNFOLDED = 50_000
"""Values that aliases may add to those written out."""

Content: TypeAlias = "Scalar | list[Node] | dict[str, Node]"


@dataclass(slots=True)
class Node:
    """One value of a file."""

    value: Content
    mark: Mark
    path: str
    key: Mark
    """Where its key stands; where it stands itself when it has none."""
    written: Scalar = None
    """A scalar as it was written, variables not filled in."""
    text: str | None = None
    """A scalar's text after its variables were filled in; None: it names none."""
    variables: Mapping[str, str] = field(default_factory=dict)
    broken: bool = False
    """A problem has been reported for it: its value means nothing."""

    def plain(self) -> Json:
        """The value as Python's own types."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def as_written(self) -> Json:
        """The same, variables not filled in."""
        if isinstance(self.value, dict):
            return {key: node.as_written() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.as_written() for node in self.value]
        return self.written

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for node in (*self.entries.values(), *self.items):
            yield from node.walk()

    @property
    def entries(self) -> Mapping[str, Node]:
        """The entries of a mapping; none for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[Node]:
        """The items of a list; none for anything else."""
        return self.value if isinstance(self.value, list) else []


def parse(text: str, file: str, env: Mapping[str, str]) -> tuple[Node | None, list[Problem]]:
    """The root of a file's tree, and what is wrong with it as YAML. No tree when it is no YAML at all."""
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as e:
        return None, [_no_yaml(e, text, file)]
    except (yaml.reader.ReaderError, UnicodeEncodeError) as e:
        position = e.position if isinstance(e, yaml.reader.ReaderError) else e.start
        before = text[:position]
        line, column = before.count("\n") + 1, position - before.rfind("\n")
        return None, [Problem(file, line, column, "", "a control character, which YAML does not allow")]
    if root is None:
        return None, [
            Problem(file, 0, 0, "", "the file is empty: a probe needs a name and a kind, see 'watchdog init'")
        ]
    reader = _Reader(file, env)
    if not reader.unfolds(root):
        return None, reader.problems
    node = reader.node(root, "", None)
    return node, reader.problems


# --- from text to PyYAML's nodes

_PLAIN, _QUOTED = "plain", "quoted"
_CORE = "tag:yaml.org,2002:"
_TAGS = ("str", "int", "float", "bool", "null")


class _TooDeepError(yaml.MarkedYAMLError):
    pass


class _Loader(yaml.CBaseLoader):
    """Composes nodes only. Tags say how a scalar was written; what it means is YAML 1.2's business, not PyYAML's."""

    _depth = 0

    def resolve(self, kind: type[yaml.Node], _value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _QUOTED
        return "map" if kind is yaml.MappingNode else "seq"

    def descend_resolver(self, current: yaml.Node | None, _index: Any) -> None:
        self._depth += 1
        if self._depth > DEEPEST + 2:  # the composer recurses in C: far deeper, and the process is gone
            raise _TooDeepError(problem="too deep", problem_mark=current.start_mark if current else None)

    def ascend_resolver(self) -> None:
        self._depth -= 1


def _no_yaml(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    """The first thing that is no YAML, told with what to do about it."""
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.splitlines() or [""]
    message = _no_yaml_because(error, lines[line] if line < len(lines) else "", column)
    if line >= len(lines):  # beyond the end: show where it begins, or the end
        begin = error.context_mark
        inside = begin is not None and begin.line < len(lines)
        line, column = (begin.line, begin.column) if begin and inside else (len(lines) - 1, len(lines[-1]))
    return Problem(file, line + 1, column + 1, "", message)


def _no_yaml_because(error: yaml.MarkedYAMLError, line: str, column: int) -> str:
    problem, context = error.problem or "", error.context or ""
    if isinstance(error, _TooDeepError):
        return f"nested deeper than {DEEPEST} levels"
    character = line[column : column + 1]
    if "cannot start any token" in problem:
        if character == "\t":
            return "a tab: YAML is indented with spaces"
        return f"a value cannot start with {character}: put it in quotes"
    if "flow" in context and "${" in line:
        return 'inside { } and [ ] a variable needs quotes: "${NAME}"'
    begun = f" that begins in line {error.context_mark.line + 1}" if error.context_mark else ""
    for words, message in _MESSAGES:
        if words in f"{context}: {problem}":
            return message.format(begun=begun)
    return f"not YAML: {problem}"


_MESSAGES = (
    ("flow sequence", "expected ',' or ']' to go on with the list{begun}"),
    ("flow mapping", "expected ',' or '}}' to go on with the mapping{begun}"),
    ("mapping values are not allowed", "a ':' where none may stand: quote the value, or check the indentation"),
    ("block sequence entries are not allowed", "a list begins on a line of its own, one '- ' a line"),
    ("did not find expected key", "the indentation fits no line of the mapping{begun}"),
    ("expected '-' indicator", "expected '- ' to go on with the list{begun}: check the indentation"),
    ("could not find expected ':'", "expected 'name: value'"),
    ("unexpected end of stream", "a quote{begun} is not closed"),
    ("expected node content", "a value is missing here"),
    ("unknown escape character", "an unknown escape in double quotes: write \\\\ for \\, or use single quotes"),
    ("undefined alias", "an alias (*) of an anchor (&) that is not defined above"),
    ("duplicate anchor", "the same anchor (&) twice"),
    ("single document", "a second document ('---'): a file holds one"),
    ("undefined tag handle", "an unknown tag"),
)  # fmt: skip


# --- from PyYAML's nodes to ours


class _Reader:
    def __init__(self, file: str, env: Mapping[str, str]):
        self.file, self.env = file, env
        self.problems: list[Problem] = []

    def unfolds(self, root: yaml.Node) -> bool:
        """Whether the tree stays small once aliases are followed; says why not."""
        sizes: dict[int, tuple[int, int]] = {}
        own = 0

        def measure(node: yaml.Node) -> tuple[int, int]:
            nonlocal own
            if (known := sizes.get(id(node))) is not None:
                if known == (0, 0):
                    raise _UnfoldError(node, "an alias (*) inside of its own anchor (&)")
                return known
            own += 1
            sizes[id(node)] = (0, 0)
            below = [] if isinstance(node, yaml.ScalarNode) else node.value
            if isinstance(node, yaml.MappingNode):
                below = [part for pair in node.value for part in pair]
            measured = [measure(part) for part in below]
            size = 1 + sum(size for size, _ in measured)
            depth = 1 + max((depth for _, depth in measured), default=0)
            if depth > DEEPEST:
                raise _UnfoldError(node, f"nested deeper than {DEEPEST} levels")
            sizes[id(node)] = (size, depth)
            return size, depth

        try:
            size, _ = measure(root)
            if size - own > MOST_UNFOLDED:
                raise _UnfoldError(root, f"aliases (*) unfold to more than {MOST_UNFOLDED:,} values")
        except _UnfoldError as e:
            self.complain(self.at(e.node), "", e.args[1])
            return False
        return True

    def complain(self, mark: Mark, path: str, message: str) -> None:
        self.problems.append(Problem(*mark, path, message))

    def at(self, node: yaml.Node) -> Mark:
        return Mark(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def node(self, node: yaml.Node, path: str, key: Mark | None) -> Node:
        mark = self.at(node)
        tree = Node(None, mark, path, key or mark)
        if isinstance(node, yaml.ScalarNode):
            self.scalar(node, tree)
        elif node.tag not in ("map", "seq", f"{_CORE}map", f"{_CORE}seq"):
            self.unknown_tag(node, tree)
        elif isinstance(node, yaml.MappingNode):
            tree.value = self.mapping(node, path)
        else:
            tree.value = [self.node(item, f"{path}.{i}" if path else str(i), None) for i, item in enumerate(node.value)]
        return tree

    def unknown_tag(self, node: yaml.Node, tree: Node) -> None:
        tree.broken = True
        tag = node.tag.replace(_CORE, "!!")
        self.complain(tree.mark, tree.path, f"unknown tag {tag}: values here are text, numbers, lists and mappings")

    def scalar(self, node: yaml.ScalarNode, tree: Node) -> None:
        tag, text = node.tag, node.value
        tree.written = text
        if tag not in (_PLAIN, _QUOTED) and (not tag.startswith(_CORE) or tag.removeprefix(_CORE) not in _TAGS):
            return self.unknown_tag(node, tree)
        try:
            if "$" in text:
                text, tree.variables = interpolate(text, self.env)
                tree.text = text
            if tag == _PLAIN:
                tree.value = resolve(text)
            else:
                tree.value = text if tag == _QUOTED else tagged(tag.removeprefix(_CORE), text)
            if tree.text is None:
                tree.written = tree.value
            elif tree.value is None:
                tree.value = text  # an empty variable is empty text, never "nothing was given"
        except ValueError as e:
            tree.value, tree.broken = text, True
            self.complain(tree.mark, tree.path, str(e))
        return None

    def mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key, value in node.value:
            mark = self.at(key)
            name = self.name(key, path)
            if name is None:
                continue
            below = f"{path}.{shown(name)}" if path else shown(name)
            if name in entries:
                self.complain(mark, below, f"the same key again; the first is in line {entries[name].key.line}")
            else:
                entries[name] = self.node(value, below, mark)
        return entries

    def name(self, key: yaml.Node, path: str) -> str | None:
        """A mapping's key, if it is text."""
        mark = self.at(key)
        if not isinstance(key, yaml.ScalarNode) or key.tag not in (_PLAIN, _QUOTED, f"{_CORE}str"):
            self.complain(mark, path, "a key is plain text")
            return None
        text = str(key.value)
        if key.tag != _PLAIN:
            return text
        if text == "<<":
            self.complain(mark, path, "merge keys (<<) are not part of YAML 1.2: use 'defaults', or repeat the fields")
            return None
        try:
            is_text = isinstance(resolve(text), str)
        except ValueError:
            is_text = False
        if not is_text:
            why = f'a key is text: write "{shown(text)}"' if text else "a key is missing before ':'"
            self.complain(mark, path, why)
            return None
        return text


class _UnfoldError(Exception):
    def __init__(self, node: yaml.Node, message: str):
        super().__init__(node, message)
        self.node = node


def shown(key: str) -> str:
    """A key as paths and messages show it."""
    text = key if key and key.isprintable() else repr(key)
    return text if len(text) <= 60 else f"{text[:60]}…"
