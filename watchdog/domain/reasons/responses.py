"""Reasons about a response: the protocol, the status and the body."""

from __future__ import annotations

from functools import partial

from watchdog.domain.reasons.entry import ReasonCategory, ReasonEntry

_failure_reason_entry = partial(ReasonEntry, ReasonCategory.FAILURE)
_error_reason_entry = partial(ReasonEntry, ReasonCategory.ERROR)

_PROTOCOL_REASON_ENTRIES = (
    _failure_reason_entry(
        "protocol.not_http",
        "Not HTTP",
        "The service on this port does not speak HTTP. The excerpt shows the beginning of its response.",
        "Check the port, and which service listens there.",
        sentence="the response is not HTTP",
    ),
    _failure_reason_entry(
        "protocol.http2_only",
        "HTTP/2 only",
        "The server speaks only HTTP/2, and Watchdog requests HTTP/1.1.",
        "Set `http2: true`, or enable HTTP/1.1 on the server or on a proxy in front of it.",
        sentence="the server speaks only HTTP/2",
    ),
    _failure_reason_entry(
        "protocol.not_http2",
        "Not HTTP/2",
        "The service on this port does not speak HTTP/2, which gRPC and `http2: true` require. With TLS, the server "
        "must select `h2` during the handshake (ALPN). The excerpt shows the beginning of a response that is not "
        "HTTP/2.",
        "Check the port, and which service listens there. Enable HTTP/2 on the server or on a proxy in front of it, or "
        "remove `http2`.",
        sentence="the server does not speak HTTP/2: {problem}",
    ),
    _failure_reason_entry(
        "protocol.http2_aborted",
        "HTTP/2 request aborted",
        "The server ends the HTTP/2 stream or connection before its response is complete. The message shows the error "
        "code.",
        "See the server's log. `ENHANCE_YOUR_CALM` and `REFUSED_STREAM` mean that it limits requests.",
        sentence="the server aborts the request: {problem} (HTTP/2)",
    ),
    _failure_reason_entry(
        "protocol.tls_required",
        "Port requires TLS",
        "The probe does not use TLS, but the port speaks it.",
        "Use `https://` or `wss://`, or for gRPC `tls: true`.",
        sentence="the server speaks TLS on this port: {remedy}",
    ),
    _failure_reason_entry(
        "protocol.tls_expected",
        "Port expects TLS",
        "The probe sends text without TLS, but the port speaks TLS.",
        "Set `tls: true` in the probe's `tcp`.",
        sentence="the server speaks TLS on this port: set `tls: true`",
    ),
    _failure_reason_entry(
        "protocol.unexpected_text",
        "Unexpected text",
        "The server closed the connection, or sent 64 KiB, without the text of `contains`. The evidence shows what "
        "arrived.",
        "Check what the service sends instead. If its response is right, correct `send` or `contains`.",
        sentence="{problem}, expected {expected}",
    ),
    _failure_reason_entry(
        "protocol.headers_too_large",
        "Response headers too large",
        "The status line and headers of the response are longer than 64 KiB.",
        "Find out which header grows; often it is Set-Cookie.",
        sentence="the response headers are too long",
    ),
    _failure_reason_entry(
        "protocol.unexpected_upgrade",
        "Unexpected protocol switch",
        "The server switches to another protocol (HTTP 101) although the request did not ask for it.",
        "Check whether the URL is a WebSocket endpoint.",
        sentence="HTTP 101: the server switched to another protocol without being asked",
    ),
    _failure_reason_entry(
        "protocol.no_final_response",
        "No final response",
        "The server sends interim (1xx) responses, but no final one.",
        "Report it to the author of the server.",
        sentence="more than {limit} interim (1xx) responses",
    ),
    _failure_reason_entry(
        "protocol.invalid_response",
        "Invalid HTTP response",
        "The response begins like HTTP but violates the protocol, for example with a malformed header or chunk. The "
        "evidence shows the detail.",
        "Check the service and any proxy in front of it.",
        sentence="the response is not valid HTTP{problem}",
    ),
    _failure_reason_entry(
        "protocol.invalid_url",
        "URL cannot be requested",
        "A URL that the target sent is invalid, or neither http nor https.",
        "Fix the URL.",
    ),
    _failure_reason_entry(
        "body.truncated",
        "Response body incomplete",
        "The connection ended before the body was complete: fewer bytes than `Content-Length` states, no last chunk, "
        "or compressed data without its end.",
        "Look for crashes of the service during the response, and for time and size limits of proxies.",
        sentence="the response body is incomplete: {problem}",
    ),
    _failure_reason_entry(
        "body.invalid_encoding",
        "Response body not decodable",
        "The body is not compressed as its `Content-Encoding` states.",
        "Check the compression settings of the service and of any proxy in front of it.",
        sentence="the response body is not compressed as its headers state",
    ),
    _error_reason_entry(
        "body.too_large",
        "Response larger than Watchdog reads",
        "The response is larger than `max_body`, and the check depends on the part that was not read.",
        "Raise `max_body`, or check a smaller response.",
    ),
    _error_reason_entry(
        "body.decoded_too_large",
        "Decompressed response larger than Watchdog reads",
        "The response is larger than `max_body` once it is decompressed, and the check depends on the part that was "
        "not read.",
        "Raise `max_body`, or check a smaller response.",
    ),
    _error_reason_entry(
        "body.unsupported_encoding",
        "Response encoding not supported",
        "The body has a `Content-Encoding` that Watchdog cannot decode, and the check depends on the body. It decodes "
        "gzip, deflate, br and zstd.",
        "Have the server send one of these, or check the status only.",
    ),
    _failure_reason_entry(
        "json.truncated",
        "JSON incomplete",
        "The body ends in the middle of its JSON, or is empty, and an expression uses it.",
        "Look for errors in the service while it writes the response.",
    ),
    _failure_reason_entry(
        "json.invalid",
        "JSON invalid",
        "The body should be JSON but is not, and an expression uses it. The message shows where.",
        "Fix the service's output. Often an error message is mixed into it.",
    ),
    _error_reason_entry(
        "json.too_complex",
        "JSON nested too deeply",
        "The body's JSON is nested deeper than Watchdog reads, and an expression uses it.",
        "Check a simpler response.",
    ),
)

