"""How the HTTP requests of one probe are routed, if not as those of the whole process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from watchdog.config_types import FILE_BACKED_FIELD_MARKER, ConfigModel, LocalFilePath, MultiFieldValidationError
from watchdog.net.proxy import RequestRouting, parse_proxy_url

PROXY_OFF = "off"


def _validate_probe_proxy(text: str) -> str:
    if text and text != PROXY_OFF:
        parse_proxy_url(text)
    return text


ProbeProxy = Annotated[
    str,
    AfterValidator(_validate_probe_proxy),
    WithJsonSchema({"type": "string", "pattern": "^(off|(https?|socks5h?)://.*)?$"}),
    FILE_BACKED_FIELD_MARKER,
]
"""The URL of a proxy; empty: that of the process; `off`: none."""


class HttpRoutingSettings(ConfigModel):
    """The fields of a probe that route its HTTP requests."""

    proxy: ProbeProxy = ""
    """The proxy for the HTTP requests of this probe and of its remediation, also to loopback addresses
    (docs/network.md), or `off` to send them directly; default: the proxy in `network`. If `allow_private_addresses` is
    `false`, that applies to this proxy as well."""
    ca_file: LocalFilePath = ""
    """A PEM file with the certificate authorities that the HTTP requests of this probe trust, unless they have a
    `ca_file` in `tls`; default: that of `network`."""

    def build_routing_change(
        self, *, allow_private_addresses: bool
    ) -> Callable[[RequestRouting], RequestRouting] | None:
        """What the probe changes in the routing of the process; None: nothing."""
        if not self.proxy and not self.ca_file:
            return None

        def change_routing(routing: RequestRouting) -> RequestRouting:
            if self.ca_file:
                routing = replace(routing, ca_file=self.ca_file)
            if self.proxy == PROXY_OFF:
                return replace(routing, proxy=None)
            if self.proxy:
                proxy = parse_proxy_url(self.proxy, allow_private_address=allow_private_addresses)
                return replace(routing, proxy=proxy, no_proxy=(), proxies_loopback=True)
            return routing

        return change_routing

    def require_no_own_routing(self, kind: str) -> None:
        """Raises MultiFieldValidationError if a field is set that would have no effect."""
        errors = [
            ((name,), f"this {kind} probe sends no HTTP requests: remove it")
            for name in HttpRoutingSettings.model_fields
            if name in self.model_fields_set
        ]
        if errors:
            raise MultiFieldValidationError(errors)
