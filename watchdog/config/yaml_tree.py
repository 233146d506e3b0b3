"""One YAML file as a tree of nodes that know where they stand, what was written and what a variable made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from watchdog.config.problems import ConfigProblem, SourceLocation
from watchdog.config.references import interpolate
from watchdog.config.scalars import parse_plain_scalar, parse_tagged_scalar

if TYPE_CHECKING:
    from watchdog.domain.model import Json, Scalar

MAX_NESTING_DEPTH = 64
MAX_ALIAS_EXPANDED_VALUES = 50_000
"""Values that aliases may add to those written out."""

NodeValue: TypeAlias = "Scalar | list[YamlNode] | dict[str, YamlNode]"


@dataclass(slots=True)
class YamlNode:
    """One value of a file."""

    value: NodeValue
    location: SourceLocation
    path: str
    key_location: SourceLocation
    """Where its key stands; where it stands itself when it has none."""
    raw_value: Scalar = None
    """A scalar as it was written, variables not filled in."""
    interpolated_text: str | None = None
    """A scalar's text after its variables were filled in; None: it names none."""
    variables: Mapping[str, str] = field(default_factory=dict)
    invalid: bool = False
    """A problem has been reported for it: its value means nothing."""

    def to_python(self) -> Json:
        """The value as Python's own types."""
        if isinstance(self.value, dict):
            return {key: node.to_python() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.to_python() for node in self.value]
        return self.value

    def to_raw_python(self) -> Json:
        """The same, variables not filled in."""
        if isinstance(self.value, dict):
            return {key: node.to_raw_python() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.to_raw_python() for node in self.value]
        return self.raw_value

    def walk(self) -> Iterator[YamlNode]:
        """This node and all below it."""
        yield self
        for node in (*self.entries.values(), *self.items):
            yield from node.walk()

    @property
    def entries(self) -> Mapping[str, YamlNode]:
        """The entries of a mapping; none for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[YamlNode]:
        """The items of a list; none for anything else."""
        return self.value if isinstance(self.value, list) else []


def parse_yaml(text: str, file: str, env: Mapping[str, str]) -> tuple[YamlNode | None, list[ConfigProblem]]:
    """The root of a file's tree, and what is wrong with it as YAML. No tree when it is no YAML at all."""
    try:
        loader = _YamlLoader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as e:
        return None, [_syntax_problem(e, text, file)]
    except (yaml.reader.ReaderError, UnicodeEncodeError) as e:
        position = e.position if isinstance(e, yaml.reader.ReaderError) else e.start
        before = text[:position]
        line, column = before.count("\n") + 1, position - before.rfind("\n")
        return None, [ConfigProblem(file, line, column, "", "a control character, which YAML does not allow")]
    if root is None:
        return None, [
            ConfigProblem(file, 0, 0, "", "the file is empty: a probe needs a name and a kind, see 'watchdog init'")
        ]
    reader = _YamlTreeBuilder(file, env)
    if not reader.check_alias_expansion(root):
        return None, reader.problems
    node = reader.build_node(root, "", None)
    return node, reader.problems


# --- from text to PyYAML's nodes

_PLAIN_TAG, _QUOTED_TAG = "plain", "quoted"
_YAML_TAG_PREFIX = "tag:yaml.org,2002:"
_SCALAR_TAG_NAMES = ("str", "int", "float", "bool", "null")


class _NestingTooDeepError(yaml.MarkedYAMLError):
    pass


