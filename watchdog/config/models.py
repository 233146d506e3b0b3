"""What a configuration holds, once read: frozen models of every section."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StrictBool, create_model, model_validator

from watchdog import alerts
from watchdog.config.problems import did_you_mean
from watchdog.fields import (
    FROM_FILE,
    Duration,
    FieldsError,
    Line,
    Link,
    LocalFile,
    Model,
    Secret,
    Where,
    between,
    hard_to_guess,
)
from watchdog.model import Severity
from watchdog.notifiers import KINDS as NOTIFIERS
from watchdog.notifiers import EmailServer, Notifier
from watchdog.probes import KINDS as PROBES
from watchdog.probes import AnyProbe, Common

# --- server, storage


def _listen(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
        raise ValueError("expected host:port, such as 127.0.0.1:8080, or :8080 for every address")
    if not re.fullmatch(r"[A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\]", host):
        raise ValueError("expected a host name or address before the port; an IPv6 address stands in [ ]")
    return text


class Server(Model):
    """Where the pages are served."""

    listen: Annotated[str, AfterValidator(_listen)] = "127.0.0.1:8080"
    """host:port; port 0 takes a free one. Beyond this machine only together with `access.keys`."""
    public_url: Annotated[Link, AfterValidator(lambda url: url.rstrip("/"))] = ""
    """How people reach the pages: messages link there."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to bind."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what ":8080" means; refused without keys

    @property
    def beyond_loopback(self) -> bool:
        host, _ = self.address
        try:
            return not ip_address(host).is_loopback
        except ValueError:
            return host != "localhost"


def _database(url: str) -> str:
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


class Storage(Model):
    """Where results are kept, and for how long."""

    url: Annotated[str, AfterValidator(_database), FROM_FILE] = "sqlite:///watchdog.db"
    """`sqlite:///file.db`, or `postgresql://user:password@host/database`, which needs the extra `postgres`."""
    keep_results: Annotated[Duration, between("1h", "3650d")] = 2_592_000_000
    """For how long every single result is kept."""
    keep_rollups: Annotated[Duration, between("1d", "3650d")] = 34_560_000_000
    """For how long hourly summaries are kept."""
    spool: LocalFile = ""
    """Where check-ins wait on disk until the database has them; default: beside the SQLite file, or
    `watchdog-check-ins` in the working directory."""

    @property
    def waiting(self) -> Path:
        """`spool`, or its default."""
        kind, _, file = self.url.partition(":///")
        return Path(self.spool or (f"{file}-check-ins" if kind == "sqlite" else "watchdog-check-ins"))


# --- who is told


class _Receiver(Model):
    """People to tell, each kind of notifier at most once."""

    resolve: StrictBool = True
    """Whether they hear of the end of an incident, too."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if not any(getattr(self, kind) is not None for kind in NOTIFIERS):
            raise ValueError(f"nobody is reached: add at least one of {', '.join(NOTIFIERS)}")
        return self

    def destinations(self, name: str) -> dict[str, Notifier]:
        """Each notifier under its destination's name: "oncall/slack"."""
        given = {f"{name}/{kind}": getattr(self, kind) for kind in NOTIFIERS}
        return {destination: notifier for destination, notifier in given.items() if notifier is not None}


_fields: dict[str, Any] = {kind: (notifier | None, None) for kind, notifier in NOTIFIERS.items()}
Receiver: type[_Receiver] = create_model("Receiver", __base__=_Receiver, __doc__=_Receiver.__doc__, **_fields)


def _kind(name: str) -> str:
    if name not in PROBES:
        raise ValueError(f"no such kind of probe{did_you_mean(name, PROBES) or ': expected ' + ' or '.join(PROBES)}")
    return name


class Match(Model):
    """Which probes something is about: all that is given must fit; nothing given fits every probe."""

    severity: Severity | None = None
    """The severity that the probe's alerts have."""
    tags: tuple[Line, ...] = ()
    """All of these."""
    group: Line = ""
    kind: Annotated[str, AfterValidator(_kind), Field(json_schema_extra={"enum": list(PROBES)})] = ""
    """http, mcp ..."""
    probe: Line = ""
    """One probe, by key or by name."""

    def table(self) -> alerts.Match:
        return alerts.Match(self.severity, frozenset(self.tags), self.group, self.kind, self.probe)


class Route(Model):
    """Whom an incident of the probes that match is told to. The first route that matches wins."""

    match: Match = Match()
    """Default: every probe."""
    receivers: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of receivers."""
    go_on: StrictBool = Field(default=False, alias="continue")
    """Look at the routes below, too."""

    def table(self) -> alerts.Route:
        return alerts.Route(self.receivers, self.match.table(), self.go_on)


# --- who sees


class StatusPage(Model):
    """The public page."""

    title: Line = "Status"
    show: Match = Match()
    """Which probes stand on it; default: all."""
    groups: tuple[Line, ...] = ()
    """The order of the groups; those not named follow."""
    history: Annotated[Duration, between("1d", "400d")] = 7_776_000_000
    """How far back its bars go."""


def _in_a_header(key: Secret) -> Secret:
    value = hard_to_guess(key).get_secret_value()
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("expected letters, digits and signs of ASCII, without spaces: it travels in a header")
    return key


class Key(Model):
    """Somebody, or a program, that may see the operators' pages."""

    name: Line
    role: Literal["operator", "reader"]
    """A reader sees everything, an operator may also act."""
    key: Annotated[Secret, AfterValidator(_in_a_header)]


class Access(Model):
    """Who may see the operators' pages. Without keys: this machine alone."""

    keys: tuple[Key, ...] = ()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        wrong: list[tuple[Where, str]] = []
        for i, key in enumerate(self.keys):
            if key.name in (other.name for other in self.keys[:i]):
                wrong.append((("keys", i, "name"), "another key has this name"))
            if key.key in (other.key for other in self.keys[:i]):
                wrong.append((("keys", i, "key"), "another entry has the same key"))
        if wrong:
            raise FieldsError(wrong)
        return self


# --- all of it


class Config(Model):
    """One Watchdog."""

    version: Literal[1] = 1
    """The version of this format."""
    server: Server = Server()
    storage: Storage = Storage()
    include: tuple[str, ...] = ()
    """More files, by path or pattern, as seen from this one: they hold probes, receivers and routes."""
    defaults: Common = Common()
    """What probes have that do not say otherwise, in included files, too."""
    probes: tuple[AnyProbe, ...] = ()
    """What is watched."""
    receivers: Mapping[str, Receiver] = {}
    """Who is told, by name."""
    routes: tuple[Route, ...] = ()
    """Which incidents go to whom; default: all to every receiver."""
    email: EmailServer | None = None
    """The server that sends our mail."""
    status_page: StatusPage = StatusPage()
    access: Access = Access()
