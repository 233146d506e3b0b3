"""The frozen models of all sections of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, StrictBool, model_validator

from watchdog.config.maintenance import MaintenanceWindowSettings
from watchdog.config.matchers import ProbeMatchSettings
from watchdog.config.routes import NotificationRouteSettings
from watchdog.config_types import (
    FILE_BACKED_FIELD_MARKER,
    ConfigModel,
    Duration,
    FieldPath,
    HttpLink,
    LocalFilePath,
    MultiFieldValidationError,
    Secret,
    SingleLineText,
    create_duration_bounds_validator,
    split_and_validate_url,
    validate_secret_length,
)
from watchdog.config_values import DEFAULT_LISTEN_ADDRESS, split_listen_address
from watchdog.domain.local_hosts import is_loopback_host
from watchdog.net.proxy import NoProxyEntry, ProxyUrl, RequestRouting, parse_proxy_url
from watchdog.net.url import HttpUrl
from watchdog.notifiers import NOTIFIER_KINDS, Notifier, SmtpServerSettings
from watchdog.probes import AnyProbe, ProbeDefaults
from watchdog.queues.clients.postgres import POSTGRES_URL_SCHEMES

# --- server, storage


def _validate_listen_address(text: str) -> str:
    split_listen_address(text)
    return text


def _validate_proxy_network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError("expected an IP address or a network without host bits: 127.0.0.1, 10.0.0.0/8") from None


class WebServerSettings(ConfigModel):
    """The web server for the pages, the API and check-ins."""

    listen: Annotated[str, AfterValidator(_validate_listen_address)] = DEFAULT_LISTEN_ADDRESS
    """The address to listen on, as host:port; `:8080` for all IPv4 addresses, port 0 for a free port. Addresses other
    than loopback require `access.api_keys`."""
    public_url: Annotated[HttpLink, AfterValidator(lambda url: url.rstrip("/"))] = ""
    """The URL at which people reach the pages. Notifications link to it."""
    trusted_proxies: tuple[Annotated[str, AfterValidator(_validate_proxy_network)], ...] = ()
    """The addresses or networks of reverse proxies, such as `127.0.0.1` or `10.0.0.0/8`. Watchdog
    uses the `X-Forwarded-For` and `X-Forwarded-Proto` headers only if a request comes from one of these proxies. The
    limits on connections and on sign-in attempts then apply to the client behind the proxy. Cookies are marked `Secure`
    if the client uses HTTPS."""

    @property
    def bind_address(self) -> tuple[str, int]:
        """Host and port to bind."""
        return split_listen_address(self.listen)

    @property
    def listens_beyond_loopback(self) -> bool:
        return not is_loopback_host(self.bind_address[0])


def _normalize_storage_url(url: str) -> str:
    scheme, colon, rest = url.partition(":")
    if scheme == "sqlite" and colon:
        path = rest[3:] if rest.startswith("///") else rest
        if not path or path.startswith("//") or ":memory:" in path or "mode=memory" in path:
            raise ValueError("expected the path of a file: sqlite:///watchdog.db, or sqlite:////var/lib/watchdog.db")
        return f"sqlite:///{path}"
    if scheme in POSTGRES_URL_SCHEMES and rest.startswith("//"):
        expected = "postgresql://user:password@host:port/database; encode : / @ in the password as %3A %2F %40"
        split_and_validate_url(url, POSTGRES_URL_SCHEMES, expected, host_required=False)
        return f"postgresql+psycopg:{rest}"
    raise ValueError("expected sqlite:///watchdog.db or postgresql://user:password@host/database")


class StorageSettings(ConfigModel):
    """The database, and how long it keeps data."""

    url: Annotated[str, AfterValidator(_normalize_storage_url), FILE_BACKED_FIELD_MARKER] = "sqlite:///watchdog.db"
    """`sqlite:///file.db`, or `postgresql://user:password@host/database` (requires the `postgres` extra)."""
    keep_results: Annotated[Duration, create_duration_bounds_validator("1h", "3650d")] = 2_592_000_000
    """How long individual results are kept."""
    keep_rollups: Annotated[Duration, create_duration_bounds_validator("1d", "3650d")] = 34_560_000_000
    """How long hourly summaries are kept."""
    check_in_log: LocalFilePath = ""
    """The path of the log that keeps check-ins until they are stored in the database. Watchdog appends `.0` and `.1` to
    it. Default: the path of the SQLite file with `-check-ins` appended; with PostgreSQL, `watchdog-check-ins` in the
    working directory. Each additional process with the same path uses its own files (`<path>-2` and so on). If a
    process is killed, another process with the same path stores its remaining check-ins."""

    @property
    def check_in_log_path(self) -> Path:
        """The configured or default path of the check-in log."""
        kind, _, file = self.url.partition(":///")
        return Path(self.check_in_log or (f"{file}-check-ins" if kind == "sqlite" else "watchdog-check-ins"))

    @property
    def store_absence_record_path(self) -> Path:
        """Beside the check-in log: which receivers were notified that the database is away."""
        return self.check_in_log_path.with_name(f"{self.check_in_log_path.name}-absence")


# --- notifications


@NOTIFIER_KINDS.add_optional_field_per_kind_to_model
class ReceiverNotifiersSettings(ConfigModel):
    """A person, a team or a program to notify. At least one notifier is required; each configured notifier sends every
    notification."""

    send_resolved: StrictBool = True
    """Whether a notification is also sent when an incident resolves."""

    @model_validator(mode="after")
    def _require_notifier(self) -> Self:
        if not NOTIFIER_KINDS.find_configured_values_by_kind(self):
            raise ValueError(f"no notifier: add at least one of {', '.join(NOTIFIER_KINDS)}")
        return self

    def build_notifiers_by_destination(self, receiver_name: str) -> dict[str, Notifier]:
        """Destination, such as "oncall/slack" -> its notifier."""
        return {
            f"{receiver_name}/{kind}{suffix}": notifier
            for kind, configured in NOTIFIER_KINDS.find_configured_values_by_kind(self).items()
            for suffix, notifier in configured.split_into_destinations().items()
        }


class InhibitingProbeMatchSettings(ProbeMatchSettings):
    """Selects the probes that mute the alerts of others."""

    state: Literal["down"] = "down"
    """The state in which they mute. A probe that is degraded, unknown or paused mutes nothing."""


class InhibitedProbeMatchSettings(ProbeMatchSettings):
    """Selects the probes whose alerts are muted. If no field is set, all probes except the muting one are."""


class InhibitSettings(ConfigModel):
    """Mutes the alerts of some probes while another probe is down, as `needs` of a probe does. No probe mutes its own
    alerts."""

    when: InhibitingProbeMatchSettings
    """The probes that mute alerts while they are down."""
    mute: InhibitedProbeMatchSettings
    """The probes whose alerts they mute."""


# --- pages


class StatusPageSettings(ConfigModel):
    """The public status page."""

    title: SingleLineText = "Status"
    """The title of the page."""
    notice: SingleLineText = ""
    """A text at the top of the status page and of the operator pages, such as an announcement."""
    match: ProbeMatchSettings = ProbeMatchSettings()
    """The probes that the page shows; default: all."""
    groups: tuple[SingleLineText, ...] = ()
    """The order of the groups. Groups that are not listed follow these."""
    history: Annotated[Duration, create_duration_bounds_validator("1d", "400d")] = 7_776_000_000
    """The period that the uptime bars cover."""


def _validate_api_key(key: Secret) -> Secret:
    value = validate_secret_length(key).get_secret_value()
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("expected printable ASCII characters without spaces, because the key is sent in a header")
    return key


class ApiKeySettings(ConfigModel):
    """An API key. It gives a person or a program access to the operator pages, the API and the MCP tools."""

    name: SingleLineText
    """A unique name for the key, shown in logs."""
    role: Literal["operator", "reader"]
    """A `reader` can open the operator pages and read the API and the reports of the MCP tools. Through the MCP tools,
    an `operator` can also run probes and trigger Watchdog's internal tasks. In `/readyz`, only an `operator` sees names
    and messages."""
    key: Annotated[Secret, AfterValidator(_validate_api_key)]
    """The key: at least 16 ASCII characters without spaces. `openssl rand -hex 20` generates a suitable one."""


class AccessSettings(ConfigModel):
    """Access to the operator pages, the API and the MCP tools. Without API keys, only the machine that
    Watchdog runs on has access."""

    api_keys: tuple[ApiKeySettings, ...] = ()
    """The API keys. At least one is required to listen on addresses other than loopback."""

    @model_validator(mode="after")
    def _require_distinct_api_keys(self) -> Self:
        errors: list[tuple[FieldPath, str]] = []
        for i, key in enumerate(self.api_keys):
            if key.name in (other.name for other in self.api_keys[:i]):
                errors.append((("api_keys", i, "name"), "another API key has this name"))
            if key.key in (other.key for other in self.api_keys[:i]):
                errors.append((("api_keys", i, "key"), "another API key has the same value"))
        if errors:
            raise MultiFieldValidationError(errors)
        return self


class NetworkSettings(ConfigModel):
    """The proxy and the certificate authorities for all requests of this process over HTTP: those of probes, of
    notifiers, of `connectivity` and of `dead_mans_switch`. Proxies in environment variables are ignored; refer to one
    as `proxy: "${HTTPS_PROXY:-}"`."""

    proxy: ProxyUrl = ""
    """The proxy (docs/network.md): `http://user:password@proxy.example:3128`, `https://` for TLS to the proxy itself,
    `socks5://`, or `socks5h://` if the proxy should resolve host names; default: none. Requests to localhost and
    loopback addresses are sent directly."""
    no_proxy: tuple[NoProxyEntry, ...] = ()
    """Targets that are connected to directly: host names, which include the names below them, such as `acme.example`,
    and addresses or networks of URLs that contain an address, such as `10.0.0.0/8`."""
    ca_file: LocalFilePath = ""
    """A PEM file with the certificate authorities to trust instead of the system's, also for email."""

    @model_validator(mode="after")
    def _require_proxy_for_exceptions(self) -> Self:
        if self.no_proxy and not self.proxy and "proxy" not in self.model_fields_set:
            raise MultiFieldValidationError([(("no_proxy",), "no_proxy has no effect without proxy: remove it")])
        return self

    @property
    def request_routing(self) -> RequestRouting:
        return RequestRouting(parse_proxy_url(self.proxy) if self.proxy else None, self.no_proxy, self.ca_file)


