"""Sessions of the operator pages: cookies signed with the API key, so that the server stores none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal

from itsdangerous import BadData, Signer, URLSafeSerializer
from starlette.responses import Response

SESSION_COOKIE_NAME = "watchdog_session"
WEB_SESSION_LIFETIME_MS = 7 * 24 * 3_600_000
SESSION_COOKIE_SALT = "watchdog session"
CSRF_TOKEN_SALT = "watchdog csrf"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A configured key. Both roles may read."""

    name: str
    role: Literal["reader", "operator"]
    secret: str = field(repr=False)


class SignInCookies:
    """Issues and checks session cookies. Each is signed with its own API key: a changed key, name or role ends the
    sessions of that key, and a restart does not."""

    def __init__(self, api_keys: Iterable[ApiKey], clock: Callable[[], int]):
        self._serializers = {key: _create_cookie_serializer(key) for key in api_keys}
        self._clock = clock

    def set(self, response: Response, api_key: ApiKey, *, secure: bool) -> None:
        """`secure`: the request came over TLS."""
        expires_at = self._clock() + WEB_SESSION_LIFETIME_MS
        response.set_cookie(
            SESSION_COOKIE_NAME,
            self._serializers[api_key].dumps([api_key.name, expires_at]),
            max_age=WEB_SESSION_LIFETIME_MS // 1000,
            httponly=True,
            samesite="strict",
            secure=secure,
        )

    def clear(self, response: Response) -> None:
        response.delete_cookie(SESSION_COOKIE_NAME, httponly=True, samesite="strict")

    def find_api_key(self, cookie: str) -> ApiKey | None:
        """The key of a session; None if no configured key signed it, or if it has expired."""
        for api_key, serializer in self._serializers.items():
            try:
                name, expires_at = serializer.loads(cookie)
            except BadData:
                continue
            if name == api_key.name and self._clock() < expires_at:
                return api_key
        return None

    def make_csrf_token(self, cookie: str) -> str:
        """What a page sends with an act, so that only a page of this session can; empty if the session is not valid."""
        api_key = self.find_api_key(cookie)
        return "" if api_key is None else _create_csrf_signer(api_key).get_signature(cookie).decode()

    def is_csrf_token_of_session(self, cookie: str, token: str) -> bool:
        api_key = self.find_api_key(cookie)
        return api_key is not None and _create_csrf_signer(api_key).verify_signature(cookie, token)


def _create_csrf_signer(api_key: ApiKey) -> Signer:
    return Signer(api_key.secret.encode(), salt=f"{CSRF_TOKEN_SALT}\0{api_key.name}", digest_method=sha256)


def _create_cookie_serializer(api_key: ApiKey) -> URLSafeSerializer:
    return URLSafeSerializer(
        f"{api_key.role}\0{api_key.secret}".encode(),
        salt=f"{SESSION_COOKIE_SALT}\0{api_key.name}",
        signer_kwargs={"key_derivation": "hmac", "digest_method": sha256},
    )
