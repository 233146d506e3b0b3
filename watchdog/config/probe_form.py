"""A probe as the fields of a form: those that most people fill in have one of their own, and the rest is YAML.

Comments of the text stay: those of a field that has its own stay in the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import yaml

from watchdog.config.managed_entry import quote_yaml_scalar
from watchdog.config.managed_file import parse_probe_mapping
from watchdog.config.scalars import parse_plain_yaml_scalar
from watchdog.config.yaml_spans import YamlPairSpan, YamlSpanReader, find_line_end, find_line_start, skip_line_break
from watchdog.config.yaml_tree import YamlNode
from watchdog.probes import PROBE_KINDS

COMMON_FORM_FIELDS = ("name", "schedule", "timezone", "every", "group", "id", "expect", "alert.severity")
"""The fields of every kind that a form has an input for."""
EXPRESSION_FIELDS = frozenset({"expect"})
"""A list of text: one entry on each line of the input."""
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


def list_form_fields(kind: str) -> tuple[str, ...]:
    """The fields that a form for this kind has an input for."""
    model = PROBE_KINDS[kind]
    first, *common = (name for name in COMMON_FORM_FIELDS if name not in model.unsupported_fields)
    return (first, *(f"{kind}.{name}" for name in model.form_fields), *common)


def find_probe_kind(text: str) -> str:
    """The kind of a probe; empty: it has none."""
    node, _ = parse_probe_mapping(text)
    return next((kind for kind in PROBE_KINDS if node is not None and kind in node.entries), "")


# --- from a text to fields


def split_probe_text(text: str, kind: str) -> ProbeFormFields:
    """`text`: a mapping."""
    node, _ = parse_probe_mapping(text)
    if node is None:
        return ProbeFormFields({}, text)
    values: dict[str, str] = {}
    return ProbeFormFields(values, _take_fields(text, node, list_form_fields(kind), "", values))


def _take_fields(text: str, node: YamlNode, paths: Iterable[str], above: str, values: dict[str, str]) -> str:
    """The text without the fields, whose values are added."""
    try:
        pairs = list(YamlSpanReader(text).iter_mapping())
    except yaml.YAMLError:
        text = _dump(node)
        pairs = list(YamlSpanReader(text).iter_mapping()) if node.entries else []
    for pair in reversed(pairs):
        entry, path = node.entries.get(pair.key.text), f"{above}{pair.key.text}"
        nested = [each for each in paths if each.startswith(f"{path}.")]
        if entry is None:
            continue
        if (value := _read_value(entry, path, nested, paths)) is not None:
            target, content = value
            values[target] = content
            text = _replace_pair(text, pair, _find_comments(text, pair))
        elif nested and entry.entries:
            start, end = find_line_start(text, pair.key.start), find_line_end(text, pair.value.end)
            child = _read_child_text(text, pair, entry)
            rest = _take_fields(child, entry, nested, f"{path}.", values)
            has_fields = parse_probe_mapping(rest)[0] is not None  # as opposed to comments, or nothing
            section = f"{pair.key.text}:\n{_indent(rest)}" if has_fields else rest
            text = _replace_lines(text, start, end, section)
    return text


def _read_value(entry: YamlNode, path: str, nested: list[str], paths: Iterable[str]) -> tuple[str, str] | None:
    """The field and what its input shows; None: it stays YAML."""
    if isinstance(entry.raw_value, str):
        text = entry.raw_value
        is_shown = bool(text) and text == text.strip() and text.isprintable()
        if is_shown and path in paths and path not in EXPRESSION_FIELDS:
            return path, text
        if is_shown and f"{path}.url" in nested:
            return f"{path}.url", text
    if path in EXPRESSION_FIELDS and path in paths and entry.items:
        lines = [item.raw_value for item in entry.items]
        if all(isinstance(line, str) and line.strip() == line and line.isprintable() and line for line in lines):
            return path, "\n".join(map(str, lines))
    return None


def _read_child_text(text: str, pair: YamlPairSpan, entry: YamlNode) -> str:
    """The text of a nested mapping, without its indentation, with the comments in front of it."""
    if pair.value.style != "block":
        return _dump(entry)
    start = skip_line_break(text, find_line_end(text, pair.key.end))
    lines = text[start : find_line_end(text, pair.value.end)].split("\n")
    comment = _find_inline_comment(text, pair.key.end)
    return "\n".join([*comment, *(line[min(pair.value.column, len(line) - len(line.lstrip(" "))) :] for line in lines)])


def _find_inline_comment(text: str, index: int) -> list[str]:
    """The comment at the end of a line, behind what ends at the index."""
    match = re.search(r"(?:^|\s)(#.*)", text[index : find_line_end(text, index)])
    return [match[1]] if match else []


def _find_comments(text: str, pair: YamlPairSpan) -> str:
    """The comments within the lines of a field."""
    body = text[pair.key.end : pair.value.end] if pair.value.style != "scalar" else ""
    inner = [line.strip() for line in body.split("\n")[1:] if line.lstrip().startswith("#")]
    return "\n".join([*inner, *_find_inline_comment(text, max(pair.value.end, pair.key.end))])


def _replace_pair(text: str, pair: YamlPairSpan, replacement: str) -> str:
    end = find_line_end(text, max(pair.value.end, pair.key.end))
    return _replace_lines(text, find_line_start(text, pair.key.start), end, replacement)


def _replace_lines(text: str, start: int, end: int, replacement: str) -> str:
    if replacement:
        return f"{text[:start]}{replacement}{text[end:]}"
    after = text[skip_line_break(text, end) :]
    return text[:start] + after if after else text[:start].removesuffix("\n")


def _dump(node: YamlNode) -> str:
    """A mapping in block style."""
    dumped = yaml.dump(
        node.to_python(raw=True), Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=120
    )
    return str(dumped).rstrip("\n")


# --- from fields to a text


def compose_probe_text(fields: ProbeFormFields, kind: str) -> str:
    """The text of a probe of this kind. A field that is empty is left out, but for those without which the kind would
    not be recognised."""
    rest = fields.rest.replace("\r\n", "\n").replace("\r", "\n").strip("\n")
    required = ("name", *(f"{kind}.{name}" for name in PROBE_KINDS[kind].form_fields[:1]))
    values = {
        path: fields.values.get(path, "").strip()
        for path in list_form_fields(kind)
        if fields.values.get(path, "").strip() or (path in required and not _has_section(rest, path.partition(".")[0]))
    }
    sections = dict.fromkeys(path.partition(".")[0] for path in values)
    lines = []
    for section in sections:
        nested = {path.partition(".")[2]: value for path, value in values.items() if path.startswith(f"{section}.")}
        if not nested:
            lines.append(_format_field(section, values[section], section))
            continue
        rest, inner = _cut_section(rest, section)
        own = [_format_field(name, value, f"{section}.{name}") for name, value in nested.items()]
        if not inner and nested.keys() == {"url"}:
            lines.append(_format_field(section, nested["url"], section))
        else:
            lines.append(f"{section}:\n{_indent(chr(10).join([*own, *([inner] if inner else [])]))}")
    return "\n".join([*lines, *([rest] if rest else [])])


def _has_section(text: str, name: str) -> bool:
    node, _ = parse_probe_mapping(text) if text.strip() else (None, [])
    return node is not None and name in node.entries


def _cut_section(text: str, name: str) -> tuple[str, str]:
    """The text without a section, and the text of what is in it. A text that is no YAML stays as it is."""
    node, problems = parse_probe_mapping(text) if text.strip() else (None, [])
    section = None if node is None or problems else node.entries.get(name)
    if section is None or not section.entries:
        return text, ""
    try:
        pair = next(pair for pair in YamlSpanReader(text).iter_mapping() if pair.key.text == name)
    except (yaml.YAMLError, StopIteration):
        return text, ""
    return _replace_pair(text, pair, "").strip("\n"), _read_child_text(text, pair, section)


def _format_field(name: str, value: str, path: str) -> str:
    if path in EXPRESSION_FIELDS:
        items = [line.strip() for line in value.replace("\r", "").split("\n") if line.strip()]
        return "\n".join([f"{name}:", *(f"{_INDENTATION}- {quote_yaml_scalar(item)}" for item in items)])
    return f"{name}: {_format_scalar(value)}"


def _format_scalar(text: str) -> str:
    """Without quotes where it is the same text then."""
    is_plain = _PLAIN_SCALAR_PATTERN.fullmatch(text) and text == text.strip() and text.isprintable()
    if is_plain and text.lower() not in _WORDS_OF_YAML_1_1 and _is_text_without_quotes(text):
        return text
    return quote_yaml_scalar(text)


def _is_text_without_quotes(text: str) -> bool:
    try:
        return parse_plain_yaml_scalar(text) == text
    except ValueError:
        return False


def _indent(text: str) -> str:
    return "\n".join(f"{_INDENTATION}{line}" if line else "" for line in text.split("\n"))
