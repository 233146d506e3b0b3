"""Who may act, and in whose name: what every route depends on that changes something."""

from __future__ import annotations

from starlette.requests import Request

from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.web.auth.access import Authenticator, WebRequestRefusedError, require_same_origin
from watchdog.web.auth.session import SESSION_COOKIE_NAME

CSRF_TOKEN_HEADER = "X-CSRF-Token"
SAFE_HTTP_METHODS = ("GET", "HEAD", "OPTIONS")
ACTOR_NAME_WITHOUT_API_KEYS = "localhost"
"""The person on this machine while no API keys are configured."""


def require_operator_role(request: Request) -> None:
    """Refuses a reader, after the router has authenticated the request. Raises WebRequestRefusedError."""
    if not request.state.is_operator:
        raise WebRequestRefusedError(403, "access.operator_required", "This requires the role operator")


def get_actor_name(request: Request) -> str:
    """The name of the API key, also behind a session; ACTOR_NAME_WITHOUT_API_KEYS without keys."""
    return request.state.key_name or ACTOR_NAME_WITHOUT_API_KEYS


def get_actor(request: Request, interface: OperatorInterfaceKind, on_behalf_of: str = "") -> Actor:
    """`on_behalf_of`: the person who acts through a program. The key comes first: it is what is known for sure."""
    name = get_actor_name(request)
    return Actor(f"{name} for {on_behalf_of}" if on_behalf_of else name, interface)


def require_csrf_safe_act(request: Request, authenticator: Authenticator, form_csrf_token: str = "") -> None:
    """Refuses an act that another site may have sent through a browser. Raises WebRequestRefusedError.

    A browser adds a cookie by itself, and never an Authorization header. An act with a session cookie therefore needs
    the CSRF token of the session, and one without any key must not come from another site. `form_csrf_token`: of a page
    without scripts, which cannot send the header.
    """
    if request.method in SAFE_HTTP_METHODS or "authorization" in request.headers:
        return
    require_same_origin(request)
    if (cookie := request.cookies.get(SESSION_COOKIE_NAME)) is None or not authenticator.api_keys:
        return
    token = request.headers.get(CSRF_TOKEN_HEADER) or form_csrf_token
    if not authenticator.sessions.is_csrf_token_of_session(cookie, token):
        raise WebRequestRefusedError(
            403, "access.csrf_token", f"The header {CSRF_TOKEN_HEADER} or the form's token is missing or not valid"
        )


def make_csrf_token(request: Request, authenticator: Authenticator) -> str:
    """For the forms of a page; empty without a session."""
    return authenticator.sessions.make_csrf_token(request.cookies.get(SESSION_COOKIE_NAME, ""))
