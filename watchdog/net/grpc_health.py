"""The health check of gRPC: a call of grpc.health.v1.Health/Check. Only this module imports gRPC's library."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from watchdog.domain.model import Json
from watchdog.domain.text import truncate_to_single_line
from watchdog.net.connector import TcpConnector
from watchdog.net.errors import ProbeError
from watchdog.net.foreign_protocol import build_http2_not_selected_error
from watchdog.net.grpc_relay import MAX_GRPC_RECEIVED_BYTES, GrpcRelay
from watchdog.net.handshake import EarliestCertificateExpiry
from watchdog.net.phases import PhaseTimer
from watchdog.net.target_connection import TargetConnection, TargetEndpoint, open_target_connection
from watchdog.net.tls import HTTP2_ALPN_PROTOCOL

HEALTH_CHECK_METHOD = "/grpc.health.v1.Health/Check"
MAX_GRPC_DETAILS_EXCERPT_CHARS = 2_000
_HTTP_STATUS_DETAILS_PATTERN = re.compile(r"Received http2 header with status: (\d{3})")
"""How gRPC's library words that a response has a status of HTTP other than 200."""
_NO_COMPRESSION_BITSET = 1
"""A few bytes could expand to many."""
_NO_STATUS_DETAILS = "No status received"
"""How it words that the end of a response is not that of gRPC."""


@dataclass(frozen=True)
class GrpcHealthRequest:
    """A health check, which can be made any number of times. The caller bounds its time."""

    endpoint: TargetEndpoint
    service: str
    """The full name of the service; empty: the server as a whole."""
    metadata: Mapping[str, str] = field(default_factory=dict)


class _GrpcCallResult(NamedTuple):
    code: str
    """The name of the status: "OK", "UNAVAILABLE"."""
    details: str
    """The text of the server, or of the library if the server has sent none."""
    response: bytes | None = None


async def check_grpc_health(
    connector: TcpConnector, request: GrpcHealthRequest, phase_timer: PhaseTimer, now: int
) -> EarliestCertificateExpiry | None:
    """Returns if the service is SERVING: the certificate that expires first, if there is one. Times the phases `dns`,
    `connect`, `tls`, `first_byte` and `check`. Raises ProbeError."""
    endpoint = request.endpoint
    try:
        connection = await open_target_connection(connector, endpoint, phase_timer, now)
    except ProbeError as error:
        if error.reason != "protocol.http2_only":
            raise
        # Of a server that supports none of the protocols that the client offers, and here that is HTTP/2 alone.
        raise build_http2_not_selected_error() from None
    try:
        if endpoint.uses_tls and connection.selected_alpn_protocol != HTTP2_ALPN_PROTOCOL:
            raise build_http2_not_selected_error()
        await _call_health_check(connection, request, phase_timer)
    except asyncio.CancelledError:
        phase_timer.freeze()
        raise
    finally:
        connection.close()
    return connection.certificate_expiry


async def _call_health_check(connection: TargetConnection, request: GrpcHealthRequest, phase_timer: PhaseTimer) -> None:
    phase_timer.start_nestable_phase("first_byte")
    relay = GrpcRelay.start(connection, phase_timer, request.endpoint.tls_remedy)
    try:
        result = await _call_through_relay(relay.address, request)
        end_error = await relay.explain_end() if result.code != "OK" else None
    finally:
        await relay.close()
    facts: dict[str, Json] = {"grpc_status": result.code}
    if result.details:
        facts["grpc_details"] = result.details[:MAX_GRPC_DETAILS_EXCERPT_CHARS]
    phase_timer.facts |= {} if end_error else facts
    if error := end_error or _find_result_error(result, request.service, relay):
        raise error
    phase_timer.facts["health"] = "SERVING"
    phase_timer.end_phase("check")


async def _call_through_relay(address: str, request: GrpcHealthRequest) -> _GrpcCallResult:
    """Leaves no channel, call or thread, also if it is cancelled. They live as long as the traceback of an exception
    refers to them, so a task of its own makes the call, and never ends with an exception."""
    task = asyncio.create_task(_make_call(address, request))
    try:
        await asyncio.wait([task])
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


