"""What broke when an incident opened, so that incidents that share it become one message. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import NamedTuple

from watchdog.domain import reasons
from watchdog.domain.model import Json, ProbeInfo
from watchdog.domain.rules import missed_run, no_verdict, service, stale

WATCHDOG_FAULT_RULE_NAMES = (
    service.ALERT_RULE_NAME,
    no_verdict.ALERT_RULE_NAME,
    stale.ALERT_RULE_NAME,
    missed_run.ALERT_RULE_NAME,
)
"""Findings that are about Watchdog, not about the probe's target."""
MIN_GROUP_WINDOW_MS, MAX_GROUP_WINDOW_MS = 60_000, 300_000
"""How long a group accepts incidents: as long as the interval of its slowest probe, within these bounds."""

_DNS_RESOLVER_CAUSE_TEXT = "the resolver"
_DNS_RESOLVER_FAULT_REASONS = ("timeout.dns",)
_UNREACHABLE_ADDRESS_REASONS = ("connection.unreachable", "timeout.connect")
_NO_RESPONSE_REASON_FAMILIES = ("dns", "connection", "tls", "timeout", "broker")
_RESPONSE_STARTED_REASONS = ("timeout.body", "timeout.text")
"""Of these families, but part of the response arrived."""
_DEFAULT_SERVER_PORTS = {"http": 80, "https": 443, "tcp": None, "tls": 443, "ws": 80, "wss": 443, "grpc": 443}
"""By the scheme of a target that is a server: its host and port are what may break."""
_DEFAULT_BROKER_PORTS = {
    "amqp": 5672, "amqps": 5671, "mariadb": 3306, "mysql": 3306, "postgresql": 5432, "redis": 6379, "rediss": 6379,
}  # fmt: skip
_DEFAULT_URL_PATH_BY_BROKER_SCHEME = {"redis": "/0", "rediss": "/0"}
_CANONICAL_SCHEME_BY_ALIAS = {"postgres": "postgresql"}
_TARGET_URL_PARTS_PATTERN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>\[[^/\[\]]+\]|[^/:\[\]]*)(:(?P<port>\d+))?(?P<path>/.*)?"
)
"""Of a target, which has no credentials and no query."""


class SharedIncidentCauseKey(NamedTuple):
    """Incidents with an equal one are about one fault."""

    what: str
    """What broke, as people read it: "api.example:443", "redis://cache:6379/0", "the resolver"."""
    family: str = ""
    """Of the reasons, if there was a response; a family alone is no shared cause."""


def derive_shared_cause_of_incident(
    probe: ProbeInfo, rule: str, reason: str, facts: Mapping[str, Json]
) -> SharedIncidentCauseKey | None:
    """None if it is unknown what broke. `facts`: the evidence of the result that opened the incident.

    The first that applies: Watchdog itself; the resolver; the URL of a broker or database, without credentials; the
    address, if it is unreachable; host and port.
    """
    if rule in WATCHDOG_FAULT_RULE_NAMES:
        return SharedIncidentCauseKey("Watchdog itself")
    family = reasons.get_reason_family(reason)
    has_response = family not in _NO_RESPONSE_REASON_FAMILIES or reason in _RESPONSE_STARTED_REASONS
    response_family = family if has_response else ""
    if family == "dns" or reason in _DNS_RESOLVER_FAULT_REASONS:
        return SharedIncidentCauseKey(_DNS_RESOLVER_CAUSE_TEXT)
    requested = facts.get("redirected_to", facts.get("url"))  # a step of a probe may request another URL
    url = _parse_url_of_target_if_any(requested if isinstance(requested, str) else probe.target)
    if url is None:
        return None
    if url.scheme not in _DEFAULT_SERVER_PORTS:
        return SharedIncidentCauseKey(url.normalized, response_family)
    if reason in _UNREACHABLE_ADDRESS_REASONS and (address := _strip_ports_and_sort_ip_addresses(facts.get("address"))):
        return SharedIncidentCauseKey(address)
    return SharedIncidentCauseKey(url.host_and_port, response_family)


def format_display_name_of_shared_cause(what: str, targets: Iterable[str]) -> str:
    """What broke, as people read it. `targets`: of the probes. If the name of one host only cannot be resolved, that
    name and not the resolver."""
    hosts = {url.host if url else "" for url in map(_parse_url_of_target_if_any, targets)}
    return hosts.pop() or what if what == _DNS_RESOLVER_CAUSE_TEXT and len(hosts) == 1 else what


def compute_incident_group_window_ms(interval_ms: int) -> int:
    """For how long a group accepts incidents. `interval_ms`: of its slowest probe."""
    return min(max(interval_ms, MIN_GROUP_WINDOW_MS), MAX_GROUP_WINDOW_MS)


class _ParsedTargetUrl(NamedTuple):
    scheme: str
    host: str
    port: int | None
    path: str

    @property
    def host_and_port(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host

    @property
    def normalized(self) -> str:
        """Equal for all ways to write it."""
        return f"{self.scheme}://{self.host_and_port}{self.path}"


def _parse_url_of_target_if_any(target: str) -> _ParsedTargetUrl | None:
    """The URL at the beginning of a target, with the defaults of its scheme; None for anything else, such as a
    command."""
    match = _TARGET_URL_PARTS_PATTERN.fullmatch(target.partition(", ")[0].rstrip("/"))
    if match is None or not (match["host"] or match["path"]):
        return None
    scheme = _CANONICAL_SCHEME_BY_ALIAS.get(match["scheme"], match["scheme"])
    default_port = (_DEFAULT_SERVER_PORTS | _DEFAULT_BROKER_PORTS).get(scheme)
    port = int(match["port"]) if match["port"] else default_port
    return _ParsedTargetUrl(
        scheme, match["host"], port, match["path"] or _DEFAULT_URL_PATH_BY_BROKER_SCHEME.get(scheme, "")
    )


def _strip_ports_and_sort_ip_addresses(fact: Json) -> str:
    """The addresses of "192.0.2.1:443, [2001:db8::1]:443", without ports and in one order; empty if there are none."""
    hosts = {text.strip().rpartition(":")[0].strip("[]") for text in fact.split(",")} if isinstance(fact, str) else ()
    return ", ".join(sorted(filter(_is_ip_address, hosts)))


def _is_ip_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
