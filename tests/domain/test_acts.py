"""Acts of people on call that are refused."""

from __future__ import annotations

import pytest

from watchdog.domain.acts import OperatorActRefusalReason, OperatorActRefusedError


@pytest.mark.parametrize("refusal", OperatorActRefusalReason)
def test_a_refusal_states_its_kind_and_its_message(refusal: OperatorActRefusalReason) -> None:
    error = OperatorActRefusedError(refusal, "no incident has the id 1")
    assert (error.refusal, str(error)) == (refusal, "no incident has the id 1")