async def _make_call(address: str, request: GrpcHealthRequest) -> _GrpcCallResult:
    grpc = load_grpc_library()
    from grpc_health.v1.health_pb2 import HealthCheckRequest

    channel = grpc.aio.insecure_channel(address, options=_build_channel_options(request.endpoint))
    try:
        response = await channel.unary_unary(HEALTH_CHECK_METHOD)(
            HealthCheckRequest(service=request.service).SerializeToString(),
            metadata=tuple((name.lower(), value) for name, value in request.metadata.items()),
        )
    except asyncio.CancelledError:
        return _GrpcCallResult("CANCELLED", "")
    except grpc.aio.AioRpcError as rpc_error:
        return _GrpcCallResult(rpc_error.code().name, rpc_error.details() or "")
    finally:
        await channel.close()
    return _GrpcCallResult("OK", "", response)


def _build_channel_options(endpoint: TargetEndpoint) -> list[tuple[str, int | str]]:
    options: dict[str, int | str] = {
        "default_authority": endpoint.url.host_and_port,
        "http2_scheme": endpoint.url.scheme,
        "primary_user_agent": "watchdog-monitor",
        "enable_http_proxy": 0,
        "enable_retries": 0,
        "service_config_disable_resolution": 1,
        "use_local_subchannel_pool": 1,
        "max_receive_message_length": MAX_GRPC_RECEIVED_BYTES,
        "compression_enabled_algorithms_bitset": _NO_COMPRESSION_BITSET,
    }
    return [(f"grpc.{name}", value) for name, value in options.items()]


_LIBRARY_ENVIRONMENT = {"GRPC_VERBOSITY": "NONE", "GRPC_ENABLE_FORK_SUPPORT": "0"}
"""By default, the library logs errors of targets to standard error, and a message when a process is started."""


@cache
def load_grpc_library() -> Any:
    """Takes about 0.1 s the first time. The library reads its environment when it is loaded; the processes that
    Watchdog starts must not inherit it."""
    before = {name: os.environ.get(name) for name in _LIBRARY_ENVIRONMENT}
    os.environ.update(_LIBRARY_ENVIRONMENT)
    try:
        import grpc
        import grpc.aio
        import grpc_health.v1.health_pb2  # noqa: F401 - loaded here, used later
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return grpc


def _find_result_error(result: _GrpcCallResult, service: str, relay: GrpcRelay) -> ProbeError | None:
    of_service = f" for {service}" if service else ""
    if result.code == "OK":
        return _find_health_error(result.response, of_service)
    if result.code == "NOT_FOUND":
        return ProbeError.from_reason("grpc.service_unknown", "check", service=of_service)
    if status := _HTTP_STATUS_DETAILS_PATTERN.fullmatch(result.details):
        retryable = status[1].startswith("5")
        message = f"HTTP {status[1]}, expected a gRPC response"
        return ProbeError(f"http.{status[1]}", message, "check", retryable=retryable)
    if relay.frames.is_call_ended_by_data or result.details == _NO_STATUS_DETAILS:
        return ProbeError.from_reason("grpc.not_grpc", "check")
    if not relay.frames.is_call_ended:
        problem = f"it violates HTTP/2 ({truncate_to_single_line(result.details)})"
        return ProbeError.from_reason("grpc.invalid_response", "check", problem=problem)
    if result.code == "UNIMPLEMENTED":
        return ProbeError.from_reason("grpc.unimplemented", "check")
    details = truncate_to_single_line(result.details)
    message = f"the health check{of_service} fails with status {result.code}{f': {details}' if details else ''}"
    return ProbeError(f"grpc.{result.code.lower()}", message, "check", retryable=result.code == "UNAVAILABLE")


def _find_health_error(response: bytes | None, of_service: str) -> ProbeError | None:
    from google.protobuf.message import DecodeError
    from grpc_health.v1.health_pb2 import HealthCheckResponse

    if response is None:
        return ProbeError.from_reason("grpc.invalid_response", "check", problem="it contains no message")
    try:
        status = HealthCheckResponse.FromString(response).status
    except DecodeError:
        return ProbeError.from_reason("grpc.invalid_response", "check", problem="it is not a HealthCheckResponse")
    names = {number: name for name, number in HealthCheckResponse.ServingStatus.items()}
    name = names.get(status, str(status))
    if name == "SERVING":
        return None
    reason = _REASON_BY_HEALTH.get(name)
    error = (
        ProbeError.from_reason(reason, "check", service=of_service)
        if reason
        else ProbeError.from_reason("grpc.invalid_response", "check", problem=f"the health {name} is not defined")
    )
    error.facts["health"] = name
    return error


_REASON_BY_HEALTH = {
    "NOT_SERVING": "grpc.not_serving",
    "UNKNOWN": "grpc.health_unknown",
    "SERVICE_UNKNOWN": "grpc.service_unknown",
}