_HTTP_REASON_ENTRIES = (
    _failure_reason_entry(
        "http.3xx",
        "Redirect not followed",
        "The response is a redirect that is not followed.",
        "Configure the URL that it redirects to, or set `follow_redirects` if the kind of probe has it.",
    ),
    _failure_reason_entry(
        "http.4xx",
        "Request refused",
        "The server refuses the request.",
        "See the excerpt in the evidence.",
    ),
    _failure_reason_entry(
        "http.401",
        "Not authenticated (401)",
        "The server does not accept the credentials.",
        "Renew the token or password.",
    ),
    _failure_reason_entry(
        "http.403",
        "Forbidden (403)",
        "The server does not allow access with these credentials.",
        "Check the permissions of the token or user, and the rules of firewalls in front of the service.",
    ),
    _failure_reason_entry(
        "http.404",
        "Not found (404)",
        "The URL does not exist.",
        "Check the path, and whether the last deployment moved or removed it.",
    ),
    _failure_reason_entry(
        "http.405",
        "Method not allowed (405)",
        "The URL does not accept the request's method.",
        "Check `method`. If an MCP server refuses POST, check the path: it often ends in `/mcp`.",
    ),
    _failure_reason_entry(
        "http.406",
        "Not acceptable (406)",
        "The server cannot answer with any of the types that the request accepts.",
        "Check `Accept` in `headers`. MCP needs `application/json, text/event-stream`.",
    ),
    _failure_reason_entry(
        "http.407",
        "Proxy authentication required (407)",
        "A proxy between Watchdog and the target requires credentials.",
        "Check the route to the target.",
    ),
    _failure_reason_entry(
        "http.421",
        "Misdirected request (421)",
        "The server does not serve this host name.",
        "Check the host names that the server is configured for, and `server_name` in `tls`.",
    ),
    _failure_reason_entry(
        "http.429",
        "Too many requests (429)",
        "The server limits the rate of requests.",
        "Probe less often, or have the limit raised.",
    ),
    _failure_reason_entry(
        "http.5xx",
        "Server error",
        "The server, or a proxy in front of it, failed.",
        "See the excerpt in the evidence and the log of the service.",
    ),
    _failure_reason_entry(
        "http.500",
        "Internal server error (500)",
        "The application failed while it handled the request.",
        "See the log of the application.",
    ),
    _failure_reason_entry(
        "http.502",
        "Bad gateway (502)",
        "A proxy got no valid response from the service behind it.",
        "Check whether the service behind the proxy is running, and which address the proxy uses for it.",
    ),
    _failure_reason_entry(
        "http.503",
        "Service unavailable (503)",
        "The service is overloaded, in maintenance, or has no instance that is ready.",
        "Check the load of the service and, if it is behind a proxy, whether its instances are ready.",
    ),
    _failure_reason_entry(
        "http.504",
        "Gateway timeout (504)",
        "A proxy waited too long for the service behind it.",
        "Check the load of the service behind the proxy.",
    ),
    _failure_reason_entry(
        "http.*",
        "Unexpected HTTP status",
        "The status is not 2xx, and no `expect` expression allows it.",
        "See the excerpt in the evidence.",
    ),
    _failure_reason_entry(
        "http.too_many_redirects",
        "Too many redirects",
        "The request was redirected more than 20 times.",
        "Probe the final URL.",
    ),
    _failure_reason_entry(
        "http.invalid_redirect",
        "Invalid redirect",
        "The Location header of a redirect contains no usable URL.",
        "Fix the Location header.",
    ),
)

_CAPTURE_REASON_ENTRIES = (
    _failure_reason_entry(
        "capture.missing",
        "Captured value missing",
        "The response to a step of a `steps` probe does not contain a value that the step captures: the field is "
        "missing, null or empty. The message names the step, the capture and the cause.",
        "Check whether the response has changed, or correct the expression in `capture`.",
    ),
    _failure_reason_entry(
        "capture.unusable",
        "Captured value unusable",
        "A value that a step of a `steps` probe captures cannot be used in a request: it is a list or an object, is "
        "longer than 8,192 characters, or is a number that cannot be sent exactly.",
        "Correct the expression in `capture`: it must return text, a number, true or false.",
    ),
    _failure_reason_entry(
        "capture.invalid_in_header",
        "Captured value not allowed in a header",
        "A step of a `steps` probe uses a captured value in a header, but the value contains a line break or another "
        "control character. The request was not sent, because the server could read the value as further headers.",
        "Find out why the earlier response contains such a value.",
        sentence="{name} cannot be sent in the header {header}: it contains a line break or another control character",
    ),
    _failure_reason_entry(
        "capture.invalid_in_url",
        "Captured value not allowed in a URL",
        "A step of a `steps` probe uses a captured value in the path of its URL, but the value is `.` or `..`, which "
        "would change the path. The request was not sent.",
        "Find out why the earlier response contains such a value.",
        sentence="{name} cannot be sent in the path of the URL: it is . or .., which would change the path",
    ),
)

RESPONSE_REASON_ENTRIES = (*_PROTOCOL_REASON_ENTRIES, *_HTTP_REASON_ENTRIES, *_CAPTURE_REASON_ENTRIES)
