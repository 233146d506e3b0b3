"""Reasons about the health check of a gRPC server."""

from __future__ import annotations

from functools import partial

from watchdog.domain.reasons.entry import ReasonCategory, ReasonEntry

_failure_reason_entry = partial(ReasonEntry, ReasonCategory.FAILURE)
_error_reason_entry = partial(ReasonEntry, ReasonCategory.ERROR)

GRPC_REASON_ENTRIES = (
    _failure_reason_entry(
        "grpc.not_serving",
        "Service not serving",
        "The health check of the gRPC server reports that the service is NOT_SERVING.",
        "See the log of the service. It sets this state itself, for example while it starts or shuts down, or if "
        "something that it needs is missing.",
        sentence="the health check reports NOT_SERVING{service}",
    ),
    _failure_reason_entry(
        "grpc.health_unknown",
        "Health not determined",
        "The health check of the gRPC server reports that the health of the service is UNKNOWN: the service has not "
        "set it yet.",
        "Check whether the service is still starting, and whether its code sets its health.",
        sentence="the health check reports UNKNOWN{service}",
    ),
    _failure_reason_entry(
        "grpc.service_unknown",
        "Service unknown to the health check",
        "The health check of the gRPC server does not have the service.",
        "Check the spelling of `service`: the name includes the package, as in `orders.v1.Orders`. Without `service`, "
        "the health of the server as a whole is checked.",
        sentence="the health check has no entry{service}",
    ),
    _failure_reason_entry(
        "grpc.unimplemented",
        "No gRPC health service",
        "The gRPC server does not have the service `grpc.health.v1.Health`, or not its method `Check`.",
        "Register the health service: the gRPC library of each language contains one, often as an additional package. "
        "If a proxy is in front of the server, check whether it passes this service on.",
        sentence="the server has no health service (grpc.health.v1.Health)",
    ),
    _failure_reason_entry(
        "grpc.unavailable",
        "Unavailable (gRPC)",
        "The server, or a proxy in front of it, responds that the service is not available now.",
        "Check whether the service is starting, shutting down or overloaded, and whether the proxy has an instance "
        "that is ready.",
    ),
    _failure_reason_entry(
        "grpc.deadline_exceeded",
        "Deadline exceeded (gRPC)",
        "The server, or a proxy in front of it, has given up because the health check took too long.",
        "Check what the health check waits for, and the time limits of the proxy.",
    ),
    _failure_reason_entry(
        "grpc.unauthenticated",
        "Not authenticated (gRPC)",
        "The server does not accept the credentials, or requires some.",
        "Renew the credentials in `metadata`, or have the server answer health checks without any.",
    ),
    _failure_reason_entry(
        "grpc.permission_denied",
        "Permission denied (gRPC)",
        "The server does not allow the health check with these credentials.",
        "Check the permissions of the credentials in `metadata`.",
    ),
    _failure_reason_entry(
        "grpc.not_grpc",
        "Not gRPC",
        "The server speaks HTTP/2, but its response is not one of gRPC: it has no status of gRPC at its end.",
        "Check the port, and whether a proxy in front of the service sends gRPC requests to another service.",
        sentence="the server speaks HTTP/2, but not gRPC",
    ),
    _failure_reason_entry(
        "grpc.invalid_response",
        "Invalid gRPC response",
        "The response to the health check violates a protocol: HTTP/2, gRPC, or that of the health check. The message "
        "shows how.",
        "Check the service and any proxy in front of it.",
        sentence="the response to the health check is invalid: {problem}",
    ),
    _failure_reason_entry(
        "grpc.*",
        "Unexpected gRPC status",
        "The health check fails with a status of gRPC, which the message shows.",
        "Look for the call in the log of the service, or of a proxy in front of it.",
    ),
    _error_reason_entry(
        "watchdog.temporary_folder",
        "No socket in the temporary folder",
        "Watchdog could not create a Unix socket in its temporary folder. The library that makes gRPC calls connects "
        "to this socket, and Watchdog to the target.",
        "Make the temporary folder (`TMPDIR`, by default `/tmp`) writable for Watchdog. Its path must be short: a "
        "socket can have a path of about 100 characters.",
        sentence="no verdict: Watchdog cannot create a socket in its temporary folder: {problem}",
    ),
)
