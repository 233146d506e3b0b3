"""Where the parts of a YAML text are written, so that one can be replaced while the rest stays byte for byte.

Only the block style is divided into lines: what is written in [ ] or { } is one part.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import yaml

from watchdog.config.yaml_tree import compose_yaml_node

YamlStructure: TypeAlias = "str | tuple[str, str] | tuple[str, tuple[YamlStructure, ...]]"


class YamlSpan(NamedTuple):
    """A value in a text. The text of a block value ends with its last line, comments behind it included."""

    start: int
    end: int
    """Of what it consists of: blank lines and comments below do not count."""
    style: str
    """scalar, flow (in brackets), block, or alias."""
    column: int
    """Of its start, from 0."""
    text: str
    """Of a scalar, without quotes."""
    has_reference: bool
    """It contains an anchor or an alias."""


class YamlPairSpan(NamedTuple):
    """A key of a block mapping and its value."""

    key: YamlSpan
    value: YamlSpan


class YamlSpanReader:
    """Reads the spans of a text. All methods raise yaml.YAMLError if it is not YAML, or not in the expected style."""

    def __init__(self, text: str):
        self._loader: Any = yaml.CBaseLoader(text)
        self._text = text
        for expected in (yaml.StreamStartEvent, yaml.DocumentStartEvent):
            if not isinstance(self._loader.get_event(), expected):
                raise yaml.YAMLError("the text is empty")

    def iter_mapping(self) -> Iterator[YamlPairSpan]:
        """The pairs of the mapping that comes next, which must be in block style."""
        return (pair for pair, _ in self.iter_mapping_pair_spans_and_items_of_key(""))

    def iter_mapping_pair_spans_and_items_of_key(self, name: str) -> Iterator[tuple[YamlPairSpan, list[YamlSpan]]]:
        """As `iter_mapping`, with the items of the block sequence that has this key."""
        start = self._loader.get_event()
        if not isinstance(start, yaml.MappingStartEvent) or start.flow_style:
            raise yaml.YAMLError("not a mapping in block style")
        while not isinstance(self._loader.peek_event(), yaml.MappingEndEvent):
            key, value = self.read_value(), self._loader.peek_event()
            if key.text == name and isinstance(value, yaml.SequenceStartEvent) and not value.flow_style:
                self._loader.get_event()
                items = list(self._iter_sequence_items())
                yield YamlPairSpan(key, self._build_sequence_span(value, items)), items
            else:
                yield YamlPairSpan(key, self.read_value()), []

    @staticmethod
    def _build_sequence_span(start: Any, items: list[YamlSpan]) -> YamlSpan:
        mark = start.start_mark
        end = max([mark.index, *(item.end for item in items)])
        has_reference = any(item.has_reference for item in items)
        return YamlSpan(mark.index, end, style="block", column=mark.column, text="", has_reference=has_reference)

    def _iter_sequence_items(self) -> Iterator[YamlSpan]:
        while not isinstance(self._loader.peek_event(), yaml.SequenceEndEvent):
            yield self.read_value()
        self._loader.get_event()

    def read_value(self) -> YamlSpan:
        """The value that comes next, in any style."""
        first: Any = self._loader.get_event()
        event = first
        end, has_reference, open_styles = first.start_mark.index, False, list[bool]()
        while True:
            has_reference |= getattr(event, "anchor", None) is not None
            if isinstance(event, yaml.CollectionStartEvent):
                open_styles.append(bool(event.flow_style))
            elif not isinstance(event, yaml.CollectionEndEvent) or open_styles.pop():
                end = max(end, self._find_content_end(event))
            if not open_styles:
                break
            event = self._loader.get_event()
        style = "scalar" if isinstance(first, yaml.ScalarEvent) else "alias"
        if isinstance(first, yaml.CollectionStartEvent):
            style = "flow" if first.flow_style else "block"
        mark = first.start_mark
        text = getattr(first, "value", "")
        return YamlSpan(mark.index, end, style, mark.column, text=text, has_reference=has_reference)

    def _find_content_end(self, event: Any) -> int:
        end: int = event.end_mark.index
        is_block_scalar = isinstance(event, yaml.ScalarEvent) and event.style in ("|", ">")
        return len(self._text[:end].rstrip()) if is_block_scalar else end


def find_line_end(text: str, index: int) -> int:
    """The end of the line, without its line break."""
    end = text.find("\n", index)
    end = len(text) if end < 0 else end
    return end - 1 if end > index and text[end - 1] == "\r" else end


def find_line_start(text: str, index: int) -> int:
    return text.rfind("\n", 0, index) + 1


def skip_line_break(text: str, index: int) -> int:
    """The start of the next line, if the index is at the end of one."""
    return index + (2 if text.startswith("\r\n", index) else text.startswith("\n", index))


def skip_own_comments(text: str, end: int, column: int) -> int:
    """The end of the last comment below what ends at the end of a line, if it is further to the right than the
    column."""
    next_end = end
    while (line_start := skip_line_break(text, next_end)) > next_end:
        next_end = find_line_end(text, line_start)
        line = text[line_start:next_end]
        if line.strip() and not (line.lstrip(" ").startswith("#") and line[: column + 1].isspace()):
            break
        end = next_end if line.strip() else end
    return end


def parse_yaml_into_comparable_structure(text: str) -> YamlStructure:
    """All values of a text with their tags and whether they are quoted, to compare two texts. Aliases are expanded.
    Raises yaml.YAMLError."""
    node = compose_yaml_node(text)
    return "" if node is None else _convert_yaml_node_to_structure(node)


def _convert_yaml_node_to_structure(node: yaml.Node) -> YamlStructure:
    if isinstance(node, yaml.ScalarNode):
        return node.tag, node.value
    parts = (part for pair in node.value for part in pair) if isinstance(node, yaml.MappingNode) else node.value
    return node.tag, tuple(map(_convert_yaml_node_to_structure, parts))
