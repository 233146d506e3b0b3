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

from watchdog.web.guesses import Guesses

COOKIE = "watchdog_session"
SESSION = 7 * 24 * 3_600_000
"""How long a sign-in lasts, in ms."""

FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


@dataclass(frozen=True, slots=True)
class Key:
    """A configured key. Both roles may read."""

    name: str
    role: Literal["reader", "operator"]
    key: str = field(repr=False)


class DeniedError(Exception):
    """A request that may not see the operators' pages. `reason` is a stable word; the text is for people. `wait`: so
    many seconds until another may."""

    def __init__(self, status: int, reason: str, message: str, wait: int = 0):
        super().__init__(message)
        self.status, self.reason, self.wait = status, reason, wait


class Access:
    """The policy. `now`: the clock, in ms since the epoch."""

    def __init__(self, keys: Iterable[Key], now: Callable[[], int]):
        self.keys = tuple(keys)
        self._now = now
        self._guesses = Guesses(now)

    def admit(self, request: Request) -> Key | None:
        """Whose request it is; None: this machine's, without keys. Raises DeniedError."""
        if not self.keys:
            if reason := beyond_loopback(request):
                raise DeniedError(403, "access.loopback_only", f"{reason}. Add `access.keys` to open these pages to others")
            return None
        if (given := request.headers.get("authorization")) is not None:
            scheme, _, value = given.partition(" ")
            return self.check(request, value.strip().encode("latin-1") if scheme.lower() == "bearer" else b"")
        if (cookie := request.cookies.get(COOKIE)) is not None:
            if key := self._of_session(cookie):
                return key
            raise DeniedError(401, "access.session_expired", "The sign-in is over")
        raise DeniedError(401, "access.missing_key", "These pages need a key")

    def check(self, request: Request, value: bytes) -> Key:
        """Whose key it is. Raises DeniedError for a wrong one, and for any after too many wrong ones."""
        address = request.client.host if request.client else ""
        key = self.find(value)
        name = key.name if key else None
        if wait := self._guesses.wait(address, name):
            text = f"Too many wrong keys came from this address. Try again in {wait} s"
            raise DeniedError(429, "access.too_many_attempts", text, wait)
        self._guesses.note(address, name)
        if key is None:
            raise DeniedError(401, "access.invalid_key", "This key is not known")
        return key

    def find(self, value: bytes) -> Key | None:
        """The key with this value. Takes the same time whichever it is."""
        digest = sha256(value).digest()
        matching = [key for key in self.keys if hmac.compare_digest(digest, sha256(key.key.encode()).digest())]
        return matching[0] if matching else None

    def sign_in(self, response: Response, key: Key, *, secure: bool) -> None:
        """Set the session's cookie. `secure`: the request came over TLS."""
        until = self._now() + SESSION
        name = urlsafe_b64encode(key.name.encode()).decode()
        response.set_cookie(
            COOKIE, f"{name}.{until}.{_seal(key, until)}", max_age=SESSION // 1000, httponly=True, samesite="strict",
            secure=secure,
        )  # fmt: skip

    def sign_out(self, response: Response) -> None:
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")

    def _of_session(self, cookie: str) -> Key | None:
        try:
            encoded, until, seal = cookie.split(".")
            name, end = urlsafe_b64decode(encoded).decode(), int(until)
        except ValueError:
            return None
        for key in self.keys:
            if key.name == name and hmac.compare_digest(_seal(key, end).encode(), seal.encode()) and self._now() < end:
                return key
        return None


def _seal(key: Key, until: int) -> str:
    """Made with the key itself: changing the key ends its sessions, and a restart does not."""
    secret = sha256(b"watchdog session\0" + key.key.encode()).digest()
    return hmac.new(secret, f"{key.name}\0{key.role}\0{until}".encode(), sha256).hexdigest()


def beyond_loopback(request: Request) -> str:
    """Why a request is not surely this machine's own; empty when it is.

    The name in Host counts too, so that a page elsewhere cannot reach us by a name that it points at 127.0.0.1; a
    proxy's headers count, since behind it everybody comes from 127.0.0.1.
    """
    client = request.client.host if request.client else ""
    if not is_loopback(client):
        return "Without keys these pages answer this machine only"
    if any(name in request.headers for name in FORWARDED):
        return "Without keys these pages answer no proxy"
    if not is_loopback(host_name(request.headers.get("host", ""))):
        return "Without keys these pages answer to a loopback name only, such as localhost"
    return ""


def same_origin(request: Request) -> None:
    """Refuse a form that another site sent. Raises DeniedError."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        foreign = site not in ("same-origin", "none")
    else:
        foreign = origin is not None and origin.partition("://")[2] != request.headers.get("host", "")
    if foreign:
        raise DeniedError(403, "access.cross_origin_form", "This form was sent by another site")


def host_name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and ":" in host else host


def is_loopback(name: str) -> bool:
    """localhost or an address of this machine alone."""
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
