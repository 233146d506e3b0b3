"""What a configuration holds, once read: frozen models of every section."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StrictBool, model_validator

from watchdog.config.problems import did_you_mean
from watchdog.config_types import (
    ALLOW_FROM_FILE,
    ConfigModel,
    Duration,
    FieldPath,
    FieldValidationError,
    HttpLink,
    LocalFilePath,
    Secret,
    SingleLineText,
    duration_bounds,
    validate_secret_length,
)
from watchdog.config_values import DEFAULT_LISTEN_ADDRESS, split_listen_address
from watchdog.domain import routing
from watchdog.domain.model import Severity
from watchdog.notifiers import NOTIFIER_KINDS, Notifier, SmtpServerSettings
from watchdog.probes import PROBE_KINDS, AnyProbe, ProbeDefaults

# --- server, storage


def _validate_listen_address(text: str) -> str:
    split_listen_address(text)
    return text


class ServerSettings(ConfigModel):
    """Where the pages are served."""

    listen: Annotated[str, AfterValidator(_validate_listen_address)] = DEFAULT_LISTEN_ADDRESS
    """host:port; port 0 takes a free one. Beyond this machine only together with `access.api_keys`."""
    public_url: Annotated[HttpLink, AfterValidator(lambda url: url.rstrip("/"))] = ""
    """How people reach the pages: messages link there."""

    @property
    def bind_address(self) -> tuple[str, int]:
        """Host and port to bind."""
        return split_listen_address(self.listen)

    @property
    def listens_beyond_loopback(self) -> bool:
        host, _ = self.bind_address
        try:
            return not ip_address(host).is_loopback
        except ValueError:
            return host != "localhost"


def _normalize_database_url(url: str) -> str:
    scheme, colon, rest = url.partition(":")
    if scheme == "sqlite" and colon:
        path = rest[3:] if rest.startswith("///") else rest
        if not path or path.startswith("//") or ":memory:" in path or "mode=memory" in path:
            raise ValueError("expected the path of a file: sqlite:///watchdog.db, or sqlite:////var/lib/watchdog.db")
        return f"sqlite:///{path}"
    if scheme in ("postgres", "postgresql", "postgresql+psycopg") and rest.startswith("//"):
        try:
            _ = urlsplit(url).port
        except ValueError:
            raise ValueError("the port of the database URL is not a number; encode : / @ in its password") from None
        return f"postgresql+psycopg:{rest}"
    raise ValueError("expected sqlite:///watchdog.db or postgresql://user:password@host/database")


class StorageSettings(ConfigModel):
    """Where results are kept, and for how long."""

    url: Annotated[str, AfterValidator(_normalize_database_url), ALLOW_FROM_FILE] = "sqlite:///watchdog.db"
    """`sqlite:///file.db`, or `postgresql://user:password@host/database`, which needs the extra `postgres`."""
    keep_results: Annotated[Duration, duration_bounds("1h", "3650d")] = 2_592_000_000
    """For how long every single result is kept."""
    keep_rollups: Annotated[Duration, duration_bounds("1d", "3650d")] = 34_560_000_000
    """For how long hourly summaries are kept."""
    check_in_log: LocalFilePath = ""
    """Where check-ins wait on disk until the database has them; default: beside the SQLite file, or
    `watchdog-check-ins` in the working directory."""

    @property
    def check_in_log_path(self) -> Path:
        """`check_in_log`, or its default."""
        kind, _, file = self.url.partition(":///")
        return Path(self.check_in_log or (f"{file}-check-ins" if kind == "sqlite" else "watchdog-check-ins"))


# --- who is told


@NOTIFIER_KINDS.add_fields
class Receiver(ConfigModel):
    """People to tell, each kind of notifier at most once."""

    send_resolved: StrictBool = True
    """Whether they hear of the end of an incident, too."""

    @model_validator(mode="after")
    def _require_notifier(self) -> Self:
        if not NOTIFIER_KINDS.chosen(self):
            raise ValueError(f"nobody is reached: add at least one of {', '.join(NOTIFIER_KINDS)}")
        return self

    def notifiers_by_destination(self, receiver_name: str) -> dict[str, Notifier]:
        """Each notifier under its destination's name: "oncall/slack"."""
        return {f"{receiver_name}/{kind}": notifier for kind, notifier in NOTIFIER_KINDS.chosen(self).items()}