class _YamlLoader(yaml.CBaseLoader):
    """Composes nodes only. Tags say how a scalar was written; what it means is YAML 1.2's business, not PyYAML's."""

    _depth = 0

    def resolve(self, kind: type[yaml.Node], _value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return _PLAIN_TAG if implicit[0] else _QUOTED_TAG
        return "map" if kind is yaml.MappingNode else "seq"

    def descend_resolver(self, current: yaml.Node | None, _index: Any) -> None:
        self._depth += 1
        if self._depth > MAX_NESTING_DEPTH + 2:  # the composer recurses in C: far deeper, and the process is gone
            raise _NestingTooDeepError(problem="too deep", problem_mark=current.start_mark if current else None)

    def ascend_resolver(self) -> None:
        self._depth -= 1


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str) -> ConfigProblem:
    """The first thing that is no YAML, told with what to do about it."""
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.splitlines() or [""]
    message = _describe_syntax_error(error, lines[line] if line < len(lines) else "", column)
    if line >= len(lines):  # beyond the end: show where it begins, or the end
        begin = error.context_mark
        inside = begin is not None and begin.line < len(lines)
        line, column = (begin.line, begin.column) if begin and inside else (len(lines) - 1, len(lines[-1]))
    return ConfigProblem(file, line + 1, column + 1, "", message)


def _describe_syntax_error(error: yaml.MarkedYAMLError, line: str, column: int) -> str:
    problem, context = error.problem or "", error.context or ""
    if isinstance(error, _NestingTooDeepError):
        return f"nested deeper than {MAX_NESTING_DEPTH} levels"
    character = line[column : column + 1]
    if "cannot start any token" in problem:
        if character == "\t":
            return "a tab: YAML is indented with spaces"
        return f"a value cannot start with {character}: put it in quotes"
    if "flow" in context and "${" in line:
        return 'inside { } and [ ] a variable needs quotes: "${NAME}"'
    begun = f" that begins in line {error.context_mark.line + 1}" if error.context_mark else ""
    for words, message in _SYNTAX_ERROR_MESSAGES:
        if words in f"{context}: {problem}":
            return message.format(begun=begun)
    return f"not YAML: {problem}"


