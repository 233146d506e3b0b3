"""Reasons about what lies between Watchdog and a target: a proxy, or the server that issues access tokens."""

from __future__ import annotations

from functools import partial

from watchdog.domain.reasons.entry import ReasonCategory, ReasonEntry

_failure_reason_entry = partial(ReasonEntry, ReasonCategory.FAILURE)
_error_reason_entry = partial(ReasonEntry, ReasonCategory.ERROR)

PROXY_AND_TOKEN_REASON_ENTRIES = (
    _failure_reason_entry(
        "proxy.target_unreachable",
        "Target unreachable through the proxy",
        "The proxy is reachable, but it reports that it cannot connect to the target: HTTP 502, 503 or 504 in response "
        "to CONNECT, or an error of SOCKS. The message shows what it reports.",
        "Check whether the service is running and reachable from the proxy. The proxy also resolves the host name, "
        "unless its URL begins with `socks5://`.",
        sentence="the proxy {proxy} cannot reach the target: {problem}",
    ),
    _error_reason_entry(
        "proxy.unreachable",
        "Proxy unreachable",
        "There is no connection to the configured proxy: its name cannot be resolved, it does not accept connections, "
        "TLS to it fails, or that takes longer than `timeout`. Nothing is known about the target.",
        "Check `proxy` in `network` or in the probe, and whether the proxy is running.",
        sentence="no verdict: the proxy {proxy} cannot be reached: {problem}",
    ),
    _error_reason_entry(
        "proxy.authentication_required",
        "Proxy rejects the credentials",
        "The proxy requires credentials, or rejects those in its URL (HTTP 407, or an error of SOCKS). Watchdog sends "
        "them as Basic. The message names what the proxy offers instead.",
        "Check the user name and password in the URL of the proxy: `http://user:password@proxy.example:3128`.",
        sentence="no verdict: the proxy {proxy} {problem}",
    ),
    _error_reason_entry(
        "proxy.refused",
        "Proxy refuses the target",
        "The rules of the proxy do not allow a connection to the target, for example to its port.",
        "Have the proxy permit the target, or connect to it directly: `no_proxy` in `network`, or `proxy: off` in the "
        "probe.",
        sentence="no verdict: the proxy {proxy} refuses to connect to the target: {problem}",
    ),
    _error_reason_entry(
        "proxy.wrong_protocol",
        "Not such a proxy",
        "The service at the address of the proxy does not speak the protocol that its URL begins with.",
        "Check the port, and whether the URL should begin with `http://`, `https://` or `socks5://`.",
        sentence="no verdict: {proxy} does not speak {protocol} as a proxy",
    ),
    _error_reason_entry(
        "proxy.failed",
        "Proxy failed",
        "The proxy did not open a connection to the target, and does not state that the target is at fault.",
        "See the log of the proxy.",
        sentence="no verdict: the proxy {proxy} failed: {problem}",
    ),
    _failure_reason_entry(
        "timeout.tunnel",
        "Timed out: waiting for the proxy",
        "The proxy accepted the connection, but did not connect to the target within `timeout`.",
        "Check whether the target accepts connections from the proxy, and whether the URL of the proxy begins with the "
        "protocol that it speaks: a SOCKS proxy does not answer HTTP, and vice versa.",
    ),
    _failure_reason_entry(
        "auth.token_refused",
        "Access token refused",
        "The token endpoint refuses to issue an access token. The message shows its status and error code.",
        "Check `client_id`, `client_secret`, `scope` and `audience`. Some servers expect the secret in the body: "
        "`client_auth: body` of `auth.oauth2`.",
        sentence="the token endpoint refuses an access token: {problem}",
    ),
    _failure_reason_entry(
        "auth.token_unavailable",
        "Token endpoint not available",
        "The token endpoint, or the metadata that names it, gave no usable response, or HTTP 429 or 5xx, and there is "
        "no access token that is still valid.",
        "Check the server that the message names. The evidence shows its status, if it responded.",
        sentence="no access token: {problem}",
    ),
    _failure_reason_entry(
        "auth.token_invalid",
        "Access token not usable",
        "The response of the token endpoint contains no access token that can be sent as `Authorization: Bearer "
        "TOKEN`.",
        "Check `token_url`: it must be the token endpoint itself.",
        sentence="the response of the token endpoint is not usable: {problem}",
    ),
    _failure_reason_entry(
        "auth.metadata_missing",
        "Token endpoint not stated",
        "The token endpoint of an MCP server is found through the metadata of the server (RFC 9728) and of its "
        "authorization server (RFC 8414 or OpenID discovery). One of them does not exist where it is expected.",
        "Check whether the server publishes it, or set `token_url`. The evidence lists the URLs that were requested.",
        sentence="no access token: there is no metadata of the {owner}: {problem}",
    ),
    _failure_reason_entry(
        "auth.metadata_invalid",
        "Metadata for tokens not usable",
        "The metadata that leads to the token endpoint of an MCP server is no JSON object, lacks a member that is "
        "required, or is about another server.",
        "Correct the metadata of the server that the message names, or set `token_url`.",
        sentence="no access token: the metadata of the {owner} is not usable: {problem}",
    ),
    _failure_reason_entry(
        "auth.issuer_mismatch",
        "Metadata of another authorization server",
        "The metadata of the authorization server states another `issuer` than the MCP server does. Watchdog sends no "
        "client secret there, because the metadata may be forged.",
        "Make `authorization_servers` of the MCP server and `issuer` of the authorization server the same URL.",
        sentence="no access token: the metadata of the authorization server {issuer} states the issuer {other}",
    ),
    _failure_reason_entry(
        "auth.grant_not_supported",
        "Client credentials not supported",
        "The metadata of the authorization server states which grants it supports, and `client_credentials` is not "
        "one of them.",
        "Enable client credentials at the authorization server, or set `token_url` if its metadata is incomplete.",
        sentence="no access token: the authorization server {issuer} does not support client credentials",
    ),
    _failure_reason_entry(
        "auth.client_auth_not_supported",
        "No common way to send the client secret",
        "The authorization server accepts the client secret neither in the `Authorization` header "
        "(`client_secret_basic`) nor in the body (`client_secret_post`), as its metadata states.",
        "Permit one of them for this client, or send a token of another source in `headers`.",
        sentence="no access token: the authorization server {issuer} accepts no client secret",
    ),
    _failure_reason_entry(
        "auth.endpoint_insecure",
        "Token endpoint not encrypted",
        "A server names an `http://` URL for its metadata, authorization server or token endpoint. Watchdog follows it "
        "only on this machine, and sends no client secret to it unless the MCP server is on this machine as well.",
        "Correct the metadata: it should name an `https://` URL.",
        sentence="no access token: the {owner} names a URL that is not encrypted: {url}",
    ),
    _failure_reason_entry(
        "timeout.token",
        "Timed out: requesting an access token",
        "The token endpoint did not respond within `timeout`.",
        "Check the load of the token endpoint.",
    ),
)
