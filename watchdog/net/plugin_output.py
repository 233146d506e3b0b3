"""The output of a check: text with measurements behind `|`, as plugins of Nagios write it, or a JSON object."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from watchdog.domain.model import Json
from watchdog.net.text_encoding import JsonParseProblem, parse_json_with_problem

MAX_CHECK_MEASUREMENTS = 50
MAX_CHECK_MEASUREMENT_NAME_CHARS = 60
MAX_MEASURED_VALUE_CHARS = 40
_LABEL_PATTERN = re.compile(r"[^\s=]+")
_VALUE_PATTERN = re.compile(r"=(\S*)")
_NUMBER_AND_UNIT_PATTERN = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[^\s0-9]*")


class CheckOutput(NamedTuple):
    """What a check has written, taken apart."""

    message: str
    """One line for people; empty: there is none."""
    json: Json
    """The output as JSON; None: it is none."""
    json_problem: str
    """Why it is no JSON; empty: it is JSON."""
    measurements: dict[str, int | float]
    """At most MAX_CHECK_MEASUREMENTS."""
    reported_ok: Json = None
    """`ok` of a JSON object; None: it has none."""


def parse_check_output(text: str) -> CheckOutput:
    value, problem = parse_json_with_problem(text)
    if problem is None and isinstance(value, Mapping):
        return _read_json_object(value)
    lines = text.strip().splitlines()
    message = lines[0].partition("|")[0].strip() if lines else ""
    if problem is None:
        return CheckOutput(message, value, "", {})
    return CheckOutput(message, None, _describe_json_problem(problem), parse_plugin_measurements(text))


def _describe_json_problem(problem: JsonParseProblem) -> str:
    if problem.reason == "json.invalid":
        return problem.message.partition(": ")[2]
    return "it is nested too deeply" if problem.reason == "json.too_complex" else "it is empty, or has no end"


def _read_json_object(value: Mapping[str, Json]) -> CheckOutput:
    message, measurements = value.get("message"), value.get("measurements")
    numbers = measurements.items() if isinstance(measurements, Mapping) else ()
    return CheckOutput(
        message.strip() if isinstance(message, str) else "",
        value,
        "",
        _limit_measurements((str(name), number) for name, number in numbers),
        value.get("ok"),
    )


def parse_plugin_measurements(text: str) -> dict[str, int | float]:
    """The performance data: behind `|` in the first line, and of the following lines what comes behind the next `|`.
    Each is 'label'=value[unit];[warning];[critical];[minimum];[maximum]. Units are left out."""
    first, _, rest = text.partition("\n")
    performance_data = f"{first.partition('|')[2]} {rest.partition('|')[2]}"
    return _limit_measurements(
        (label, number)
        for label, value in _iter_labels_and_values(performance_data)
        if (number := _parse_number(value.partition(";")[0])) is not None
    )


def _iter_labels_and_values(performance_data: str) -> Iterator[tuple[str, str]]:
    """In linear time, because a plugin may write anything."""
    position = 0
    while position < len(performance_data):
        if performance_data[position].isspace():
            position += 1
            continue
        end = _find_label_end(performance_data, position)
        label = performance_data[position:end]
        if label.startswith("'"):
            label = label[1:-1].replace("''", "'")
        value = _VALUE_PATTERN.match(performance_data, end)
        position = value.end() if value else max(end, position + 1)
        if value and label:
            yield label, value[1]


def _find_label_end(text: str, start: int) -> int:
    """Of a label that may be in quotes, with a doubled quote for one inside it."""
    if text[start] != "'":
        label = _LABEL_PATTERN.match(text, start)
        return label.end() if label else start
    end = text.find("'", start + 1)
    while text.startswith("''", end) and end >= 0:
        end = text.find("'", end + 2)
    return end + 1 if end >= 0 else len(text)


def _parse_number(text: str) -> int | float | None:
    """None: it is no number with a unit."""
    number = _NUMBER_AND_UNIT_PATTERN.fullmatch(text) if len(text) <= MAX_MEASURED_VALUE_CHARS else None
    if number is None:
        return None
    return int(number[1]) if re.fullmatch(r"[+-]?[0-9]{1,18}", number[1]) else float(number[1])


def _limit_measurements(measurements: Iterable[tuple[str, Json]]) -> dict[str, int | float]:
    """The first numbers; anything else is left out, and so is an integer that no floating-point number can hold."""
    limited: dict[str, int | float] = {}
    for name, value in measurements:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if len(limited) < MAX_CHECK_MEASUREMENTS and is_number and abs(value) <= sys.float_info.max:
            limited[name[:MAX_CHECK_MEASUREMENT_NAME_CHARS]] = value
    return limited
