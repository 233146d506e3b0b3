"""A YAML file as a tree of nodes: their location, their text as written, and their value with variables replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from watchdog.config.problems import ConfigProblem, ConfigSourceLocation
from watchdog.config.references import interpolate_config_variables
from watchdog.config.scalars import parse_plain_yaml_scalar, parse_tagged_yaml_scalar

if TYPE_CHECKING:
    from watchdog.domain.model import Json, JsonScalar

MAX_YAML_NESTING_DEPTH = 64
MAX_YAML_ALIAS_EXPANDED_VALUES = 50_000
"""The number of values that aliases may add to those written out."""

YamlNodeValue: TypeAlias = "JsonScalar | list[YamlNode] | dict[str, YamlNode]"


@dataclass(slots=True)
class YamlNode:
    """One value of a file."""

    value: YamlNodeValue
    location: ConfigSourceLocation
    path: str
    key_location: ConfigSourceLocation
    """The location of its key, or its own if it has no key."""
    raw_value: JsonScalar = None
    """A scalar as written, variables not replaced."""
    interpolated_text: str | None = None
    """The text of a scalar with its variables replaced; None: it contains no variables."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Name -> value of the variables in a scalar."""
    invalid: bool = False
    """Whether a problem has been reported for the node. Its value is then meaningless."""

    def to_python(self, *, raw: bool = False) -> Json:
        """The value as built-in types. `raw`: variables not replaced."""
        if isinstance(self.value, dict):
            return {key: node.to_python(raw=raw) for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.to_python(raw=raw) for node in self.value]
        return self.raw_value if raw else self.value

    def walk(self) -> Iterator[YamlNode]:
        """This node and all nodes inside it."""
        yield self
        for node in (*self.mapping_entries.values(), *self.list_items):
            yield from node.walk()

    @property
    def mapping_entries(self) -> Mapping[str, YamlNode]:
        """The entries of a mapping; empty for other values."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def list_items(self) -> list[YamlNode]:
        """The items of a list; empty for other values."""
        return self.value if isinstance(self.value, list) else []


def parse_yaml_with_problems(
    text: str, file: str, env: Mapping[str, str]
) -> tuple[YamlNode | None, list[ConfigProblem]]:
    """The root of the tree, and the problems found. The root is None if the text is not YAML."""
    try:
        root = compose_yaml_node(text)
    except yaml.MarkedYAMLError as e:
        return None, [_build_yaml_syntax_problem(e, text, file)]
    except (yaml.reader.ReaderError, UnicodeEncodeError) as e:
        position = e.position if isinstance(e, yaml.reader.ReaderError) else e.start
        before = text[:position]
        line, column = before.count("\n") + 1, position - before.rfind("\n")
        return None, [ConfigProblem(file, line, column, "", "control characters are not allowed in YAML")]
    if root is None:
        return None, [
            ConfigProblem(file, 0, 0, "", "the file is empty; `watchdog init` creates a starter configuration")
        ]
    reader = _YamlTreeBuilder(file, env)
    if not reader.is_alias_expansion_within_limits(root):
        return None, reader.problems
    node = reader.build_yaml_node(root, "", None)
    return node, reader.problems


# --- from text to PyYAML's nodes


def compose_yaml_node(text: str) -> yaml.Node | None:
    """PyYAML's tree, in which tags state whether a scalar is plain or quoted. Raises yaml.YAMLError."""
    loader = _YamlLoader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
    finally:
        loader.dispose()
    return node


_PLAIN_SCALAR_TAG, _QUOTED_SCALAR_TAG = "plain", "quoted"
_YAML_TAG_PREFIX = "tag:yaml.org,2002:"
_YAML_SCALAR_TAG_SUFFIXES = ("str", "int", "float", "bool", "null")


class _YamlNestingTooDeepError(yaml.MarkedYAMLError):
    pass


class _YamlLoader(yaml.CBaseLoader):
    """Composes nodes only. Tags record whether a scalar is quoted: PyYAML would resolve it by the rules of YAML 1.1."""

    _depth = 0

    def resolve(self, kind: type[yaml.Node], _value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return _PLAIN_SCALAR_TAG if implicit[0] else _QUOTED_SCALAR_TAG
        return "map" if kind is yaml.MappingNode else "seq"

    def descend_resolver(self, current: yaml.Node | None, _index: Any) -> None:
        self._depth += 1
        if self._depth > MAX_YAML_NESTING_DEPTH + 2:  # the composer recurses in C: deep nesting would crash the process
            raise _YamlNestingTooDeepError(problem="too deep", problem_mark=current.start_mark if current else None)

    def ascend_resolver(self) -> None:
        self._depth -= 1


def _build_yaml_syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str) -> ConfigProblem:
    """A syntax error with its location and what to change."""
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.splitlines() or [""]
    message = _describe_yaml_syntax_error(error, lines[line] if line < len(lines) else "", column)
    if line >= len(lines):  # beyond the end of the file: point to the start of the construct, or to the last character
        start = error.context_mark
        inside = start is not None and start.line < len(lines)
        line, column = (start.line, start.column) if start and inside else (len(lines) - 1, len(lines[-1]))
    return ConfigProblem(file, line + 1, column + 1, "", message)


