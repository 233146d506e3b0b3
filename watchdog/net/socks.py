"""Opens a tunnel through a SOCKS5 proxy (RFC 1928, RFC 1929)."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Protocol

from watchdog.net.errors import ProbeError
from watchdog.net.http_exchange import ReceivedMessage
from watchdog.net.proxy import MAX_SOCKS_FIELD_BYTES, ProxyAddress
from watchdog.net.proxy_errors import build_proxy_authentication_error, build_wrong_proxy_protocol_error

_VERSION, _AUTHENTICATION_VERSION = 5, 1
_NO_AUTHENTICATION, _USERNAME_AND_PASSWORD = 0, 2
_CONNECT_COMMAND = 1
_IPV4_ADDRESS, _HOST_NAME, _IPV6_ADDRESS = 1, 3, 4
_SUCCEEDED, _NOT_ALLOWED = 0, 2
_TARGET_PROBLEM_BY_REPLY_CODE = {
    1: "general failure",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "the connection timed out",
}
_PROXY_PROBLEM_BY_REPLY_CODE = {
    7: "it does not support the command CONNECT",
    8: "it does not support addresses of this kind",
}


class TunnelConnection(Protocol):
    """A connection to a proxy."""

    def write(self, data: bytes) -> None: ...

    async def receive_and_pause(self, message: ReceivedMessage) -> None:
        """Returns once the message is complete; reads nothing more then. Raises ProbeError and OSError."""


async def negotiate_socks_tunnel(connection: TunnelConnection, host: str, port: int, proxy: ProxyAddress) -> None:
    """`host`: a name for the proxy to resolve, or an address. Raises ProbeError and OSError."""
    await _negotiate_authentication(connection, proxy)
    connection.write(bytes([_VERSION, _CONNECT_COMMAND, 0]) + _encode_host(host) + port.to_bytes(2, "big"))
    reply = await _receive_reply(connection, _compute_connect_reply_length, proxy, is_last=True)
    if reply[1] != _SUCCEEDED:
        raise _build_connect_error(reply[1], proxy)


async def _negotiate_authentication(connection: TunnelConnection, proxy: ProxyAddress) -> None:
    has_credentials = bool(proxy.username or proxy.password)
    methods = [_NO_AUTHENTICATION, _USERNAME_AND_PASSWORD] if has_credentials else [_NO_AUTHENTICATION]
    connection.write(bytes([_VERSION, len(methods), *methods]))
    _, method = await _receive_reply(connection, lambda _: 2, proxy)
    if method not in methods:
        raise build_proxy_authentication_error(proxy, is_rejected=has_credentials)
    if method == _NO_AUTHENTICATION:
        return
    username, password = proxy.username.encode(), proxy.password.encode()
    fields = b"".join(bytes([len(field)]) + field for field in (username, password))
    connection.write(bytes([_AUTHENTICATION_VERSION]) + fields)
    _, status = await _receive_reply(connection, lambda _: 2, proxy, version=_AUTHENTICATION_VERSION)
    if status != 0:
        raise build_proxy_authentication_error(proxy, is_rejected=True)


async def _receive_reply(
    connection: TunnelConnection,
    compute_length: Callable[[bytes], int],
    proxy: ProxyAddress,
    *,
    version: int = _VERSION,
    is_last: bool = False,
) -> bytes:
    reply = _SocksReply(compute_length, version, proxy, is_last=is_last)
    await connection.receive_and_pause(reply)
    return reply.data


class _SocksReply:
    """One reply of the proxy. `compute_length`: of the whole reply, from its beginning. `is_last`: what follows is the
    target's, which may be the first that sends."""

    def __init__(
        self, compute_length: Callable[[bytes], int], version: int, proxy: ProxyAddress, *, is_last: bool
    ) -> None:
        self.is_complete, self.data, self._is_last = False, b"", is_last
        self._compute_length, self._version, self._proxy = compute_length, version, proxy

    def feed(self, data: bytes) -> None:
        self.data += data
        length = self._compute_length(self.data)
        if self.data[0] != self._version or (len(self.data) > length and not self._is_last):
            raise build_wrong_proxy_protocol_error(self._proxy, self.data)
        self.is_complete = len(self.data) >= length

    def feed_eof(self) -> None:
        raise ProbeError("connection.closed", "connection closed", retryable=True)


def _compute_connect_reply_length(start: bytes) -> int:
    if len(start) < 5:
        return 5
    address_length = {_IPV4_ADDRESS: 4, _IPV6_ADDRESS: 16, _HOST_NAME: 1 + start[4]}.get(start[3], 0)
    return 4 + address_length + 2


def _encode_host(host: str) -> bytes:
    try:
        address = ip_address(host)
    except ValueError:
        name = host.encode()[:MAX_SOCKS_FIELD_BYTES]
        return bytes([_HOST_NAME, len(name)]) + name
    return bytes([_IPV4_ADDRESS if address.version == 4 else _IPV6_ADDRESS]) + address.packed


def _build_connect_error(code: int, proxy: ProxyAddress) -> ProbeError:
    name = proxy.host_and_port
    if code == _NOT_ALLOWED:
        return ProbeError.from_reason("proxy.refused", "tunnel", proxy=name, problem="its rules do not allow it")
    if problem := _TARGET_PROBLEM_BY_REPLY_CODE.get(code):
        return ProbeError.from_reason("proxy.target_unreachable", "tunnel", retryable=True, proxy=name, problem=problem)
    problem = _PROXY_PROBLEM_BY_REPLY_CODE.get(code, f"SOCKS error {code}")
    return ProbeError.from_reason("proxy.failed", "tunnel", proxy=name, problem=problem)
