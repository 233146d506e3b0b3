"""Finds the token endpoint of an MCP server, as the MCP authorization specification states.

The server's challenge or a well-known URL leads to its metadata (RFC 9728), which names an authorization server; the
metadata of that one (RFC 8414, or OpenID discovery) names the token endpoint."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from watchdog.domain.local_hosts import is_loopback_host
from watchdog.domain.model import Json
from watchdog.domain.text import truncate_with_ellipsis
from watchdog.net.auth import may_send_client_secret
from watchdog.net.errors import ProbeError
from watchdog.net.http import HttpRequest, HttpResponse
from watchdog.net.http_evidence import build_http_response_evidence_facts, build_response_head_and_body_excerpt
from watchdog.net.redact import strip_url_to_scheme_host_and_path
from watchdog.net.tls import TlsConfig
from watchdog.net.token_endpoint import ProtectedResource, TokenEndpoint, TokenRequester, parse_json_object
from watchdog.net.url import ParsedHttpUrl, parse_http_url

MAX_METADATA_BYTES = 64 << 10
_MAX_SHOWN_URL_CHARS = 120
_PING = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
"""Has no effect, even on a server that requires no credentials."""
_MCP_SERVER, _AUTHORIZATION_SERVER = "MCP server", "authorization server"

_RequestSender = Callable[[HttpRequest], Awaitable[HttpResponse]]


class _Metadata(NamedTuple):
    """A JSON object that a server publishes about itself."""

    owner: str
    url: str
    response: HttpResponse
    members: Mapping[str, Json]

    def add_evidence(self, error: ProbeError) -> ProbeError:
        """The same error."""
        return _add_evidence(error, self.response, self.url)

    def build_invalid_error(self, problem: str) -> ProbeError:
        error = ProbeError.from_reason("auth.metadata_invalid", "token", owner=self.owner, problem=problem)
        return self.add_evidence(error)


class TokenEndpointDiscovery:
    """Finds one token endpoint. None of its requests has a secret of OAuth."""

    def __init__(self, requester: TokenRequester, resource: ProtectedResource, send: _RequestSender) -> None:
        self._requester, self._resource, self._send = requester, resource, send
        self._server_url = parse_http_url(resource.url)

    async def discover(self) -> TokenEndpoint:
        """Raises ProbeError."""
        challenge = await self._request_challenge()
        resource_metadata = await self._fetch_resource_metadata(challenge.get("resource_metadata", ""))
        identifier = self._find_resource_identifier(resource_metadata)
        issuer, issuer_url = self._find_issuer(resource_metadata)
        metadata = await self._fetch_metadata(_AUTHORIZATION_SERVER, _list_server_metadata_urls(issuer_url))
        _check_issuer_and_grant(metadata, issuer)
        scopes = resource_metadata.members.get("scopes_supported")
        known_scopes = [scope for scope in scopes if isinstance(scope, str)] if isinstance(scopes, list) else []
        return TokenEndpoint(
            self._find_token_url(metadata),
            self._requester.credentials.scope or challenge.get("scope", "") or " ".join(known_scopes),
            resource=identifier,
            client_auth=_choose_client_auth(metadata, issuer),
        )

    async def _request_challenge(self) -> Mapping[str, str]:
        """The parameters of the challenge that the server sends to a client without a token; empty: it sends none."""
        from watchdog.net.mcp.auth_challenge import parse_challenge_parameters  # loads the SDK

        headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
        request = self._build_request(self._server_url, headers)
        is_sse = self._resource.use_sse  # GET would open a stream if the server requires no token
        response = await self._send(
            replace(request, method="HEAD") if is_sse else replace(request, method="POST", body=_PING)
        )
        if response.status == 429 or response.status >= 500:
            message = f"HTTP {response.status}, expected an MCP response"
            error = ProbeError(f"http.{response.status}", message, "token", retryable=True)
            error.facts |= build_http_response_evidence_facts(response)
            error.excerpt = build_response_head_and_body_excerpt(response)
            raise error
        is_challenge = response.status == 401
        return parse_challenge_parameters(response.headers.get("www-authenticate", "")) if is_challenge else {}

    async def _fetch_resource_metadata(self, stated_url: str) -> _Metadata:
        """`stated_url`: of the challenge."""
        path = _get_path(self._server_url)
        well_known = "/.well-known/oauth-protected-resource"
        urls = [self._server_url._replace(path_and_query=p) for p in dict.fromkeys((well_known + path, well_known))]
        if stated_url:
            url = self._parse_url(stated_url, _MCP_SERVER)
            urls = [url] if url is not None else urls
        return await self._fetch_metadata(_MCP_SERVER, urls)

    def _find_resource_identifier(self, metadata: _Metadata) -> str:
        """RFC 9728, 3.3: metadata of another server must not be used. That of a parent path is accepted."""
        text = metadata.members.get("resource")
        if not isinstance(text, str) or not text:
            raise metadata.build_invalid_error("it has no resource")
        try:
            url = parse_http_url(text)
        except ValueError:
            url = None
        is_parent = url is not None and f"{_get_path(self._server_url)}/".startswith(f"{_get_path(url)}/")
        if url is None or url.origin != self._server_url.origin or not is_parent:
            raise metadata.build_invalid_error(f"it is that of {_shorten_url(text)}")
        return text

    def _find_issuer(self, metadata: _Metadata) -> tuple[str, ParsedHttpUrl]:
        servers = metadata.members.get("authorization_servers")
        if not isinstance(servers, list) or not servers or not isinstance(servers[0], str):
            raise metadata.build_invalid_error("it names no authorization server")
        url = self._parse_url(servers[0], _MCP_SERVER)
        if url is None:
            raise metadata.build_invalid_error(f"{_shorten_url(servers[0])} is not the URL of an authorization server")
        return servers[0], url

    def _find_token_url(self, metadata: _Metadata) -> str:
        text = metadata.members.get("token_endpoint")
        if not isinstance(text, str) or not text:
            raise metadata.build_invalid_error("it has no token_endpoint")
        url = self._parse_url(text, _AUTHORIZATION_SERVER)
        if url is None:
            raise metadata.build_invalid_error("its token_endpoint is not a URL")
        if not may_send_client_secret(url.url_without_credentials, self._resource.url):
            error = ProbeError.from_reason(
                "auth.endpoint_insecure", "token", owner=metadata.owner, url=_shorten_url(text)
            )
            raise metadata.add_evidence(error)
        return url.url_without_credentials

    def _parse_url(self, text: str, owner: str) -> ParsedHttpUrl | None:
        """A URL that a server names, without credentials. None: it is no URL. Raises ProbeError if it is not
        encrypted."""
        try:
            url = parse_http_url(text)._replace(userinfo="")
        except ValueError:
            return None
        if url.scheme != "https" and url.origin != self._server_url.origin and not is_loopback_host(url.host):
            raise ProbeError.from_reason("auth.endpoint_insecure", "token", owner=owner, url=_shorten_url(text))
        return url

    async def _fetch_metadata(self, owner: str, urls: Sequence[ParsedHttpUrl]) -> _Metadata:
        """From the first of these URLs that has some. Raises ProbeError."""
        invalid: _Metadata | None = None
        for url in urls:
            shown_url = strip_url_to_scheme_host_and_path(url.url_without_credentials)
            response = await self._send(self._build_request(url, {"Accept": "application/json"}))
            if response.status == 429 or response.status >= 500:
                problem = f"HTTP {response.status} at {_shorten_url(shown_url)}"
                error = ProbeError.from_reason("auth.token_unavailable", "token", retryable=True, problem=problem)
                raise _add_evidence(error, response, shown_url)
            if response.status != 200:
                continue
            metadata = _Metadata(owner, shown_url, response, parse_json_object(response))
            if metadata.members:
                return metadata
            invalid = invalid or metadata  # some servers send the same page for all paths
        if invalid is not None:
            raise invalid.build_invalid_error("it is not a JSON object")
        problem = f"HTTP {response.status} at {_shorten_url(shown_url)}"
        error = ProbeError.from_reason("auth.metadata_missing", "token", owner=owner, problem=problem)
        error.facts["requested_urls"] = [strip_url_to_scheme_host_and_path(u.url_without_credentials) for u in urls]
        raise _add_evidence(error, response, shown_url)

    def _build_request(self, url: ParsedHttpUrl, headers: Mapping[str, str]) -> HttpRequest:
        """The configured headers and the client certificate are sent to the origin of the server only."""
        is_of_server = url.origin == self._server_url.origin
        return HttpRequest(
            url.url_without_credentials,
            headers=_add_default_headers(headers, self._resource.headers if is_of_server else ()),
            tls=self._resource.tls if is_of_server else TlsConfig(),
            max_body_bytes=MAX_METADATA_BYTES,
            allow_private_addresses=self._requester.allow_private_addresses,
        )


def _add_default_headers(defaults: Mapping[str, str], configured: Sequence[tuple[str, str]]) -> dict[str, str]:
    names = {name.lower() for name, _ in configured}
    return {name: value for name, value in defaults.items() if name.lower() not in names} | dict(configured)


def _list_server_metadata_urls(issuer: ParsedHttpUrl) -> list[ParsedHttpUrl]:
    """RFC 8414, 3.1, then OpenID discovery as RFC 8414 changes it, and in its own form."""
    path = _get_path(issuer)
    paths = (
        f"/.well-known/oauth-authorization-server{path}",
        f"/.well-known/openid-configuration{path}",
        f"{path}/.well-known/openid-configuration",
    )
    return [issuer._replace(path_and_query=p) for p in dict.fromkeys(paths)]


def _check_issuer_and_grant(metadata: _Metadata, issuer: str) -> None:
    """Raises ProbeError. A final slash makes no difference: some libraries add it to URLs without a path."""
    stated, shown_issuer = metadata.members.get("issuer"), _shorten_url(issuer)
    if not isinstance(stated, str) or not stated:
        raise metadata.build_invalid_error("it has no issuer")
    if stated.rstrip("/") != issuer.rstrip("/"):
        other = _shorten_url(stated)
        error = ProbeError.from_reason("auth.issuer_mismatch", "token", issuer=shown_issuer, other=other)
        raise metadata.add_evidence(error)
    grants = metadata.members.get("grant_types_supported")
    if grants is not None and not (isinstance(grants, list) and "client_credentials" in grants):
        raise metadata.add_evidence(ProbeError.from_reason("auth.grant_not_supported", "token", issuer=shown_issuer))


def _choose_client_auth(metadata: _Metadata, issuer: str) -> Literal["basic", "body"]:
    """Raises ProbeError."""
    methods = metadata.members.get("token_endpoint_auth_methods_supported")
    if methods is None or (isinstance(methods, list) and "client_secret_basic" in methods):
        return "basic"
    if isinstance(methods, list) and "client_secret_post" in methods:
        return "body"
    error = ProbeError.from_reason("auth.client_auth_not_supported", "token", issuer=_shorten_url(issuer))
    raise metadata.add_evidence(error)


def _get_path(url: ParsedHttpUrl) -> str:
    """Without the query and a final slash; empty: there is no path."""
    return url.path_and_query.partition("?")[0].rstrip("/")


def _shorten_url(url: str) -> str:
    """Safe to show in a message."""
    return truncate_with_ellipsis(strip_url_to_scheme_host_and_path(url), _MAX_SHOWN_URL_CHARS)


def _add_evidence(error: ProbeError, response: HttpResponse, url: str) -> ProbeError:
    error.facts |= {**build_http_response_evidence_facts(response), "metadata_url": url}
    error.excerpt = build_response_head_and_body_excerpt(response)
    return error