def _describe_yaml_syntax_error(error: yaml.MarkedYAMLError, line: str, column: int) -> str:
    problem, context = error.problem or "", error.context or ""
    if isinstance(error, _YamlNestingTooDeepError):
        return f"nested deeper than {MAX_YAML_NESTING_DEPTH} levels"
    character = line[column : column + 1]
    if "cannot start any token" in problem:
        if character == "\t":
            return "YAML is indented with spaces: replace the tab"
        return f"a value cannot start with {character}: put it in quotes"
    if "flow" in context and "${" in line:
        return 'inside { } and [ ] a variable must be quoted: "${NAME}"'
    start = f" that starts on line {error.context_mark.line + 1}" if error.context_mark else ""
    for text, message in _YAML_SYNTAX_ERROR_MESSAGES:
        if text in f"{context}: {problem}":
            return message.format(start=start)
    return f"invalid YAML: {problem}"


_YAML_SYNTAX_ERROR_MESSAGES = (
    ("flow sequence", "expected ',' or ']' to continue or close the list{start}"),
    ("flow mapping", "expected ',' or '}}' to continue or close the mapping{start}"),
    ("mapping values are not allowed", "unexpected ':': quote the value, or check the indentation"),
    ("block sequence entries are not allowed", "unexpected '- ': start the list on a new line"),
    ("did not find expected key", "the indentation does not match the mapping{start}"),
    ("expected '-' indicator", "expected '- ' to continue the list{start}: check the indentation"),
    ("could not find expected ':'", "expected 'name: value'"),
    ("unexpected end of stream", "the quote{start} is not closed"),
    ("expected node content", "a value is missing here"),
    ("unknown escape character", "unknown escape in double quotes: write \\\\ for \\, or use single quotes"),
    ("undefined alias", "the alias (*) refers to an anchor (&) that is not defined above"),
    ("duplicate anchor", "duplicate anchor (&): rename one of them"),
    ("single document", "the file contains a second document ('---'), but only one is allowed"),
    ("undefined tag handle", "unknown tag"),
)  # fmt: skip


# --- from PyYAML's nodes to YamlNode


