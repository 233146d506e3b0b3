"""The address of a server in the configuration: a host and a port, without a scheme."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, ClassVar, NamedTuple, Self

from pydantic import AfterValidator, Field, StrictInt, model_validator

from watchdog.config_types import ConfigModel, MultiFieldValidationError
from watchdog.net.host_names import normalize_host_name
from watchdog.net.url import format_host_and_port

_HOST_AND_PORT_PATTERN = re.compile(r"(?:\[(?P<address>[^\[\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>.*))?", re.DOTALL)
MAX_PORT = 65_535


class HostAndOptionalPort(NamedTuple):
    """The parts of a text such as `db.acme.example:5432`."""

    host: str
    """Lower case; international names in ASCII form, IPv6 addresses without brackets."""
    port: int | None


def parse_host_and_optional_port(text: str) -> HostAndOptionalPort:
    """Of "db.acme.example:5432", "[2001:db8::1]:5432", or either without a port. Raises ValueError, with a
    message for users, for anything else."""
    if "/" in text or "@" in text:  # it may hold a password, so it is not quoted
        raise ValueError("expected a host and a port, such as db.acme.example:5432, found a URL or a path")
    if text.count(":") > 1 and "[" not in text:
        return HostAndOptionalPort(normalize_host_name(text.lower()), None)
    parts = _HOST_AND_PORT_PATTERN.fullmatch(text)
    host = (parts["name"] if parts["address"] is None else parts["address"]) if parts else ""
    if parts is None or not host or (parts["address"] is not None and ":" not in host):
        raise ValueError("expected a host and a port, such as db.acme.example:5432 or [2001:db8::1]:5432")
    port = parts["port"]
    if port is not None and not (re.fullmatch(r"[0-9]{1,5}", port) and 1 <= int(port) <= MAX_PORT):
        raise ValueError(f"expected a port from 1 to {MAX_PORT} after the colon")
    return HostAndOptionalPort(normalize_host_name(host.lower()), None if port is None else int(port))


def _validate_host(text: str) -> str:
    parse_host_and_optional_port(text)
    return text


class ServerTarget(ConfigModel):
    """A server. The short form is its host and port."""

    shorthand_field: ClassVar[str] = "host"

    host: Annotated[str, AfterValidator(_validate_host)]
    """The host name or address, with the port: `db.acme.example:5432`, `[2001:db8::1]:5432`. The port can be given as
    `port` instead."""
    port: Annotated[StrictInt, Field(ge=1, le=MAX_PORT)] | None = None
    """The port, if `host` does not contain it."""

    @model_validator(mode="after")
    def _validate_port(self) -> Self:
        address = parse_host_and_optional_port(self.host)
        if address.port is not None and self.port is not None:
            raise MultiFieldValidationError([(("port",), "`host` contains a port as well: remove one of them")])
        if (address.port or self.port or self.default_port) is None:
            example = format_host_and_port(address.host, 5432)
            raise MultiFieldValidationError([(("host",), f"no port: add it, as in {example}")])
        return self

    @property
    def default_port(self) -> int | None:
        """None: the configuration has to name the port."""
        return None

    @property
    def server_host(self) -> str:
        """The name or address to look up."""
        return self._server_address[0]

    @property
    def server_port(self) -> int:
        return self._server_address[1]

    @property
    def network_endpoint(self) -> str:
        """Host and port."""
        return format_host_and_port(*self._server_address)

    @cached_property
    def _server_address(self) -> tuple[str, int]:
        host, port = parse_host_and_optional_port(self.host)
        return host, port or self.port or self.default_port or 0
