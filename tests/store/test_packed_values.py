"""Phases and measurements come back as they were stored, in the short form and as JSON."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.domain.model import JsonScalar
from watchdog.store.packed_values import pack_values, unpack_values

NAMES = st.sampled_from(
    ["connect", "first_byte", "body", "status", "size", "http_version", "attempts", "tool x", "manual"]
)
SCALARS = st.one_of(
    st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none(),
    st.text("a1.H-", max_size=4), st.sampled_from(["1.0", "1.1", "2"]),
)  # fmt: skip


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, None),
        ({"connect": 0.4, "first_byte": 1.2, "body": 0.1}, "c0.4f1.2b0.1"),
        ({"status": 200, "size": 44, "http_version": "1.1"}, "s200z44H"),
        ({"connect": 0.0, "body": 12.0}, "c0.0b12.0"),
        ({"cert_days": -3}, "x-3"),
        ({"status": 200, "tool": "x"}, '{"status":200,"tool":"x"}'),
        ({"http_version": "3"}, '{"http_version":"3"}'),
        ({"status": True}, '{"status":true}'),
        ({"size": 1e300}, '{"size":1e+300}'),
    ],
)
def test_the_stored_text(values: dict[str, JsonScalar], text: str | None) -> None:
    assert pack_values(values) == text
    assert unpack_values(text) == values


@given(st.dictionaries(NAMES, SCALARS, max_size=6))
def test_values_come_back_with_their_types_and_order(values: dict[str, JsonScalar]) -> None:
    unpacked = unpack_values(pack_values(values))
    assert list(unpacked.items()) == list(values.items())
    assert [type(value) for value in unpacked.values()] == [type(value) for value in values.values()]


def test_rows_of_earlier_versions_are_read() -> None:
    assert unpack_values('{"connect":0.4,"status":200}') == {"connect": 0.4, "status": 200}
