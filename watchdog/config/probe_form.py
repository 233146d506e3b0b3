"""A probe as the fields of a form: those that most people fill in have one of their own, and the rest is YAML.

What was not changed stays as it is written, in its order and with its comments.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import yaml

from watchdog.config.managed_entry import double_quote_yaml_scalar
from watchdog.config.managed_file import parse_probe_text_into_yaml_node
from watchdog.config.scalars import parse_plain_yaml_scalar
from watchdog.config.yaml_spans import (
    YamlPairSpan,
    YamlSpanReader,
    find_line_end,
    find_line_start,
    skip_line_break,
    skip_own_comments,
)
from watchdog.config.yaml_tree import YamlNode
from watchdog.probes import PROBE_KINDS

COMMON_FORM_FIELDS = ("name", "schedule", "timezone", "every", "group", "id", "expect", "alert.severity")
"""The fields of every kind that a form has an input for."""
EXPRESSION_FIELDS = frozenset({"expect"})
"""A list of text: one entry on each line of the input."""
NUMBER_FIELDS = frozenset({"rules.waiting.over", "rules.consumers.under", "icmp.count", "tls.min_days"})
"""Written without quotes, if a whole number was entered."""
PROBE_FORM_KINDS = tuple(
    name
    for kind, probe in PROBE_KINDS.items()
    for name in (kind, *(f"{kind}.{system}" for system in probe.form_systems))
)
"""What a form is for: a kind, or a kind with one of its queue systems, such as `canary.bullmq`."""
_PLAIN_SCALAR_PATTERN = re.compile(
    r"[A-Za-z0-9][^\x00-\x1f\x7f#:\[\]{},&*!|>'\"%@`]*(://[^\x00-\x20\x7f#\[\]{},'\"`]*)?(?<!:)"
)
_WORDS_OF_YAML_1_1 = frozenset({"y", "n", "yes", "no", "on", "off"})
"""Other programs read these as true and false."""
_INDENTATION = "  "


@dataclass(frozen=True, slots=True)
class ProbeFormFields:
    """What a form holds."""

    values: Mapping[str, str] = field(default_factory=dict)
    """By the path of the field, such as `http.url`."""
    rest: str = ""
    """The other fields, as YAML."""


def list_form_field_paths_of_probe_kind(kind: str) -> tuple[str, ...]:
    """The fields that a form has an input for. `kind`: one of PROBE_FORM_KINDS."""
    probe_kind, _, system = kind.partition(".")
    model = PROBE_KINDS[probe_kind]
    has_own_schedule = "schedule" in model.unsupported_fields  # then `every` is how often it is evaluated
    unsupported = {*model.unsupported_fields, *(("every",) if has_own_schedule else ())}
    first, *common = (name for name in COMMON_FORM_FIELDS if name not in unsupported)
    of_system = model.form_systems[system].form_fields if system else ()
    return (first, *(f"{kind}.{name}" for name in of_system), *model.form_fields, *common)


def find_probe_kind_in_yaml(text: str) -> str:
    """The kind of a probe, with its queue system if it names one; empty: it has none."""
    node, _ = parse_probe_text_into_yaml_node(text)
    kind = next((kind for kind in PROBE_KINDS if node is not None and kind in node.mapping_entries), "")
    if node is None or not kind:
        return ""
    system = next(
        (system for system in PROBE_KINDS[kind].form_systems if system in node.mapping_entries[kind].mapping_entries),
        "",
    )
    return f"{kind}.{system}" if system else kind


class _ProbeYamlFieldBlock(NamedTuple):
    """A field of a probe with its lines."""

    key: str
    text: str
    """With the comments in front of it, and those below that are further to the right."""


def _split_yaml_mapping_into_field_blocks(text: str) -> list[_ProbeYamlFieldBlock]:
    """The fields of a mapping, in their order, and what is below them without a key."""
    try:
        pairs = list(YamlSpanReader(text).iter_mapping())
    except yaml.YAMLError:
        return [_ProbeYamlFieldBlock("", text)] if text.strip() else []
    blocks, start = [], 0
    for pair in pairs:
        end = skip_own_comments(text, find_line_end(text, max(pair.value.end, pair.key.end)), 0)
        blocks.append(_ProbeYamlFieldBlock(pair.key.text, text[start:end].strip("\n")))
        start = skip_line_break(text, end)
    tail = text[start:].strip("\n")
    return [*blocks, _ProbeYamlFieldBlock("", tail)] if tail else blocks


# --- from a text to fields


def split_probe_yaml_into_form_fields(text: str, kind: str) -> ProbeFormFields:
    """`text`: a mapping. Comments of fields that have inputs are left out, unless other fields are below them."""
    node, _ = parse_probe_text_into_yaml_node(text)
    if node is None:
        return ProbeFormFields({}, text)
    blocks = _split_yaml_mapping_into_field_blocks(text)
    if not any(block.key for block in blocks):  # it is written in brackets
        blocks = _split_yaml_mapping_into_field_blocks(_dump_yaml_block_mapping(node))
    paths, values, rest = list_form_field_paths_of_probe_kind(kind), dict[str, str](), list[str]()
    for block in blocks:
        entry = node.mapping_entries.get(block.key)
        nested = [path for path in paths if path.startswith(f"{block.key}.")]
        value = None if entry is None else _read_form_field_and_text_of_yaml_entry(entry, block.key, nested, paths)
        if value is not None:
            values[value[0]] = value[1]
        elif entry is not None and nested and entry.mapping_entries:
            rest.append(_move_section_fields_to_values_and_return_rest(block, entry, nested, values))
        else:
            rest.append(block.text)
    return ProbeFormFields(values, "\n".join(filter(None, rest)))


def _move_section_fields_to_values_and_return_rest(
    block: _ProbeYamlFieldBlock, entry: YamlNode, paths: list[str], values: dict[str, str]
) -> str:
    """What of a section has no input; empty: nothing. The values of the others are added."""
    (pair,) = YamlSpanReader(block.text).iter_mapping()
    child = _extract_nested_mapping_yaml(block.text, pair, entry)
    rest = _extract_fields_and_return_remaining_yaml(child, entry, paths, f"{block.key}.", values)
    return f"{block.key}:\n{_indent(rest)}" if parse_probe_text_into_yaml_node(rest)[0] is not None else ""


def _extract_fields_and_return_remaining_yaml(
    text: str, node: YamlNode, paths: Iterable[str], above: str, values: dict[str, str]
) -> str:
    """The text without the fields, whose values are added."""
    try:
        pairs = list(YamlSpanReader(text).iter_mapping())
    except yaml.YAMLError:
        text = _dump_yaml_block_mapping(node)
        pairs = list(YamlSpanReader(text).iter_mapping()) if node.mapping_entries else []
    for pair in reversed(pairs):
        entry, path = node.mapping_entries.get(pair.key.text), f"{above}{pair.key.text}"
        nested = [each for each in paths if each.startswith(f"{path}.")]
        if entry is None:
            continue
        if (value := _read_form_field_and_text_of_yaml_entry(entry, path, nested, paths)) is not None:
            target, content = value
            values[target] = content
            text = _replace_lines_of_yaml_pair(text, pair, _join_comments_within_yaml_field(text, pair))
        elif nested and entry.mapping_entries:
            start, end = find_line_start(text, pair.key.start), find_line_end(text, pair.value.end)
            child = _extract_nested_mapping_yaml(text, pair, entry)
            rest = _extract_fields_and_return_remaining_yaml(child, entry, nested, f"{path}.", values)
            has_fields = parse_probe_text_into_yaml_node(rest)[0] is not None  # as opposed to comments, or nothing
            section = f"{pair.key.text}:\n{_indent(rest)}" if has_fields else rest
            text = _replace_lines(text, start, end, section)
    return text


def _read_form_field_and_text_of_yaml_entry(
    entry: YamlNode, path: str, nested: list[str], paths: Iterable[str]
) -> tuple[str, str] | None:
    """The field and what its input shows; None: it stays YAML."""
    if isinstance(entry.raw_value, str):
        text = entry.raw_value
        is_shown = bool(text) and text == text.strip() and text.isprintable()
        if is_shown and path in paths and path not in EXPRESSION_FIELDS | NUMBER_FIELDS:
            return path, text
        if is_shown and (short_form := _find_field_of_short_form(path, nested)):
            return short_form, text
    if path in NUMBER_FIELDS and path in paths and type(entry.raw_value) is int:
        return path, str(entry.raw_value)
    if path in EXPRESSION_FIELDS and path in paths and entry.list_items:
        lines = [item.raw_value for item in entry.list_items]
        if all(isinstance(line, str) and line.strip() == line and line.isprintable() and line for line in lines):
            return path, "\n".join(map(str, lines))
    return None


def _find_field_of_short_form(section: str, paths: Collection[str]) -> str:
    """The field among these that the short form of the section sets; empty: none."""
    kind = PROBE_KINDS.get(section)
    short_form = "" if kind is None else getattr(kind.model_fields[section].annotation, "shorthand_field", "")
    return next((path for name in ("url", short_form) if (path := f"{section}.{name}") in paths), "")


def _extract_nested_mapping_yaml(text: str, pair: YamlPairSpan, entry: YamlNode) -> str:
    """The text of a nested mapping, without its indentation, with the comments in front of it."""
    if pair.value.style != "block":
        return _dump_yaml_block_mapping(entry)
    start = skip_line_break(text, find_line_end(text, pair.key.end))
    lines = text[start : find_line_end(text, pair.value.end)].split("\n")
    comment = _find_inline_comment(text, pair.key.end)
    return "\n".join([*comment, *(line[min(pair.value.column, len(line) - len(line.lstrip(" "))) :] for line in lines)])


def _find_inline_comment(text: str, index: int) -> list[str]:
    """The comment at the end of a line, behind what ends at the index."""
    match = re.search(r"(?:^|\s)(#.*)", text[index : find_line_end(text, index)])
    return [match[1]] if match else []


def _join_comments_within_yaml_field(text: str, pair: YamlPairSpan) -> str:
    """The comments within the lines of a field."""
    body = text[pair.key.end : pair.value.end] if pair.value.style != "scalar" else ""
    inner = [line.strip() for line in body.split("\n")[1:] if line.lstrip().startswith("#")]
    return "\n".join([*inner, *_find_inline_comment(text, max(pair.value.end, pair.key.end))])


def _replace_lines_of_yaml_pair(text: str, pair: YamlPairSpan, replacement: str) -> str:
    end = find_line_end(text, max(pair.value.end, pair.key.end))
    return _replace_lines(text, find_line_start(text, pair.key.start), end, replacement)


def _replace_lines(text: str, start: int, end: int, replacement: str) -> str:
    if replacement:
        return f"{text[:start]}{replacement}{text[end:]}"
    after = text[skip_line_break(text, end) :]
    return text[:start] + after if after else text[:start].removesuffix("\n")


def _dump_yaml_block_mapping(node: YamlNode) -> str:
    """A mapping in block style."""
    dumped = yaml.dump(
        node.to_python(raw=True), Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=120
    )
    return str(dumped).rstrip("\n")


# --- from fields to a text


def compose_probe_text(fields: ProbeFormFields, kind: str, stored: str = "") -> str:
    """The text of a probe of this kind. A field that is empty is left out, but for those without which the kind would
    not be recognised. `stored`: a text whose order, comments and unchanged fields stay."""
    rest = fields.rest.replace("\r\n", "\n").replace("\r", "\n").strip("\n")
    own_paths = [path for path in list_form_field_paths_of_probe_kind(kind) if path.startswith(f"{kind}.")]
    is_named = any(fields.values.get(path, "").strip() for path in own_paths)
    required = ("name", *([] if is_named else own_paths[:1]))
    values = {
        path: fields.values.get(path, "").strip()
        for path in list_form_field_paths_of_probe_kind(kind)
        if fields.values.get(path, "").strip() or (path in required and not _has_section(rest, path.partition(".")[0]))
    }
    before, stored_blocks = (
        split_probe_yaml_into_form_fields(stored, kind),
        _split_yaml_mapping_into_field_blocks(stored),
    )
    own: list[_ProbeYamlFieldBlock] = []
    for section in dict.fromkeys(path.partition(".")[0] for path in values):
        rest, inner = _split_section_off_yaml_text(rest, section)
        text = _format_section_form_values_as_yaml(section, _select_form_values_of_section(values, section), inner)
        is_same = _select_form_values_of_section(values, section) == _select_form_values_of_section(
            before.values, section
        )
        former = next((block.text for block in stored_blocks if block.key == section), "")
        if former and is_same and inner == _split_section_off_yaml_text(before.rest, section)[1]:
            own.append(_ProbeYamlFieldBlock(section, former))
        else:
            comments = [comment for comment in _list_comments(former) if comment not in text]
            own.append(_ProbeYamlFieldBlock(section, "\n".join([*comments, text])))
    order = {block.key: number for number, block in enumerate(stored_blocks)}
    blocks = [*own, *_split_yaml_mapping_into_field_blocks(rest)]
    blocks.sort(key=lambda block: order.get(block.key, len(order)) if block.key else len(order) + 1)
    return "\n".join(block.text for block in blocks)


def _select_form_values_of_section(values: Mapping[str, str], section: str) -> dict[str, str]:
    return {path: value for path, value in values.items() if path.partition(".")[0] == section}


def _format_section_form_values_as_yaml(section: str, values: Mapping[str, str], inner: str) -> str:
    """`section`: its path. `inner`: what else is in it."""
    name = section.rpartition(".")[2]
    if section in values:
        return _format_form_field_as_yaml(name, values[section], section)
    short_form = _find_field_of_short_form(section, values)
    if not inner and section == name and values.keys() == {short_form}:
        return _format_form_field_as_yaml(name, values[short_form], section)
    own = []
    for child in dict.fromkeys(path.removeprefix(f"{section}.").partition(".")[0] for path in values):
        path = f"{section}.{child}"
        below = {each: value for each, value in values.items() if each == path or each.startswith(f"{path}.")}
        inner, rest = (inner, "") if path in below else _split_section_off_yaml_text(inner, child)
        own.append(_format_section_form_values_as_yaml(path, below, rest))
    return f"{name}:\n" + _indent("\n".join([*own, *([inner] if inner else [])]))


def _list_comments(text: str) -> list[str]:
    """The comments in the lines of a field, each as a line."""
    return [match[1].rstrip() for match in re.finditer(r"(?:^|(?<=\s))(#.*)", text, re.MULTILINE)]


def _has_section(text: str, name: str) -> bool:
    node, _ = parse_probe_text_into_yaml_node(text) if text.strip() else (None, [])
    return node is not None and name in node.mapping_entries


def _split_section_off_yaml_text(text: str, name: str) -> tuple[str, str]:
    """The text without a section, and the text of what is in it. A text that is no YAML stays as it is."""
    node, problems = parse_probe_text_into_yaml_node(text) if text.strip() else (None, [])
    section = None if node is None or problems else node.mapping_entries.get(name)
    if section is None or not section.mapping_entries:
        return text, ""
    try:
        pair = next(pair for pair in YamlSpanReader(text).iter_mapping() if pair.key.text == name)
    except (yaml.YAMLError, StopIteration):
        return text, ""
    return _replace_lines_of_yaml_pair(text, pair, "").strip("\n"), _extract_nested_mapping_yaml(text, pair, section)


def _format_form_field_as_yaml(name: str, value: str, path: str) -> str:
    if path in EXPRESSION_FIELDS:
        items = [line.strip() for line in value.replace("\r", "").split("\n") if line.strip()]
        return "\n".join([f"{name}:", *(f"{_INDENTATION}- {double_quote_yaml_scalar(item)}" for item in items)])
    is_number = path in NUMBER_FIELDS and re.fullmatch(r"0|[1-9][0-9]{0,17}", value)
    return f"{name}: {value if is_number else _format_text_as_yaml_scalar(value)}"


def _format_text_as_yaml_scalar(text: str) -> str:
    """Without quotes where it is the same text then."""
    is_plain = _PLAIN_SCALAR_PATTERN.fullmatch(text) and text == text.strip() and text.isprintable()
    if is_plain and text.lower() not in _WORDS_OF_YAML_1_1 and _can_be_unquoted_yaml_text(text):
        return text
    return double_quote_yaml_scalar(text)


def _can_be_unquoted_yaml_text(text: str) -> bool:
    try:
        return parse_plain_yaml_scalar(text) == text
    except ValueError:
        return False


def _indent(text: str) -> str:
    return "\n".join(f"{_INDENTATION}{line}" if line else "" for line in text.split("\n"))
