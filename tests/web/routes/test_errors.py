"""The pages of failed requests."""

from __future__ import annotations

import pytest

from watchdog.web.routes.errors import build_database_unavailable_text


@pytest.mark.parametrize(
    ("probing", "expected"),
    [
        ("", "Watchdog cannot read its database at the moment. Try again soon."),
        (
            "3 of 5 probes go on, and their results are kept in memory",
            "Watchdog cannot read its database at the moment. Try again soon. 3 of 5 probes go on, and their"
            " results are kept in memory.",
        ),
        (
            "no probe runs until it is back",
            "Watchdog cannot read its database at the moment. Try again soon. No probe runs until it is back.",
        ),
    ],
)
def test_the_page_states_what_runs_while_the_database_is_away(probing: str, expected: str) -> None:
    assert build_database_unavailable_text(probing) == expected