class DeadMansSwitchSettings(ConfigModel):
    """An external service that Watchdog sends requests to, and that raises an alarm when they stop."""

    url: HttpUrl
    """The URL to request with GET; http:// or https://."""
    every: Annotated[Duration, create_duration_bounds_validator("10s", "1d")] = 60_000
    """The interval between requests. Configure the other service to raise an alarm only after two or three missed
    requests."""


class ConnectivitySettings(ConfigModel):
    """URLs that Watchdog requests to find out whether its own network works."""

    targets: Annotated[tuple[HttpUrl, ...], Field(min_length=1, max_length=10)]
    """The URLs. Choose at least two, in different networks, on hosts that no probe monitors. Watchdog requests them
    when its own network may be the cause of a failure: there is no route to a host, or most probes fail at once. URLs
    on a host whose probe fails are not requested. If the failure is that no name server responds, Watchdog requests
    none of the URLs; it resolves their host names and those of other probes. If a URL responds or a name is resolved
    within 3 s, the network works. Otherwise, the failure does not open an incident about the target of the probe."""


class ManagedFileSettings(ConfigModel):
    """The file that operators' pages and the API write probes to. The short form is its path alone."""

    shorthand_field: ClassVar[str] = "file"

    file: Annotated[str, Field(min_length=1)]
    """The path of the file, relative to this one. It is included as if `include` named it last, may be edited by hand
    as well, and is created with the first probe; its folder must exist, and Watchdog must be able to write there."""
    variables: tuple[str, ...] = ()
    """The names of the environment variables that such probes may use as `${NAME}`; default: none. Such probes
    may send their values to any address."""


