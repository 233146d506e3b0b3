"""When a bearer token expires, and which tokens do not show it."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from watchdog.net.bearer_token import find_bearer_token_expiry


def make_token(claims: Any) -> str:
    parts: tuple[Any, ...] = ({"alg": "none"}, claims, {})
    return ".".join(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


@pytest.mark.parametrize(
    ("headers", "expires_at"),
    [
        ({"Authorization": f"Bearer {make_token({'exp': 1_800_000_000})}"}, 1_800_000_000_000),
        ({"authorization": f"bearer {make_token({'exp': 1_800_000_000.25})}"}, 1_800_000_000_250),
        ({"X-Token": make_token({"exp": 1}), "AUTHORIZATION": f"Bearer {make_token({'exp': 2})}"}, 2_000),
        ({}, None),
        ({"Authorization": f"Basic {make_token({'exp': 2})}"}, None),
        ({"Authorization": make_token({"exp": 2})}, None),
        ({"Authorization": "Bearer opaque"}, None),
        ({"Authorization": "Bearer a.b.c"}, None),
        ({"Authorization": "Bearer a.é.c"}, None),
        ({"Authorization": f"Bearer {make_token({})}"}, None),
        ({"Authorization": f"Bearer {make_token([1])}"}, None),
        ({"Authorization": f"Bearer {make_token({'exp': 'soon'})}"}, None),
        ({"Authorization": f"Bearer {make_token({'exp': True})}"}, None),
        ({"Authorization": f"Bearer {make_token({'exp': -5})}"}, None),
        ({"Authorization": f"Bearer {make_token({'exp': float('nan')})}"}, None),
        ({"Authorization": f"Bearer {make_token({'exp': 10**400})}"}, None),
        ({"Authorization": f"Bearer {make_token({'exp': 2, 'x': 'x' * 40_000})}"}, None),
    ],
)
def test_the_expiry_of_a_token(headers: dict[str, str], expires_at: int | None) -> None:
    assert find_bearer_token_expiry(headers) == expires_at
