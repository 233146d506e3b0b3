"""The output of checks: performance data as plugins of Nagios write it, and JSON."""

from __future__ import annotations

import pytest

from watchdog.net.plugin_output import (
    MAX_CHECK_MEASUREMENT_NAME_CHARS,
    MAX_CHECK_MEASUREMENTS,
    parse_check_output,
    parse_plugin_measurements,
)


@pytest.mark.parametrize(
    ("text", "measurements"),
    [
        ("LOAD OK - load: 0.39|load1=0.390;15.000;30.000;0; load5=0.260;10;25;0;", {"load1": 0.39, "load5": 0.26}),
        ("DISK OK - free space: / 3326 MB (56%); | /=2643MB;5948;5958;0;5968", {"/": 2643}),
        ("HTTP OK | time=0.002722s;;;0.000000;10.000000 size=615B;;;0", {"time": 0.002722, "size": 615}),
        ("OK | 'time to live'=5s 'it''s'=-1.5;1:2 used=50%;80;90", {"time to live": 5, "it's": -1.5, "used": 50}),
        ("OK | a=1\nlong text\nmore | b=2\nc=3", {"a": 1, "b": 2, "c": 3}),
        ("OK | a=1e3 b=.5 c=5. d=+7", {"a": 1000.0, "b": 0.5, "c": 5.0, "d": 7}),
        ("OK | a=U b= c=x d=1,5s e=1;2 f=12345678901234567890", {"e": 1, "f": 12345678901234567890.0}),
        ("no performance data a=1", {}),
        ("", {}),
        ("|", {}),
        (f"OK | {'x' * 100}=1", {"x" * MAX_CHECK_MEASUREMENT_NAME_CHARS: 1}),
        (
            "OK | " + " ".join(f"m{n}={n}" for n in range(200)),
            {f"m{n}": n for n in range(MAX_CHECK_MEASUREMENTS)},
        ),
    ],
)
def test_performance_data(text: str, measurements: dict[str, float]) -> None:
    assert parse_plugin_measurements(text) == measurements


def test_a_number_is_whole_if_it_is_written_so() -> None:
    """Its type in expressions then depends on the plugin, and not on the value."""
    assert [type(value) for value in parse_plugin_measurements("| a=5 b=5.0").values()] == [int, float]


def test_performance_data_of_any_length_is_read_in_linear_time() -> None:
    for text in ("'" * 200_000 + "=" * 200_000 + "1" * 200_000, "' " * 200_000, "a='" * 200_000, "a= " * 200_000):
        assert parse_plugin_measurements(f"|{text}") == {}


@pytest.mark.parametrize(
    ("text", "message", "json_problem"),
    [
        ("OK - fine | a=1\nmore", "OK - fine", "Expecting value at line 1, column 1"),
        ("", "", "it is empty, or has no end"),
        ('{"message": " all fine "}', "all fine", ""),
        ('{"message": 5}', "", ""),
        ("42", "42", ""),
        ("[1]", "[1]", ""),
    ],
)
def test_the_message_of_a_check(text: str, message: str, json_problem: str) -> None:
    parsed = parse_check_output(text)
    assert (parsed.message, parsed.json_problem) == (message, json_problem)


def test_measurements_in_json_are_numbers() -> None:
    parsed = parse_check_output('{"ok": true, "measurements": {"a": 1, "b": 1.5, "c": true, "d": "1", "e": NaN}}')
    assert (parsed.measurements, parsed.reported_ok) == ({"a": 1, "b": 1.5}, True)
    assert parse_check_output('{"measurements": [1]}').measurements == {}
    assert parse_check_output(f'{{"measurements": {{"a": {10**400}, "b": -{10**400}, "c": 1}}}}').measurements == {
        "c": 1
    }