# --- the whole configuration


class Config(ConfigModel):
    """The whole configuration."""

    version: Literal[1] = 1
    """The version of the configuration format."""
    server: WebServerSettings = WebServerSettings()
    """The web server for the pages, the API and check-ins."""
    storage: StorageSettings = StorageSettings()
    """The database, and how long it keeps data."""
    include: tuple[str, ...] = ()
    """Paths or patterns of additional files with probes, receivers and routes, relative to this file."""
    managed: ManagedFileSettings | None = None
    """The file that probes are written to which operators create on the pages and through the API; default: none, and
    they cannot."""
    reload: Literal["on_change", "on_signal"] = "on_change"
    """When `watchdog run` applies a changed configuration: when one of its files changes, or only on SIGHUP, with
    `watchdog reload` and on `POST /api/v1/reload`. The files are this one, included ones, and those of secrets. An
    invalid configuration is reported, and the running one stays."""
    defaults: ProbeDefaults = ProbeDefaults()
    """Default values for fields that a probe does not set. They also apply to included files."""
    probes: tuple[AnyProbe, ...] = ()
    """The probes."""
    receivers: Mapping[str, ReceiverNotifiersSettings] = {}
    """The people and programs to notify, by name. Names consist of letters, digits, `-`, `_` and `.`."""
    routes: tuple[NotificationRouteSettings, ...] = ()
    """Which incidents are sent to which receivers; default: all incidents to all receivers."""
    maintenance: tuple[MaintenanceWindowSettings, ...] = ()
    """Maintenance windows: times, and the probes that they select."""
    inhibit: tuple[InhibitSettings, ...] = ()
    """Which probes mute the alerts of others while they are down, in addition to `needs` of a probe; default: none."""
    network: NetworkSettings = NetworkSettings()
    """The proxy and the certificate authorities for requests over HTTP."""
    email: SmtpServerSettings | None = None
    """The SMTP server for all `email` notifiers."""
    connectivity: ConnectivitySettings | None = None
    """URLs that Watchdog requests to find out whether its own network works."""
    dead_mans_switch: DeadMansSwitchSettings | None = None
    """A URL that Watchdog requests regularly, as long as it starts runs, stores results and sends notifications."""
    status_page: StatusPageSettings = StatusPageSettings()
    """The public status page."""
    access: AccessSettings = AccessSettings()
    """Access to the operator pages, the API and the MCP tools. Without API keys, only the machine that
    Watchdog runs on has access."""

    def has_run_effect(self, probe_id: str) -> bool:
        """Whether a run of the probe may change something at its target."""
        return any(probe.id == probe_id and probe.may_change_target for probe in self.probes)

    def build_notifiers_by_destination(self) -> dict[str, Notifier]:
        """Every notifier, by destination: "oncall/slack"."""
        return {
            destination: notifier
            for name, receiver in self.receivers.items()
            for destination, notifier in receiver.build_notifiers_by_destination(name).items()
        }
