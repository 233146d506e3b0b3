"""Untrusted text is made safe to store and to show."""

from __future__ import annotations

import unicodedata

import pytest

from watchdog.domain.model import Json
from watchdog.domain.text import (
    append_list_hint,
    format_as_sentence,
    map_json_strings,
    quote_json_value,
    replace_invisible_characters,
    replace_unstorable_characters,
    summarize_error_text,
    truncate_at_word,
    truncate_to_single_line,
    truncate_with_ellipsis,
    truncate_with_note,
)


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("plain\ttext\nof two lines", "plain\ttext\nof two lines"),
        ("windows\r\nlines", "windows\nlines"),
        ("\x1b[31mred\x1b[0m", "�[31mred�[0m"),
        ("bell\x07 null\x00 delete\x7f", "bell� null� delete�"),
        ("over\u202egnp.exe", "over�gnp.exe"),
        ("zero\u200bwidth \ufeffmark", "zero�width �mark"),
        ("lone \ud800 surrogate", "lone � surrogate"),
        ("c1 \x9b31m", "c1 �31m"),
        ("line\u2028separator", "line�separator"),
        ("emoji 🐕 and accents é", "emoji 🐕 and accents é"),
        ("letter\u061cmark", "letter�mark"),
        ("tags\U000e0041\U000e007f", "tags��"),
        ("soft\xadhyphen", "soft�hyphen"),
        ("filled\u3164\u115f", "filled��"),
        ("hidden\ufe00\U000e0101", "hidden��"),
        ("private \ue000 \U0010fffd", "private � �"),
        ("a family 👨\u200d👩\u200d👧, a heart ❤\ufe0f\u200d🔥, 1\ufe0f\u20e3", None),
        ("क्\u200dष and क्\u200cष", None),
        ("ad\u200dmin\u200c é\u200c\u200dé\u200d", "ad�min� é��é�"),
        ("no-break\xa0space, thin\u2009space", None),
    ],
)
def test_harmful_characters_become_visible(text: str, visible: str | None) -> None:
    assert replace_invisible_characters(text) == (text if visible is None else visible)


IGNORABLE = (
    *("ad", "34f", "61c", "115f-1160", "17b4-17b5", "180b-180f", "200b-200f", "202a-202e", "2060-206f", "3164"),
    *("fe00-fe0f", "feff", "ffa0", "fff0-fff8", "1bca0-1bca3", "1d173-1d17a", "e0000-e0fff"),
)
"""Unicode's property Default_Ignorable_Code_Point."""


def test_every_character_is_treated_by_its_category() -> None:
    ignorable = set[int]()
    for span in IGNORABLE:
        first, _, last = span.partition("-")
        ignorable |= set(range(int(first, 16), int(last or first, 16) + 1))
    allowed = {*b"\t\n", 0xFE0E, 0xFE0F}
    misjudged = []
    for code in range(0x110000):
        category = unicodedata.category(chr(code))
        harmful = (category in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp") or code in ignorable) and code not in allowed
        if (replace_invisible_characters(chr(code)) == "�") != (harmful or code == 0xFFFD) and category != "Cn":
            misjudged.append(f"{code:x} {category}")
    assert misjudged == []


def test_a_truncated_text_is_marked() -> None:
    assert truncate_with_note("abcdef", 6) == "abcdef"
    assert truncate_with_note("abcdefg", 6) == "abcdef… cut after 6 characters"


def test_a_truncated_line_ends_in_an_ellipsis() -> None:
    assert truncate_with_ellipsis("abcdef", 6) == "abcdef"
    assert truncate_with_ellipsis("abcdefg", 6) == "abcde…"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("two\r\nlines and\ttabs", "two lines and tabs"),
        ("  blanks  around ", "blanks around"),
        ("41\u00a0min \u00a0 later", "41\u00a0min later"),
        ("nul\x00 next\x85line\u2028separator", "nul next line separator"),
        ("a\u202eb", "a\u202eb"),
    ],
)
def test_a_text_becomes_one_line(text: str, line: str) -> None:
    assert truncate_to_single_line(text, 100) == line


def test_a_line_has_a_limit() -> None:
    assert truncate_to_single_line("x" * 201) == "x" * 199 + "…"
    assert truncate_to_single_line("x" * 200) == "x" * 200


def test_characters_that_a_database_cannot_store_are_replaced() -> None:
    assert replace_unstorable_characters("a\0b\ud800c é") == "a�b�c é"


def test_strings_are_mapped_at_any_depth() -> None:
    value = {"a": ["b", ("c", 1, None)], "d": {"e": True}}
    assert map_json_strings(value, str.upper) == {"A": ["B", ["C", 1, None]], "D": {"E": True}}


def test_storable_control_characters_are_kept() -> None:
    assert replace_unstorable_characters("a\x00b\ud800c\x1b") == "a�b�c\x1b"


def test_every_string_of_nested_json_is_mapped() -> None:
    value = {"a": ["b", ("c", 1)], "d": {"e": None}, "f": "g"}
    assert map_json_strings(value, str.upper) == {"A": ["B", ["C", 1]], "D": {"E": None}, "F": "G"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        ("ok", "'ok'"),
        ({"a": [1, None]}, '{"a": [1, null]}'),
        (["a long list", "of words"], '["a long list", "of…'),
    ],
)
def test_a_value_is_quoted_in_the_words_of_json(value: Json, text: str) -> None:
    assert quote_json_value(value, 20) == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("no disk", "no disk"),
        ("no disk:\n  0 of 7 written\n", "no disk: 0 of 7 written"),
        ("Traceback (most recent call last):\n  File 'a'\nOSError: no disk\n\n", "OSError: no disk"),
        ("Error: no disk\n    at write (a.js:7:1)\n    at main (a.js:9:1)", "Error: no disk"),
        ("java.io.IOException: no disk\n\tat a.B.c(B.java:7)\n\t... 3 more\nCaused by: d.E: full\n\tat d.E.f(E.java:1)",
         "java.io.IOException: no disk Caused by: d.E: full"),
        ("we met\nat noon", "we met at noon"),
    ],
)  # fmt: skip
def test_an_error_on_one_line(text: str, line: str) -> None:
    assert summarize_error_text(text) == line


@pytest.mark.parametrize(
    ("text", "max_chars", "cut"),
    [
        ("short enough", 12, "short enough"),
        ("the database is away", 16, "the database…"),
        ("Checkout, Search and others", 13, "Checkout…"),
        ("unbroken", 5, "unbr…"),
        ("see " + "x" * 200, 100, "see " + "x" * 95 + "…"),
    ],
)
def test_a_text_for_people_is_cut_before_a_word(text: str, max_chars: int, cut: str) -> None:
    assert truncate_at_word(text, max_chars) == cut


@pytest.mark.parametrize(
    ("clause", "text"),
    [
        ("no probe has the id x", "no probe has the id x: list_probes lists them"),
        ("no group 'Coer'; did you mean 'Core'?", "no group 'Coer'; did you mean 'Core'? list_probes lists them"),
    ],
)
def test_where_known_names_are_listed(clause: str, text: str) -> None:
    assert append_list_hint(clause, "list_probes") == text


@pytest.mark.parametrize(
    ("clause", "sentence"),
    [
        ("no probe matches", "No probe matches."),
        ("it fails; did you mean 'Core'?", "It fails; did you mean 'Core'?"),
        ("`all` is stated", "`all` is stated."),
        ("", "."),
    ],
)
def test_a_clause_as_a_sentence(clause: str, sentence: str) -> None:
    assert format_as_sentence(clause) == sentence