def _validate_probe_kind(name: str) -> str:
    if name not in PROBE_KINDS:
        raise ValueError(
            f"no such kind of probe{did_you_mean(name, PROBE_KINDS) or ': expected ' + ' or '.join(PROBE_KINDS)}"
        )
    return name


class MatchSettings(ConfigModel):
    """Which probes something is about: all that is given must fit; nothing given fits every probe."""

    severity: Severity | None = None
    """The severity that the probe's alerts have."""
    tags: tuple[SingleLineText, ...] = ()
    """All of these."""
    group: SingleLineText = ""
    kind: Annotated[str, AfterValidator(_validate_probe_kind), Field(json_schema_extra={"enum": list(PROBE_KINDS)})] = (
        ""
    )
    """http, mcp ..."""
    probe: SingleLineText = ""
    """One probe, by id or by name."""

    def to_matcher(self) -> routing.ProbeMatcher:
        return routing.ProbeMatcher(self.severity, frozenset(self.tags), self.group, self.kind, self.probe)


class RouteSettings(ConfigModel):
    """Whom an incident of the probes that match is told to. The first route that matches wins."""

    match: MatchSettings = MatchSettings()
    """Default: every probe."""
    receivers: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of receivers."""
    continue_matching: StrictBool = Field(default=False, alias="continue")
    """Look at the routes below, too."""

    def to_route(self) -> routing.Route:
        return routing.Route(self.receivers, self.match.to_matcher(), self.continue_matching)


# --- who sees


class StatusPageSettings(ConfigModel):
    """The public page."""

    title: SingleLineText = "Status"
    match: MatchSettings = MatchSettings()
    """Which probes stand on it; default: all."""
    groups: tuple[SingleLineText, ...] = ()
    """The order of the groups; those not named follow."""
    history: Annotated[Duration, duration_bounds("1d", "400d")] = 7_776_000_000
    """How far back its bars go."""


def _validate_api_key(key: Secret) -> Secret:
    value = validate_secret_length(key).get_secret_value()
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("expected letters, digits and signs of ASCII, without spaces: it travels in a header")
    return key


class ApiKeySettings(ConfigModel):
    """Somebody, or a program, that may see the operators' pages."""

    name: SingleLineText
    role: Literal["operator", "reader"]
    """A reader sees everything, an operator may also act."""
    key: Annotated[Secret, AfterValidator(_validate_api_key)]


class AccessSettings(ConfigModel):
    """Who may see the operators' pages. Without keys: this machine alone."""

    api_keys: tuple[ApiKeySettings, ...] = ()

    @model_validator(mode="after")
    def _require_distinct_keys(self) -> Self:
        wrong: list[tuple[FieldPath, str]] = []
        for i, key in enumerate(self.api_keys):
            if key.name in (other.name for other in self.api_keys[:i]):
                wrong.append((("api_keys", i, "name"), "another key has this name"))
            if key.key in (other.key for other in self.api_keys[:i]):
                wrong.append((("api_keys", i, "key"), "another entry has the same key"))
        if wrong:
            raise FieldValidationError(wrong)
        return self


# --- all of it


class Config(ConfigModel):
    """One Watchdog."""

    version: Literal[1] = 1
    """The version of this format."""
    server: ServerSettings = ServerSettings()
    storage: StorageSettings = StorageSettings()
    include: tuple[str, ...] = ()
    """More files, by path or pattern, as seen from this one: they hold probes, receivers and routes."""
    defaults: ProbeDefaults = ProbeDefaults()
    """What probes have that do not say otherwise, in included files, too."""
    probes: tuple[AnyProbe, ...] = ()
    """What is watched."""
    receivers: Mapping[str, Receiver] = {}
    """Who is told, by name."""
    routes: tuple[RouteSettings, ...] = ()
    """Which incidents go to whom; default: all to every receiver."""
    email: SmtpServerSettings | None = None
    """The server that sends our mail."""
    status_page: StatusPageSettings = StatusPageSettings()
    access: AccessSettings = AccessSettings()
