"""Who may see the operator pages: holders of an API key, or this machine alone while no keys are configured."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from hashlib import sha256

from starlette.requests import Request

from watchdog.domain.local_hosts import is_loopback_host
from watchdog.web.auth.login_throttle import LoginThrottle
from watchdog.web.auth.session import SESSION_COOKIE_NAME, ApiKey, SignInCookies

PROXY_REQUEST_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


class WebRequestRefusedError(Exception):
    """A request that may not see the operator pages. `reason` is a dotted reason, the message is for people.

    `retry_after_s`: seconds until another attempt is accepted; 0: at once.
    """

    def __init__(self, status_code: int, reason: str, message: str, retry_after_s: int = 0):
        super().__init__(message)
        self.status_code, self.reason, self.retry_after_s = status_code, reason, retry_after_s


class Authenticator:
    """Decides whether a request may see the operator pages, and with which key.

    A bearer token counts before a session cookie. Failed attempts are throttled. `clock`: epoch ms.
    """

    def __init__(self, api_keys: Iterable[ApiKey], clock: Callable[[], int]):
        self.api_keys = tuple(api_keys)
        self.sessions = SignInCookies(self.api_keys, clock)
        self._login_throttle = LoginThrottle(clock, limits_total=True)

    def authenticate(self, request: Request) -> ApiKey | None:
        """The key behind a request; None for this machine's own request while no keys are configured.

        Raises WebRequestRefusedError.
        """
        if not self.api_keys:
            if restriction := describe_why_request_is_not_local(request):
                message = f"Without API keys, these pages {restriction}. Configure `access.api_keys` to open them"
                raise WebRequestRefusedError(403, "access.loopback_only", message)
            return None
        if (authorization := request.headers.get("authorization")) is not None:
            scheme, _, value = authorization.partition(" ")
            return self.require_valid_api_key(
                request, value.strip().encode("latin-1") if scheme.lower() == "bearer" else b""
            )
        if (cookie := request.cookies.get(SESSION_COOKIE_NAME)) is not None:
            if api_key := self.sessions.find_api_key(cookie):
                return api_key
            raise WebRequestRefusedError(401, "access.session_expired", "The session has expired")
        raise WebRequestRefusedError(401, "access.missing_key", "An API key is required")

    def is_operator(self, request: Request) -> bool:
        """Whether a request may do and see what only operators may."""
        try:
            return has_operator_access(self.authenticate(request))
        except WebRequestRefusedError:
            return False

    def require_valid_api_key(self, request: Request, value: bytes) -> ApiKey:
        """The key with this value. Raises WebRequestRefusedError for an unknown one, and during throttling."""
        address = request.client.host if request.client else ""
        api_key = self.find_api_key(value)
        name = api_key.name if api_key else None
        if wait_s := self._login_throttle.retry_after_s(address, name):
            message = f"Too many failed attempts. Try again in {wait_s} s"
            raise WebRequestRefusedError(429, "access.too_many_attempts", message, wait_s)
        self._login_throttle.record_login_attempt(address, name)
        if api_key is None:
            raise WebRequestRefusedError(401, "access.invalid_key", "The API key is not valid")
        return api_key

    def find_api_key(self, value: bytes) -> ApiKey | None:
        """The key with this value, in a time that does not depend on the value."""
        digest = sha256(value).digest()
        matching = [key for key in self.api_keys if hmac.compare_digest(digest, sha256(key.secret.encode()).digest())]
        return matching[0] if matching else None


def has_operator_access(api_key: ApiKey | None) -> bool:
    """`api_key`: as `authenticate` returns it."""
    return api_key is None or api_key.role == "operator"


def describe_why_request_is_not_local(request: Request) -> str:
    """Which restriction a request violates that may not come from this machine itself; empty if it is local.

    The host name counts too, so that a page elsewhere cannot reach Watchdog through a name that resolves to 127.0.0.1.
    So do the headers of proxies, because behind a proxy every request comes from 127.0.0.1.
    """
    client = request.client.host if request.client else ""
    if not is_loopback_host(client):
        return "are available only on this machine"
    if any(name in request.headers for name in PROXY_REQUEST_HEADERS):
        return "are not available through a proxy"
    if not is_loopback_host(strip_port_from_host(request.headers.get("host", ""))):
        return "are available only under a loopback name such as localhost"
    return ""


def require_same_origin(request: Request) -> None:
    """Refuses a form that another site sent. Raises WebRequestRefusedError."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        is_foreign = site not in ("same-origin", "none")
    else:
        is_foreign = origin is not None and origin.partition("://")[2] != request.headers.get("host", "")
    if is_foreign:
        raise WebRequestRefusedError(403, "access.cross_origin_form", "The form was sent by another site")


def strip_port_from_host(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
