"""Who requests an access token, for which server, and where."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, NamedTuple

from watchdog.domain.model import Json
from watchdog.net.http import HttpResponse
from watchdog.net.proxy import RequestRouting
from watchdog.net.tls import TlsConfig
from watchdog.net.url import parse_http_url

if TYPE_CHECKING:
    from watchdog.net.auth import McpOAuthCredentials, OAuth2ClientCredentials


class ProtectedResource(NamedTuple):
    """An MCP server that a token is for, and how requests reach it."""

    url: str
    use_sse: bool
    headers: tuple[tuple[str, str], ...]
    """Headers of all requests to it. They hold no credentials of OAuth."""
    tls: TlsConfig

    @property
    def identifier(self) -> str:
        """The value of the parameter `resource` (RFC 8707): the URL without credentials, query and fragment."""
        url = parse_http_url(self.url)
        path = url.path_and_query.partition("?")[0]
        return url._replace(path_and_query="" if path == "/" else path).url_without_credentials


class TokenRequester(NamedTuple):
    """Whose token, for which server, and how the token endpoint is reached."""

    credentials: OAuth2ClientCredentials | McpOAuthCredentials
    routing: RequestRouting
    allow_private_addresses: bool
    resource: ProtectedResource | None = None
    """Of `McpOAuthCredentials`."""


class TokenEndpoint(NamedTuple):
    """Where tokens are requested, and how."""

    url: str
    scope: str = ""
    audience: str = ""
    resource: str = ""
    """The identifier of the server that the token is for; empty: the token endpoint does not have to know it."""
    client_auth: Literal["basic", "body"] = "basic"


def parse_json_object(response: HttpResponse) -> dict[str, Json]:
    """The body; empty if it is no JSON object."""
    try:
        body = json.loads(response.body)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
