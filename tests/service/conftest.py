"""Receivers to deliver to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.delivery import Receivers


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    with Receivers() as receivers:
        yield receivers
