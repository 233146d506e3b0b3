"""Every exception of the network becomes an error with a stable reason; other exceptions are bugs."""

from __future__ import annotations

import errno
import socket
import ssl

import anyio
import h11
import httpcore
import httpx
import httpx2
import pytest

from watchdog.net.errors import ProbeError, build_probe_error_from_exception


def os_error(number: int) -> OSError:
    return OSError(number, "text of the system")


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return error


def refused_certificate(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, message
    return error


def caused(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


def while_handling(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__context__ = inner
    return outer


REFUSED, RESET = ConnectionRefusedError(errno.ECONNREFUSED, "refused"), ConnectionResetError(errno.ECONNRESET, "reset")
REQUEST2 = httpx2.Request("GET", "http://h/")


@pytest.mark.parametrize(
    ("error", "reason", "message", "retryable"),
    [
        (REFUSED, "connection.refused", "connection refused", True),
        (RESET, "connection.reset", "connection reset by the server", True),
        (ConnectionResetError(), "connection.lost", "connection lost", True),
        (BrokenPipeError(errno.EPIPE, "pipe"), "connection.closed", "connection closed by the server", True),
        (os_error(errno.EHOSTUNREACH), "connection.unreachable", "no route to the host", True),
        (os_error(errno.ENETUNREACH), "connection.unreachable", "network unreachable", True),
        (os_error(errno.ETIMEDOUT), "timeout.exceeded", "timed out", True),
        (TimeoutError(), "timeout.exceeded", "timed out", True),
        (socket.gaierror(socket.EAI_NONAME, "?"), "dns.not_found", "host name not found", True),
        (socket.gaierror(socket.EAI_AGAIN, "?"), "dns.no_response", "no response from the name server", True),
        (socket.gaierror(socket.EAI_NODATA, "?"), "dns.no_address", "host name has no address", True),
        (socket.gaierror(-4, "Broken"), "dns.failed", "host name lookup failed (Broken)", True),
        (refused_certificate(10, "certificate has expired"), "tls.expired", "TLS: certificate expired", False),
        (refused_certificate(18, "x"), "tls.self_signed", "TLS: certificate is self-signed", False),
        (refused_certificate(20, "x"), "tls.untrusted", "TLS: certificate is signed by an unknown authority", False),
        (refused_certificate(9, "x"), "tls.not_yet_valid", "TLS: certificate is not valid yet", False),
        (refused_certificate(19, "x"), "tls.untrusted", "TLS: certificate is signed by an unknown authority", False),
        (refused_certificate(23, "x"), "tls.revoked", "TLS: certificate is revoked", False),
        (refused_certificate(26, "x"), "tls.wrong_purpose", "TLS: certificate is not meant for servers", False),
        (refused_certificate(66, "EE key too weak"), "tls.weak_security", None, False),
        (
            refused_certificate(62, "Hostname mismatch, certificate is not valid for 'api.example'."),
            *("tls.hostname", "TLS: certificate is not valid for api.example", False),
        ),
        (refused_certificate(99, "odd"), "tls.invalid_chain", "TLS: odd", False),
        (tls_error("WRONG_VERSION_NUMBER"), "tls.not_tls", "TLS: the server does not speak TLS on this port", False),
        (
            tls_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"),
            *("tls.client_certificate", "TLS: the server requires a client certificate", False),
        ),
        (tls_error("SSLV3_ALERT_HANDSHAKE_FAILURE"), "tls.handshake_refused", "TLS: the server rejects the handshake", False),  # noqa: E501
        (tls_error("TLSV1_ALERT_UNKNOWN_CA"), "tls.client_certificate_rejected", None, False),
        (tls_error("SSLV3_ALERT_CERTIFICATE_EXPIRED"), "tls.client_certificate_rejected", None, False),
        (tls_error("TLSV1_UNRECOGNIZED_NAME"), "tls.unknown_name", None, False),
        (tls_error("TLSV1_ALERT_PROTOCOL_VERSION"), "tls.legacy_version", None, False),
        (tls_error("UNSUPPORTED_PROTOCOL"), "tls.legacy_version", None, False),
        (tls_error("DH_KEY_TOO_SMALL"), "tls.weak_security", None, False),
        (tls_error("TLSV1_ALERT_NO_APPLICATION_PROTOCOL"), "protocol.http2_only", None, False),
        (
            tls_error("UNEXPECTED_EOF_WHILE_READING"),
            *("tls.closed", "TLS: connection closed by the server", True),
        ),
        (tls_error("SOMETHING_NEW"), "tls.failed", "TLS: something new", False),
        (httpx.ConnectError("x"), "connection.failed", "connection failed", True),
        (caused(httpx.ConnectError("x"), caused(httpcore.ConnectError(), REFUSED)), "connection.refused", None, True),
        (httpx.ReadTimeout("x"), "timeout.first_byte", "timed out while waiting for a response", True),
        (httpx.RemoteProtocolError("Server disconnected"), "connection.closed", "connection closed by the server", True),  # noqa: E501
        (h11.RemoteProtocolError("Receive buffer too long"), "protocol.headers_too_large", None, False),
        (h11.RemoteProtocolError("illegal status line"), "protocol.invalid_response", "the response is not valid HTTP: the status line is malformed", True),  # noqa: E501
        (
            h11.RemoteProtocolError(
                "peer closed connection without sending complete message body (received 3 bytes, expected 10)"
            ),
            *("body.truncated", "the response body is incomplete: received 3 bytes, expected 10", True),
        ),
        (httpx2.ConnectError("x", request=REQUEST2), "connection.failed", "connection failed", True),
        (httpx2.TooManyRedirects("x", request=REQUEST2), "http.too_many_redirects", "too many redirects", False),
        (anyio.EndOfStream(), "connection.closed", "connection closed by the server", True),
        (ExceptionGroup("g", [ExceptionGroup("g", [REFUSED])]), "connection.refused", None, True),
        (ExceptionGroup("g", [httpx2.ReadTimeout("x"), RESET]), "connection.reset", None, True),
        (ExceptionGroup("g", [ValueError("ours"), REFUSED]), "connection.refused", None, True),
        (while_handling(RuntimeError("x"), TimeoutError()), "timeout.exceeded", "timed out", True),
        (ProbeError("task.missing", "no such task"), "task.missing", "no such task", False),
    ],
    ids=str,
)  # fmt: skip
def test_errors_of_the_target(error: BaseException, reason: str, message: str | None, retryable: bool) -> None:
    translated = build_probe_error_from_exception(error)
    assert translated is not None
    assert (translated.reason, translated.retryable, translated.is_internal) == (reason, retryable, False)
    assert message is None or str(translated) == message


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_exhausted_local_resources_are_no_failure_of_the_target(number: int) -> None:
    translated = build_probe_error_from_exception(caused(httpx.ConnectError("x"), os_error(number)))
    assert translated is not None
    assert (translated.reason, translated.is_internal) == ("watchdog.out_of_resources", True)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        KeyError("a bug"),
        FileNotFoundError(errno.ENOENT, "no such file"),
        h11.LocalProtocolError("an invalid request"),
        ExceptionGroup("g", [ValueError("a bug")]),
    ],
    ids=str,
)
def test_other_exceptions_are_not_converted(error: BaseException) -> None:
    assert build_probe_error_from_exception(error) is None


def test_a_cycle_of_causes_is_handled() -> None:
    error = ValueError("round")
    error.__context__ = RuntimeError("and round")
    error.__context__.__context__ = error
    assert build_probe_error_from_exception(error) is None


def test_causes_that_httpcore_hides_are_used() -> None:
    error = httpcore.ConnectError("All connection attempts failed")
    error.__context__, error.__suppress_context__ = REFUSED, True
    translated = build_probe_error_from_exception(caused(httpx.ConnectError("x"), error))
    assert translated is not None
    assert translated.reason == "connection.refused"


def test_a_suppressed_context_is_ignored() -> None:
    error = ValueError("a bug")
    error.__context__, error.__suppress_context__ = REFUSED, True
    assert build_probe_error_from_exception(error) is None