_SYNTAX_ERROR_MESSAGES = (
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


class _YamlTreeBuilder:
    def __init__(self, file: str, env: Mapping[str, str]):
        self.file, self.env = file, env
        self.problems: list[ConfigProblem] = []

    def check_alias_expansion(self, root: yaml.Node) -> bool:
        """Whether the tree stays small once aliases are followed; says why not."""
        sizes: dict[int, tuple[int, int]] = {}
        own = 0

        def measure(node: yaml.Node) -> tuple[int, int]:
            nonlocal own
            if (known := sizes.get(id(node))) is not None:
                if known == (0, 0):
                    raise _AliasExpansionError(node, "an alias (*) inside of its own anchor (&)")
                return known
            own += 1
            sizes[id(node)] = (0, 0)
            below = [] if isinstance(node, yaml.ScalarNode) else node.value
            if isinstance(node, yaml.MappingNode):
                below = [part for pair in node.value for part in pair]
            measured = [measure(part) for part in below]
            size = 1 + sum(size for size, _ in measured)
            depth = 1 + max((depth for _, depth in measured), default=0)
            if depth > MAX_NESTING_DEPTH:
                raise _AliasExpansionError(node, f"nested deeper than {MAX_NESTING_DEPTH} levels")
            sizes[id(node)] = (size, depth)
            return size, depth

        try:
            size, _ = measure(root)
            if size - own > MAX_ALIAS_EXPANDED_VALUES:
                raise _AliasExpansionError(
                    root, f"aliases (*) unfold to more than {MAX_ALIAS_EXPANDED_VALUES:,} values"
                )
        except _AliasExpansionError as e:
            self.add_problem(self.location_of(e.node), "", e.args[1])
            return False
        return True

    def add_problem(self, location: SourceLocation, path: str, message: str) -> None:
        self.problems.append(ConfigProblem(*location, path, message))

    def location_of(self, node: yaml.Node) -> SourceLocation:
        return SourceLocation(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def build_node(self, node: yaml.Node, path: str, key_location: SourceLocation | None) -> YamlNode:
        mark = self.location_of(node)
        tree = YamlNode(None, mark, path, key_location or mark)
        if isinstance(node, yaml.ScalarNode):
            self.fill_scalar(node, tree)
        elif node.tag not in ("map", "seq", f"{_YAML_TAG_PREFIX}map", f"{_YAML_TAG_PREFIX}seq"):
            self.reject_unknown_tag(node, tree)
        elif isinstance(node, yaml.MappingNode):
            tree.value = self.build_mapping(node, path)
        else:
            tree.value = [
                self.build_node(item, f"{path}.{i}" if path else str(i), None) for i, item in enumerate(node.value)
            ]
        return tree

    def reject_unknown_tag(self, node: yaml.Node, tree: YamlNode) -> None:
        tree.invalid = True
        tag = node.tag.replace(_YAML_TAG_PREFIX, "!!")
        self.add_problem(
            tree.location, tree.path, f"unknown tag {tag}: values here are text, numbers, lists and mappings"
        )

    def fill_scalar(self, node: yaml.ScalarNode, tree: YamlNode) -> None:
        tag, text = node.tag, node.value
        tree.raw_value = text
        if tag not in (_PLAIN_TAG, _QUOTED_TAG) and (
            not tag.startswith(_YAML_TAG_PREFIX) or tag.removeprefix(_YAML_TAG_PREFIX) not in _SCALAR_TAG_NAMES
        ):
            return self.reject_unknown_tag(node, tree)
        try:
            if "$" in text:
                text, tree.variables = interpolate(text, self.env)
                tree.interpolated_text = text
            if tag == _PLAIN_TAG:
                tree.value = parse_plain_scalar(text)
            else:
                tree.value = (
                    text if tag == _QUOTED_TAG else parse_tagged_scalar(tag.removeprefix(_YAML_TAG_PREFIX), text)
                )
            if tree.interpolated_text is None:
                tree.raw_value = tree.value
            elif tree.value is None:
                tree.value = text  # an empty variable is empty text, never "nothing was given"
        except ValueError as e:
            tree.value, tree.invalid = text, True
            self.add_problem(tree.location, tree.path, str(e))
        return None

    def build_mapping(self, node: yaml.MappingNode, path: str) -> dict[str, YamlNode]:
        entries: dict[str, YamlNode] = {}
        for key, value in node.value:
            mark = self.location_of(key)
            name = self.parse_key(key, path)
            if name is None:
                continue
            below = f"{path}.{format_key(name)}" if path else format_key(name)
            if name in entries:
                self.add_problem(
                    mark, below, f"the same key again; the first is in line {entries[name].key_location.line}"
                )
            else:
                entries[name] = self.build_node(value, below, mark)
        return entries

    def parse_key(self, key: yaml.Node, path: str) -> str | None:
        """A mapping's key, if it is text."""
        mark = self.location_of(key)
        if not isinstance(key, yaml.ScalarNode) or key.tag not in (_PLAIN_TAG, _QUOTED_TAG, f"{_YAML_TAG_PREFIX}str"):
            self.add_problem(mark, path, "a key is plain text")
            return None
        text = str(key.value)
        if key.tag != _PLAIN_TAG:
            return text
        if text == "<<":
            self.add_problem(
                mark, path, "merge keys (<<) are not part of YAML 1.2: use 'defaults', or repeat the fields"
            )
            return None
        try:
            is_text = isinstance(parse_plain_scalar(text), str)
        except ValueError:
            is_text = False
        if not is_text:
            why = f'a key is text: write "{format_key(text)}"' if text else "a key is missing before ':'"
            self.add_problem(mark, path, why)
            return None
        return text


class _AliasExpansionError(Exception):
    def __init__(self, node: yaml.Node, message: str):
        super().__init__(node, message)
        self.node = node


def format_key(key: str) -> str:
    """A key as paths and messages show it."""
    text = key if key and key.isprintable() else repr(key)
    return text if len(text) <= 60 else f"{text[:60]}…"
