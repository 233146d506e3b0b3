"""The text of the managed file: which probes it holds, and how one is added, replaced or removed.

Only the lines of that probe change; everything else, comments included, stays byte for byte. Each new text is read
again and compared with the former one, so that no value can change what is around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import yaml

from watchdog.config.problems import ConfigProblem
from watchdog.config.sources import has_no_yaml_content
from watchdog.config.yaml_spans import (
    YamlPairSpan,
    YamlSpan,
    YamlSpanReader,
    YamlStructure,
    find_line_end,
    find_line_start,
    parse_yaml_into_comparable_structure,
    skip_line_break,
    skip_own_comments,
)
from watchdog.config.yaml_tree import YamlNode, parse_yaml_with_problems
from watchdog.config_values import slugify

MANAGED_FILE_HEADING = (
    "# Probes that operators have created on the pages or through the API. It may be edited by hand.\n"
)
_EDIT_BY_HAND = "edit the file by hand"


class ManagedTextError(Exception):
    """The text cannot be edited. The message states why and what to do."""


class AnyVariables(dict[str, str]):
    """An environment in which every variable is set, for texts of which only the structure matters."""

    def get(self, key: str, default: object = None) -> str:
        return "x"


@dataclass(frozen=True, slots=True)
class ManagedProbeEntry:
    """A probe in the managed file."""

    index: int
    """In the list `probes` of the file, from 0."""
    line: int
    """Of its start, from 1."""
    yaml: str
    """Its text, without the indentation of the list; ends without a line break. Empty: it cannot be edited alone."""
    name: str
    id: str


def compute_managed_version(content: bytes) -> str:
    """Of the bytes of the file; those of a file that is missing are empty."""
    return sha256(content).hexdigest()[:32]


def parse_probe_text_into_yaml_node(text: str) -> tuple[YamlNode | None, list[ConfigProblem]]:
    """The text of one probe as a tree, and what is no mapping in YAML about it."""
    node, problems = parse_yaml_with_problems(text, "", AnyVariables())
    if node is None:
        return None, problems
    if not isinstance(node.value, dict):
        return None, [ConfigProblem("", 1, 1, "", "expected the fields of one probe, such as `name: API`")]
    return node, problems


class ManagedFileText:
    """A version of the file. Raises ManagedTextError if it has no list that can be edited."""

    def __init__(self, content: bytes, name: str):
        try:
            self.text = content.decode("utf-8")
        except UnicodeDecodeError:
            raise ManagedTextError(f"{name} is not UTF-8 text: {_EDIT_BY_HAND}") from None
        self._name, self._body = name, self.text.removeprefix("\ufeff")
        self._offset = len(self.text) - len(self._body)
        self._list: YamlPairSpan | None = None
        self._items: list[YamlSpan] = []
        self._is_last_section = True
        self._other_sections: list[YamlStructure] = []
        self._structures: tuple[YamlStructure, ...] = ()
        self.entries: list[ManagedProbeEntry] = []
        if not has_no_yaml_content(self._body):
            self._parse_probe_list_into_entries()

    def _parse_probe_list_into_entries(self) -> None:
        tree, problems = parse_yaml_with_problems(self._body, self._name, AnyVariables())
        if tree is None:
            raise ManagedTextError(f"{problems[0]}; correct the file by hand")
        if twice := [problem for problem in problems if problem.path == "probes"]:
            raise ManagedTextError(f"{twice[0]}; correct the file by hand")
        try:
            for pair, items in YamlSpanReader(self._body).iter_mapping_pair_spans_and_items_of_key("probes"):
                self._is_last_section = pair.key.text == "probes"
                if self._is_last_section:
                    self._list, self._items = pair, items
        except yaml.YAMLError:
            message = f"{self._name} is not written as `probes:` with one `- name: ...` below it for each probe"
            raise ManagedTextError(f"{message}: {_EDIT_BY_HAND}") from None
        if (
            self._list is not None
            and not self._items
            and self._body[slice(*self._list.value[:2])] not in ("", "[]", "~")
        ):
            message = f"the list `probes` in {self._name} is written in brackets: begin a line with `- ` for each probe"
            raise ManagedTextError(message)
        self._other_sections, self._structures = _split_yaml_structure_into_other_sections_and_probes(
            parse_yaml_into_comparable_structure(self._body)
        )
        nodes = tree.mapping_entries["probes"].list_items if "probes" in tree.mapping_entries else []
        for index, (node, span) in enumerate(zip(nodes, self._items, strict=False)):
            self.entries.append(self._build_managed_probe_entry_from_yaml_node(index, node, span))

    def _build_managed_probe_entry_from_yaml_node(
        self, index: int, node: YamlNode, span: YamlSpan
    ) -> ManagedProbeEntry:
        name, id = (node.mapping_entries.get(field) for field in ("name", "id"))
        name_text = str(name.raw_value) if name is not None else ""
        id_text = str(id.raw_value) if id is not None else slugify(name_text)
        start, _ = self._find_text_span_of_probe_lines(index)
        line = self._body.count("\n", 0, start) + 1
        return ManagedProbeEntry(index, line, self._read_entry_text(index, span), name_text, id_text)

    @property
    def _probe_list_dash_column(self) -> int:
        return self._list.value.column if self._list is not None and self._items else 2

    def _find_text_span_of_probe_lines(self, index: int) -> tuple[int, int]:
        """The start of the line with the dash of an entry, and the end of its last line. Comments below it belong to it
        if they are further to the right than the dash."""
        span, column = self._items[index], self._probe_list_dash_column
        start = find_line_start(self._body, span.start)
        while self._body[start : start + column].strip(" ") or self._body[start + column : start + column + 1] != "-":
            if start == 0:
                raise ManagedTextError(
                    f"the probes in {self._name} are not written one below the other: {_EDIT_BY_HAND}"
                )
            start = find_line_start(self._body, start - 1)
        return start, skip_own_comments(self._body, find_line_end(self._body, span.end), column)

    def _read_entry_text(self, index: int, span: YamlSpan) -> str:
        """Empty if it cannot be edited alone: it shares values with others, or is no valid mapping."""
        if span.has_reference or span.style not in ("block", "flow"):
            return ""
        start, end = self._find_text_span_of_probe_lines(index)
        indentation = span.column if span.style == "block" else self._probe_list_dash_column + 2
        dash = start + self._probe_list_dash_column
        lines = f"{self._body[start:dash]} {self._body[dash + 1 : end]}".replace("\r\n", "\n").split("\n")
        text = "\n".join(_strip_up_to_n_leading_spaces_of_line(line, indentation) for line in lines).strip("\n")
        try:
            is_whole = parse_yaml_into_comparable_structure(f"{text}\n") == self._structures[index]
        except yaml.YAMLError:
            is_whole = False
        return text if is_whole and not parse_probe_text_into_yaml_node(text)[1] else ""

    # --- new texts

    def add(self, probe_yaml: str) -> str:
        """The text with another probe at its end."""
        body, line_break = self._body, self._line_break
        entry = self._render_entry(probe_yaml)
        if self._list is None:
            start = body if body.strip() else MANAGED_FILE_HEADING.replace("\n", line_break)
            new = f"{_end_line(start, line_break)}probes:{line_break}{entry}{line_break}"
        elif not self._items:
            span = self._list.value
            head = body[: span.start].rstrip(" ") if span.end > span.start else body[: span.start]
            end = find_line_end(body, span.end)
            new = f"{head}{body[span.end : end]}{line_break}{entry}{body[end:] or line_break}"
        elif self._is_last_section:
            new = f"{_end_line(body, line_break)}{entry}{line_break}"
        else:
            _, end = self._find_text_span_of_probe_lines(len(self._items) - 1)
            new = f"{body[:end]}{line_break}{entry}{body[end:]}"
        return self._check(new, len(self._items), replaced=0, probe_yaml=probe_yaml)

    def replace(self, index: int, probe_yaml: str) -> str:
        """The text with another content of a probe."""
        start, end = self._find_text_span_of_probe_lines(index)
        new = f"{self._body[:start]}{self._render_entry(probe_yaml)}{self._body[end:]}"
        return self._check(new, index, replaced=1, probe_yaml=probe_yaml)

    def remove(self, index: int) -> str:
        """The text without a probe."""
        body, (start, end) = self._body, self._find_text_span_of_probe_lines(index)
        rest = body[skip_line_break(body, end) :]
        if len(self._items) > 1 or self._list is None:
            return self._check(body[:start] + rest, index, replaced=1)
        colon = body.index(":", self._list.key.end) + 1
        return self._check(f"{body[:colon]} []{body[colon:start]}{rest}", index, replaced=1)

    @property
    def _line_break(self) -> str:
        return "\r\n" if "\r\n" in self._body else "\n"

    def _render_entry(self, probe_yaml: str) -> str:
        indentation = " " * self._probe_list_dash_column
        first, *others = probe_yaml.split("\n")
        if not first.strip() or first.lstrip().startswith("#"):
            first, others = "", [first, *others]
        lines = [f"{indentation}- {first}".rstrip(), *(f"{indentation}  {line}" if line else "" for line in others)]
        return self._line_break.join(lines)

    def _check(self, new: str, index: int, *, replaced: int, probe_yaml: str = "") -> str:
        """The new text, if it differs from the former one in nothing but this probe."""
        refused = ManagedTextError(
            f"the probe cannot be written into {self._name} without changing others: {_EDIT_BY_HAND}"
        )
        try:
            wanted = [parse_yaml_into_comparable_structure(f"{probe_yaml}\n")] if probe_yaml else []
            expected = (*self._structures[:index], *wanted, *self._structures[index + replaced :])
            if _split_yaml_structure_into_other_sections_and_probes(parse_yaml_into_comparable_structure(new)) != (
                self._other_sections,
                expected,
            ):
                raise refused
        except yaml.YAMLError:
            raise refused from None
        return self.text[: self._offset] + new


def _split_yaml_structure_into_other_sections_and_probes(
    root: YamlStructure,
) -> tuple[list[YamlStructure], tuple[YamlStructure, ...]]:
    """All sections but the probes, and the probes."""
    if not root:
        return [], ()
    parts = root[1]
    others: list[YamlStructure] = []
    probes: tuple[YamlStructure, ...] = ()
    for key, value in zip(parts[::2], parts[1::2], strict=True):
        if key[1] == "probes":
            probes = value[1] if isinstance(value[1], tuple) else ()
        else:
            others += [key, value]
    return others, probes


def _strip_up_to_n_leading_spaces_of_line(line: str, count: int) -> str:
    return line[min(count, len(line) - len(line.lstrip(" "))) :]


def _end_line(text: str, line_break: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}{line_break}"
