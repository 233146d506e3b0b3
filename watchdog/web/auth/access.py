"""Who may see the operators' pages: holders of a key, or, while no keys are configured, this machine alone."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from watchdog.web.auth.login_throttle import LoginThrottle

SESSION_COOKIE_NAME = "watchdog_session"
SESSION_LIFETIME_MS = 7 * 24 * 3_600_000
"""How long a sign-in lasts, in ms."""

PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A configured key. Both roles may read."""

    name: str
    role: Literal["reader", "operator"]
    secret: str = field(repr=False)


class AccessDeniedError(Exception):
    """A request that may not see the operators' pages. `reason` is a stable word; the text is for people. `wait`: so
    many seconds until another may."""

    def __init__(self, status: int, reason: str, message: str, retry_after_s: int = 0):
        super().__init__(message)
        self.status, self.reason, self.wait = status, reason, retry_after_s


class Authenticator:
    """The policy. `now`: the clock, in ms since the epoch."""

    def __init__(self, api_keys: Iterable[ApiKey], clock: Callable[[], int]):
        self.keys = tuple(api_keys)
        self._now = clock
        self._guesses = LoginThrottle(clock)

    def authenticate(self, request: Request) -> ApiKey | None:
        """Whose request it is; None: this machine's, without keys. Raises DeniedError."""
        if not self.keys:
            if reason := describe_non_local_request(request):
                raise AccessDeniedError(
                    403, "access.loopback_only", f"{reason}. Add `access.api_keys` to open these pages to others"
                )
            return None
        if (given := request.headers.get("authorization")) is not None:
            scheme, _, value = given.partition(" ")
            return self.verify_key(request, value.strip().encode("latin-1") if scheme.lower() == "bearer" else b"")
        if (cookie := request.cookies.get(SESSION_COOKIE_NAME)) is not None:
            if key := self._key_from_session(cookie):
                return key
            raise AccessDeniedError(401, "access.session_expired", "The sign-in is over")
        raise AccessDeniedError(401, "access.missing_key", "These pages need a key")

    def verify_key(self, request: Request, value: bytes) -> ApiKey:
        """Whose key it is. Raises DeniedError for a wrong one, and for any after too many wrong ones."""
        address = request.client.host if request.client else ""
        key = self.find_key(value)
        name = key.name if key else None
        if wait := self._guesses.retry_after_s(address, name):
            text = f"Too many wrong keys came from this address. Try again in {wait} s"
            raise AccessDeniedError(429, "access.too_many_attempts", text, wait)
        self._guesses.record_attempt(address, name)
        if key is None:
            raise AccessDeniedError(401, "access.invalid_key", "This key is not known")
        return key

    def find_key(self, value: bytes) -> ApiKey | None:
        """The key with this value. Takes the same time whichever it is."""
        digest = sha256(value).digest()
        matching = [key for key in self.keys if hmac.compare_digest(digest, sha256(key.secret.encode()).digest())]
        return matching[0] if matching else None

    def set_session_cookie(self, response: Response, key: ApiKey, *, secure: bool) -> None:
        """Set the session's cookie. `secure`: the request came over TLS."""
        until = self._now() + SESSION_LIFETIME_MS
        name = urlsafe_b64encode(key.name.encode()).decode()
        response.set_cookie(
            SESSION_COOKIE_NAME,
            f"{name}.{until}.{_session_signature(key, until)}",
            max_age=SESSION_LIFETIME_MS // 1000,
            httponly=True,
            samesite="strict",
            secure=secure,
        )

    def clear_session_cookie(self, response: Response) -> None:
        response.delete_cookie(SESSION_COOKIE_NAME, httponly=True, samesite="strict")

    def _key_from_session(self, cookie: str) -> ApiKey | None:
        try:
            encoded, until, seal = cookie.split(".")
            name, end = urlsafe_b64decode(encoded).decode(), int(until)
        except ValueError:
            return None
        for key in self.keys:
            if (
                key.name == name
                and hmac.compare_digest(_session_signature(key, end).encode(), seal.encode())
                and self._now() < end
            ):
                return key
        return None


def _session_signature(key: ApiKey, expires_at: int) -> str:
    """Made with the key itself: changing the key ends its sessions, and a restart does not."""
    secret = sha256(b"watchdog session\0" + key.secret.encode()).digest()
    return hmac.new(secret, f"{key.name}\0{key.role}\0{expires_at}".encode(), sha256).hexdigest()


def describe_non_local_request(request: Request) -> str:
    """Why a request is not surely this machine's own; empty when it is.

    The name in Host counts too, so that a page elsewhere cannot reach us by a name that it points at 127.0.0.1; a
    proxy's headers count, since behind it everybody comes from 127.0.0.1.
    """
    client = request.client.host if request.client else ""
    if not is_loopback_host(client):
        return "Without keys these pages answer this machine only"
    if any(name in request.headers for name in PROXY_HEADERS):
        return "Without keys these pages answer no proxy"
    if not is_loopback_host(host_without_port(request.headers.get("host", ""))):
        return "Without keys these pages answer to a loopback name only, such as localhost"
    return ""


def require_same_origin(request: Request) -> None:
    """Refuse a form that another site sent. Raises DeniedError."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        foreign = site not in ("same-origin", "none")
    else:
        foreign = origin is not None and origin.partition("://")[2] != request.headers.get("host", "")
    if foreign:
        raise AccessDeniedError(403, "access.cross_origin_form", "This form was sent by another site")


def host_without_port(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and ":" in host else host


def is_loopback_host(host: str) -> bool:
    """localhost or an address of this machine alone."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
