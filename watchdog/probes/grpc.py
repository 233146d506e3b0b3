"""The `grpc` probe: calls the health check of a gRPC server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, StrictBool, model_validator

from watchdog.config_types import ConfigModel, FieldPath, MultiFieldValidationError
from watchdog.config_values import describe_missing_package_extra
from watchdog.domain.model import Evidence, Observation
from watchdog.net.auth import find_header_problems
from watchdog.net.errors import ProbeError
from watchdog.net.tls import HTTP2_ALPN_PROTOCOL, TlsConfig
from watchdog.net.url import ParsedHttpUrl, parse_http_url
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.probes.connection_checks import (
    CONNECTION_EXPRESSION_VARIABLES,
    build_checked_connection_observation,
    require_tls_for_cert_days,
)
from watchdog.probes.expectations import build_observation_from_error

if TYPE_CHECKING:
    from watchdog.net.grpc_health import GrpcHealthRequest

GRPC_TLS_REMEDY = "set `tls: true`"
_DEFAULT_TLS_PORT = 443
_RESERVED_METADATA = ("content-type", "te", "user-agent")
"""Metadata that gRPC's library sets itself."""


def _validate_host_and_port(text: str) -> str:
    """The text, unchanged. Raises ValueError."""
    try:
        parse_http_url(f"http://{text}")
    except ValueError as error:
        raise ValueError(f"expected a host and a port, such as orders.acme.example:443 ({error})") from None
    if not re.fullmatch(r"[^/?#@]+:[0-9]+", text):
        raise ValueError("expected a host and a port without a scheme and path, such as orders.acme.example:443")
    return text


class GrpcTarget(ConfigModel):
    """A gRPC server, and the service whose health is checked. The short form is `target` alone."""

    shorthand_field: ClassVar[str] = "target"

    target: Annotated[str, AfterValidator(_validate_host_and_port)]
    """Host and port of the server, such as `orders.acme.example:443`."""
    service: str = ""
    """The full name of the service, such as `orders.v1.Orders`; default: the health of the server as a whole."""
    tls: StrictBool | TlsConfig | None = None
    """Whether the connection uses TLS, or how: the fields of `tls` of an HTTP probe. Default: `true` if the port is
    443, otherwise `false`."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """Metadata to send with the call, such as `authorization: "Bearer ${TOKEN}"`. The values are ASCII text."""

    @model_validator(mode="after")
    def _validate_consistency(self) -> Self:
        if find_spec("grpc") is None or find_spec("grpc_health") is None:
            raise ValueError(
                f"gRPC needs the packages grpcio and grpcio-health-checking: {describe_missing_package_extra('grpc')}"
            )
        errors: list[tuple[FieldPath, str]] = [
            (("metadata", *path), problem)
            for path, problem in find_header_problems(self.metadata, _RESERVED_METADATA, ascii_only=True)
        ]
        errors += [
            (("metadata", name), problem) for name in self.metadata if (problem := _find_metadata_name_problem(name))
        ]
        if not self.service.isprintable() or self.service != self.service.strip():
            errors.append((("service",), "expected the full name of a service, such as orders.v1.Orders"))
        if errors:
            raise MultiFieldValidationError(errors)
        return self

    @property
    def uses_tls(self) -> bool:
        if self.tls is None:
            return self._url.port == _DEFAULT_TLS_PORT
        return self.tls is not False

    @cached_property
    def _url(self) -> ParsedHttpUrl:
        return parse_http_url(f"http://{self.target}")

    @property
    def network_endpoint(self) -> str:
        return self._url.host_and_port

    def build_health_request(self, allow_private_addresses: bool) -> GrpcHealthRequest:
        from watchdog.net.grpc_health import GrpcHealthRequest
        from watchdog.net.target_connection import TargetEndpoint

        endpoint = TargetEndpoint(
            self._url._replace(scheme="https" if self.uses_tls else "http"),
            self.tls if isinstance(self.tls, TlsConfig) else TlsConfig(),
            allow_private_addresses,
            (HTTP2_ALPN_PROTOCOL,),
            GRPC_TLS_REMEDY,
        )
        return GrpcHealthRequest(endpoint, self.service, self.metadata)


def _find_metadata_name_problem(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        return "not a valid name of metadata: use letters, digits, '-', '_' and '.'"
    if name.lower().startswith("grpc-"):
        return "names that start with grpc- are reserved: remove it"
    if name.lower().endswith("-bin"):
        return "names that end in -bin are for binary values, which are not supported: remove it"
    return ""


class GrpcProbe(Probe):
    """Calls the health check of a gRPC server (`grpc.health.v1.Health/Check`). The run passes if the server reports
    that the service is SERVING. Requires the `grpc` extra. Proxies from the environment are ignored."""

    kind: ClassVar[str] = "grpc"
    example: ClassVar[str] = """
        probes:
          - name: Orders
            grpc:
              target: orders.acme.example:443
              service: orders.v1.Orders
              metadata: {authorization: "Bearer ${ORDERS_TOKEN}"}
            prefer: ["elapsed_ms <= 300", "cert_days >= 14"]
          - {name: Stock, grpc: "stock.acme.example:50051"}
    """
    expression_variables: ClassVar[Mapping[str, str]] = CONNECTION_EXPRESSION_VARIABLES
    form_fields: ClassVar[tuple[str, ...]] = ("grpc.target", "grpc.service")

    grpc: GrpcTarget
    """The server and the service. The short form is host and port alone."""

    @model_validator(mode="after")
    def _require_tls_for_cert_days(self) -> Self:
        if not self.grpc.uses_tls:
            require_tls_for_cert_days(self, GRPC_TLS_REMEDY)
        return self

    @property
    def target(self) -> str:
        service = f", service {self.grpc.service}" if self.grpc.service else ""
        return f"grpc://{self.network_endpoint}{service}"

    @property
    def sends_http_requests(self) -> bool:
        return True

    @property
    def may_run_without_store(self) -> bool:
        return True

    @property
    def network_endpoint(self) -> str:
        return self.grpc.network_endpoint

    def preload(self) -> None:
        from watchdog.net.grpc_health import load_grpc_library

        load_grpc_library()

    @cached_property
    def _request(self) -> GrpcHealthRequest:
        return self.grpc.build_health_request(self.allow_private_addresses)

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        from watchdog.net.grpc_health import check_grpc_health

        timer = context.phase_timer
        request = replace(self._request, endpoint=self._request.endpoint.route_by(context.network.routing))
        try:
            expiry = await check_grpc_health(context.network.connector, request, timer, context.started_at)
        except ProbeError as error:
            error.record_interrupted_phase(timer)
            return build_observation_from_error(error, timer)
        return build_checked_connection_observation(self, context, expiry, Evidence())