class _YamlTreeBuilder:
    def __init__(self, file: str, env: Mapping[str, str]):
        self.file, self.env = file, env
        self.problems: list[ConfigProblem] = []

    def is_alias_expansion_within_limits(self, root: yaml.Node) -> bool:
        """Whether the tree stays within bounds once aliases are expanded. If not, the problem is added."""
        sizes: dict[int, tuple[int, int]] = {}  # id of a node -> its expanded size and depth; (0, 0) while measuring
        node_count = 0

        def measure(node: yaml.Node) -> tuple[int, int]:
            nonlocal node_count
            if (measured := sizes.get(id(node))) is not None:
                if measured == (0, 0):
                    raise _YamlAliasExpansionError(node, "the alias (*) refers to an anchor (&) that contains it")
                return measured
            node_count += 1
            sizes[id(node)] = (0, 0)
            children = [] if isinstance(node, yaml.ScalarNode) else node.value
            if isinstance(node, yaml.MappingNode):
                children = [part for pair in node.value for part in pair]
            child_sizes = [measure(child) for child in children]
            size = 1 + sum(size for size, _ in child_sizes)
            depth = 1 + max((depth for _, depth in child_sizes), default=0)
            if depth > MAX_YAML_NESTING_DEPTH:
                raise _YamlAliasExpansionError(node, f"nested deeper than {MAX_YAML_NESTING_DEPTH} levels")
            sizes[id(node)] = (size, depth)
            return size, depth

        try:
            size, _ = measure(root)
            if size - node_count > MAX_YAML_ALIAS_EXPANDED_VALUES:
                raise _YamlAliasExpansionError(
                    root, f"aliases (*) expand to more than {MAX_YAML_ALIAS_EXPANDED_VALUES:,} values"
                )
        except _YamlAliasExpansionError as e:
            self.add_problem(self.get_yaml_node_location(e.node), "", e.args[1])
            return False
        return True

    def add_problem(self, location: ConfigSourceLocation, path: str, message: str) -> None:
        self.problems.append(ConfigProblem(*location, path, message))

    def get_yaml_node_location(self, node: yaml.Node) -> ConfigSourceLocation:
        return ConfigSourceLocation(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def build_yaml_node(self, node: yaml.Node, path: str, key_location: ConfigSourceLocation | None) -> YamlNode:
        mark = self.get_yaml_node_location(node)
        tree = YamlNode(None, mark, path, key_location or mark)
        if isinstance(node, yaml.ScalarNode):
            self.parse_yaml_scalar_into_node(node, tree)
        elif node.tag not in ("map", "seq", f"{_YAML_TAG_PREFIX}map", f"{_YAML_TAG_PREFIX}seq"):
            self.report_unknown_yaml_tag(node, tree)
        elif isinstance(node, yaml.MappingNode):
            tree.value = self.build_yaml_mapping_entries(node, path)
        else:
            tree.value = [
                self.build_yaml_node(item, f"{path}.{i}" if path else str(i), None) for i, item in enumerate(node.value)
            ]
        return tree

    def report_unknown_yaml_tag(self, node: yaml.Node, tree: YamlNode) -> None:
        tree.invalid = True
        tag = node.tag.replace(_YAML_TAG_PREFIX, "!!")
        self.add_problem(tree.location, tree.path, f"unsupported tag {tag}: use text, numbers, lists and mappings only")

    def parse_yaml_scalar_into_node(self, node: yaml.ScalarNode, tree: YamlNode) -> None:
        tag, text = node.tag, node.value
        tree.raw_value = text
        if tag not in (_PLAIN_SCALAR_TAG, _QUOTED_SCALAR_TAG) and (
            not tag.startswith(_YAML_TAG_PREFIX) or tag.removeprefix(_YAML_TAG_PREFIX) not in _YAML_SCALAR_TAG_SUFFIXES
        ):
            return self.report_unknown_yaml_tag(node, tree)
        try:
            if "$" in text:
                text, tree.variables = interpolate_config_variables(text, self.env)
                tree.interpolated_text = text
            if tag == _PLAIN_SCALAR_TAG:
                tree.value = parse_plain_yaml_scalar(text)
            else:
                tree.value = (
                    text
                    if tag == _QUOTED_SCALAR_TAG
                    else parse_tagged_yaml_scalar(tag.removeprefix(_YAML_TAG_PREFIX), text)
                )
            if tree.interpolated_text is None:
                tree.raw_value = tree.value
            elif tree.value is None:
                tree.value = text  # an empty variable is empty text, not a missing value
        except ValueError as e:
            tree.value, tree.invalid = text, True
            self.add_problem(tree.location, tree.path, str(e))
        return None

    def build_yaml_mapping_entries(self, node: yaml.MappingNode, path: str) -> dict[str, YamlNode]:
        entries: dict[str, YamlNode] = {}
        for key, value in node.value:
            mark = self.get_yaml_node_location(key)
            name = self.parse_yaml_mapping_key(key, path)
            if name is None:
                continue
            entry_path = f"{path}.{format_yaml_key_for_message(name)}" if path else format_yaml_key_for_message(name)
            if name in entries:
                message = f"duplicate key: already set on line {entries[name].key_location.line}"
                self.add_problem(mark, entry_path, message)
            else:
                entries[name] = self.build_yaml_node(value, entry_path, mark)
        return entries

    def parse_yaml_mapping_key(self, key: yaml.Node, path: str) -> str | None:
        """The key of a mapping. None if it is not text; the problem is then added."""
        mark = self.get_yaml_node_location(key)
        if not isinstance(key, yaml.ScalarNode) or key.tag not in (
            _PLAIN_SCALAR_TAG,
            _QUOTED_SCALAR_TAG,
            f"{_YAML_TAG_PREFIX}str",
        ):
            self.add_problem(mark, path, "a key must be plain text")
            return None
        text = str(key.value)
        if key.tag != _PLAIN_SCALAR_TAG:
            return text
        if text == "<<":
            self.add_problem(
                mark, path, "merge keys (<<) are not part of YAML 1.2: use 'defaults', or repeat the fields"
            )
            return None
        try:
            is_text = isinstance(parse_plain_yaml_scalar(text), str)
        except ValueError:
            is_text = False
        if not is_text:
            message = (
                f'a key must be text: write "{format_yaml_key_for_message(text)}"'
                if text
                else "a key is missing before ':'"
            )
            self.add_problem(mark, path, message)
            return None
        return text


class _YamlAliasExpansionError(Exception):
    def __init__(self, node: yaml.Node, message: str):
        super().__init__(node, message)
        self.node = node


def format_yaml_key_for_message(key: str) -> str:
    """A key as shown in paths and messages."""
    text = key if key and key.isprintable() else repr(key)
    return text if len(text) <= 60 else f"{text[:60]}…"
