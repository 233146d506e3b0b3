"""When a bearer token that Watchdog sends expires, if it is a JSON Web Token. Its signature is not checked."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Mapping

from watchdog.domain.timestamps import MAX_EPOCH_MS

MAX_BEARER_TOKEN_CHARS = 32_000


def find_bearer_token_expiry(headers: Mapping[str, str]) -> int | None:
    """Epoch ms. None: no header Authorization has such a token, or the token has no claim `exp`."""
    authorization = next((value for name, value in headers.items() if name.lower() == "authorization"), "")
    scheme, _, token = authorization.partition(" ")
    parts = token.strip().split(".")
    if scheme.lower() != "bearer" or len(parts) != 3 or len(token) > MAX_BEARER_TOKEN_CHARS:
        return None
    try:
        claims = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    expiry_s = claims.get("exp") if isinstance(claims, dict) else None
    if not isinstance(expiry_s, int | float) or isinstance(expiry_s, bool) or not 0 < expiry_s < MAX_EPOCH_MS / 1000:
        return None
    return round(expiry_s * 1000)
