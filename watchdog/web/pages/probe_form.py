"""The form of a probe of the managed file, with what was found about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import get_args

from watchdog.config.managed_entry import ProbeTextProblem
from watchdog.config.managed_file import ManagedFileText
from watchdog.config.probe_form import (
    COMMON_FORM_FIELDS,
    PROBE_FORM_KINDS,
    ProbeFormFields,
    compose_probe_text,
    find_probe_kind_in_yaml,
    list_form_field_paths_of_probe_kind,
    split_probe_yaml_into_form_fields,
)
from watchdog.config.reference_examples import CONFIG_KIND_EXAMPLES
from watchdog.domain.model import Severity
from watchdog.net.targets import HttpTarget
from watchdog.probes import PROBE_KINDS
from watchdog.probes.dns import DnsRecordType
from watchdog.probes.tls import DEFAULT_PORT_BY_STARTTLS_PROTOCOL
from watchdog.service.managed_edits import ManagedProbe, ManagedProbes, ProbeEdit
from watchdog.service.run_once import OnDemandRun
from watchdog.store.read.status import WatchdogStatus

REMAINING_YAML_FORM_FIELD_NAME = "yaml"
DEFAULT_PROBE_KIND = "http"
EXAMPLE_CHECK_IN_TOKEN = "${BACKUP_CHECKIN_TOKEN}"
"""In an example; the form has a random one in its place."""


@dataclass(frozen=True, slots=True)
class FormInputDescription:
    """How a field is entered."""

    label: str
    placeholder: str = ""
    options: tuple[str, ...] = ()
    """To choose from; empty: text."""
    is_multiline: bool = False


INPUT_BY_FIELD = {
    "name": FormInputDescription("Name"),
    "schedule": FormInputDescription("Cron schedule", "*/5 * * * *"),
    "timezone": FormInputDescription("Time zone of the schedule", "UTC"),
    "every": FormInputDescription("Interval, instead of a schedule", "60s"),
    "group": FormInputDescription("Group"),
    "id": FormInputDescription("Id; by default derived from the name"),
    "expect": FormInputDescription("Expected, one expression on each line", "status == 200", is_multiline=True),
    "alert.severity": FormInputDescription("Severity of its incidents", options=tuple(Severity)),
    "http.url": FormInputDescription("URL", "https://"),
    "http.method": FormInputDescription("Method", options=get_args(HttpTarget.model_fields["method"].annotation)),
    "grpc.target": FormInputDescription("Host and port", "orders.acme.example:443"),
    "grpc.service": FormInputDescription("Service; by default the server as a whole", "orders.v1.Orders"),
    "websocket.url": FormInputDescription("URL", "wss://"),
    "websocket.send": FormInputDescription("Message to send"),
    "websocket.contains": FormInputDescription("Text that a message must contain"),
    "mcp.url": FormInputDescription("URL", "https://"),
    "sql.query": FormInputDescription("Query", "SELECT count(*) AS waiting FROM orders WHERE paid_at IS NULL"),
    "heartbeat.schedule": FormInputDescription("When its job runs, as a cron schedule", "0 3 * * *"),
    "heartbeat.timezone": FormInputDescription("Time zone of the schedule", "UTC"),
    "heartbeat.every": FormInputDescription("How often its job runs, instead of a schedule", "15m"),
    "heartbeat.grace": FormInputDescription("How late a run may start", "60s"),
    "heartbeat.max_runtime": FormInputDescription("How long a run may take", "2h"),
    "heartbeat.token": FormInputDescription("Token, the secret in the check-in URL"),
    "canary.start_within": FormInputDescription("Longest time until a worker starts the job", "10s"),
    "canary.finish_within": FormInputDescription("Longest time until the job is finished", "30s"),
    "canary.mcp.url": FormInputDescription("URL of the MCP server", "https://"),
    "jobs.grace": FormInputDescription("How late a run may start", "60s"),
    "dns.name": FormInputDescription("Record name", "acme.example"),
    "dns.type": FormInputDescription("Record type", options=get_args(DnsRecordType)),
    "dns.server": FormInputDescription("Name server (default: those of Watchdog's machine)", "192.0.2.53"),
    "icmp.host": FormInputDescription("Host or address", "192.0.2.1"),
    "icmp.count": FormInputDescription("Echo requests in each run", "3"),
    "icmp.max_loss": FormInputDescription("Maximum loss", "20%"),
    "tcp.host": FormInputDescription("Host and port", "db.acme.example:5432"),
    "tcp.send": FormInputDescription("Text to send", r"PING\r\n"),
    "tcp.contains": FormInputDescription("Text that the response must contain", "+PONG"),
    "tls.host": FormInputDescription("Host and port", "acme.example:443"),
    "tls.min_days": FormInputDescription("Minimum number of days until a certificate expires", "14"),
    "tls.starttls": FormInputDescription("Protocol for STARTTLS", options=tuple(DEFAULT_PORT_BY_STARTTLS_PROTOCOL)),
    "rules.waiting.over": FormInputDescription("Maximum number of waiting jobs", "200"),
    "rules.oldest.over": FormInputDescription("Longest time that a job may wait", "15m"),
    "rules.consumers.under": FormInputDescription("Minimum number of workers", "1"),
}
INPUT_BY_QUEUE_SYSTEM_FIELD = {
    "redis": FormInputDescription("Redis URL", "redis://user:password@host:6379/0"),
    "url": FormInputDescription("Database URL", "postgresql://user:password@host/database"),
    "queue": FormInputDescription("Queue"),
    "table": FormInputDescription("Table"),
    "broker": FormInputDescription("Broker URL", "redis://user:password@host:6379/0"),
    "backend": FormInputDescription("Result backend URL", "redis://user:password@host:6379/1"),
    "task": FormInputDescription("Task"),
    "function": FormInputDescription("Function"),
    "redbeat": FormInputDescription("Redis URL of RedBeat", "redis://user:password@host:6379/0"),
    "database": FormInputDescription(
        "or database URL of django-celery-beat", "postgresql://user:password@host/database"
    ),
    "enqueue": FormInputDescription("URL that starts a job", "https://"),
    "poll": FormInputDescription("URL of the job", "https://api.acme.example/jobs/{job_id}"),
    "done": FormInputDescription("Expression: the job is done", "body.status == 'completed'"),
    "failed": FormInputDescription("Expression: the job failed", "body.status == 'failed'"),
    "tool": FormInputDescription("Tool that starts a job"),
    "resource": FormInputDescription("Resource of the job", "job:{job_id}"),
}
"""By the last part of the path."""
NEW_PROBE_KINDS = tuple(kind for kind, probe in PROBE_KINDS.items() if not probe.is_entered_by_hand)
"""The kinds to choose from."""
FIRST_FIELDS = frozenset({"name", "schedule"})
"""Fields that are shown with those of the kind; the others are shown under "More fields"."""


@dataclass(frozen=True, slots=True)
class ProbeFormInputField:
    """A field with its value and what is not valid about it."""

    path: str
    description: FormInputDescription
    value: str
    problems: tuple[str, ...]
    options: tuple[str, ...]

    @property
    def element_id(self) -> str:
        return self.path.replace(".", "-")


@dataclass(frozen=True, slots=True)
class ProbeForm:
    """What a person has entered so far."""

    kind: str
    """One of PROBE_FORM_KINDS."""
    fields: ProbeFormFields = field(default_factory=ProbeFormFields)
    probe_id: str = ""
    """The probe that is edited; empty: another one is added."""
    version: str = ""
    """Of the file that the form was made from."""
    copy_of: str = ""
    """A probe whose secrets it may refer to."""
    former_name: str = ""
    """Of the probe that is edited."""

    @property
    def probe_kind(self) -> str:
        return self.kind.partition(".")[0]

    @property
    def system(self) -> str:
        """The key of its queue system; empty: it has none."""
        return self.kind.partition(".")[2]

    def build_probe_edit(self, managed: ManagedProbes) -> ProbeEdit:
        version = self.version or "-" if self.probe_id else ""
        return ProbeEdit(self.to_yaml(managed), self.probe_id, version=version, copy_of=self.copy_of)

    def to_yaml(self, managed: ManagedProbes) -> str:
        """What is not changed stays as it is written in the file."""
        id = self.probe_id or self.copy_of
        stored = next((probe.yaml for probe in managed.probes if probe.id == id), "")
        return compose_probe_text(self.fields, self.kind, stored)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFormPage:
    """A form, and what a check, a try or a refusal has led to."""

    service_status: WatchdogStatus
    form: ProbeForm
    file: str
    title: str
    first_inputs: tuple[ProbeFormInputField, ...]
    more_inputs: tuple[ProbeFormInputField, ...]
    rest_problems: tuple[str, ...]
    is_more_open: bool
    refusal: str = ""
    conflict_diff: str = ""
    """From what the file holds now to what was entered; empty: there is no conflict."""
    is_checked: bool = False
    diff: str = ""
    warnings: tuple[str, ...] = ()
    run: OnDemandRun | None = None
    kinds: tuple[str, ...] = ()
    """To choose from, if another probe is added."""

    @property
    def systems(self) -> Mapping[str, str]:
        """The queue systems of the kind, by key, to choose from if another probe is added."""
        systems = PROBE_KINDS[self.form.probe_kind].form_systems if self.kinds else {}
        return {key: system.name for key, system in systems.items()}


def create_new_probe_form(kind: str) -> ProbeForm:
    """With an example for what is entered as YAML. `kind`: without a queue system, it has the first one."""
    is_offered = kind in PROBE_FORM_KINDS and kind.partition(".")[0] in NEW_PROBE_KINDS
    kind = kind if is_offered else DEFAULT_PROBE_KIND
    model, system = PROBE_KINDS[kind.partition(".")[0]], kind.partition(".")[2]
    if model.form_systems and not system:
        return create_new_probe_form(f"{kind}.{next(iter(model.form_systems))}")
    example = ManagedFileText(CONFIG_KIND_EXAMPLES[f"probes[].{kind}"].lstrip("\n").encode(), "").entries[0].yaml
    fields = split_probe_yaml_into_form_fields(example, kind)
    tokens = {path: token_hex(20) for path, value in fields.values.items() if value == EXAMPLE_CHECK_IN_TOKEN}
    return ProbeForm(kind, ProbeFormFields(tokens, fields.rest if system or not model.form_fields else ""))


def create_form_of_probe(probe: ManagedProbe, version: str, *, is_copy: bool = False) -> ProbeForm:
    """`is_copy`: it adds another probe."""
    kind = find_probe_kind_in_yaml(probe.yaml) or DEFAULT_PROBE_KIND
    fields = split_probe_yaml_into_form_fields(probe.yaml, kind)
    if not is_copy:
        return ProbeForm(kind, fields, probe.id, version, former_name=probe.name)
    values = {**fields.values, "name": f"{fields.values.get('name', probe.name)} (copy)", "id": ""}
    return ProbeForm(kind, ProbeFormFields(values, fields.rest), copy_of=probe.id)


def read_probe_form(form: Mapping[str, str], probe_id: str) -> ProbeForm:
    """A probe that is edited keeps its id if its name changes."""
    kind = form.get("kind", "") if form.get("kind", "") in PROBE_FORM_KINDS else DEFAULT_PROBE_KIND
    values = {path: form.get(path, "").replace("\r\n", "\n") for path in list_form_field_paths_of_probe_kind(kind)}
    if probe_id and not values.get("id", "").strip() and values["name"].strip() != form.get("former_name", ""):
        values["id"] = probe_id
    fields = ProbeFormFields(values, form.get(REMAINING_YAML_FORM_FIELD_NAME, "").replace("\r\n", "\n"))
    texts = (form.get(name, "") for name in ("version", "copy_of", "former_name"))
    return ProbeForm(kind, fields, probe_id, *texts)


def build_probe_form_inputs_and_other_problems(
    form: ProbeForm, problems: Iterable[ProbeTextProblem]
) -> tuple[list[ProbeFormInputField], tuple[str, ...]]:
    """The inputs with their problems, and the problems of what is entered as YAML."""
    paths = list_form_field_paths_of_probe_kind(form.kind)
    by_path: dict[str, list[str]] = {path: [] for path in paths}
    rest = []
    for problem in problems:
        path = next((path for path in paths if is_problem_of_field(problem.path, path)), "")
        if path:
            by_path[path].append(problem.message)
        else:
            rest.append(str(problem))
    inputs = [
        ProbeFormInputField(
            path,
            description := describe_input(path),
            value := form.fields.values.get(path, ""),
            tuple(by_path[path]),
            ("", *dict.fromkeys((*description.options, *([value] if value else [])))) if description.options else (),
        )
        for path in paths
    ]
    return inputs, tuple(rest)


def describe_input(path: str) -> FormInputDescription:
    name = path.rpartition(".")[2]
    return INPUT_BY_FIELD.get(path) or INPUT_BY_QUEUE_SYSTEM_FIELD.get(name, FormInputDescription(path))


def is_problem_of_field(problem_path: str, path: str) -> bool:
    """Whether it is about the field, about an entry of it, or about a section of the kind that has the field."""
    is_entry = problem_path.startswith(f"{path}.") and problem_path.removeprefix(f"{path}.").isdecimal()
    is_about_section = path not in COMMON_FORM_FIELDS and bool(problem_path) and path.startswith(f"{problem_path}.")
    return problem_path == path or is_entry or is_about_section


def split_inputs_shown_first_from_others(
    inputs: Sequence[ProbeFormInputField],
) -> tuple[tuple[ProbeFormInputField, ...], tuple[ProbeFormInputField, ...]]:
    """Those that are shown first, and the others."""
    first = tuple(each for each in inputs if each.path in FIRST_FIELDS or each.path not in COMMON_FORM_FIELDS)
    return first, tuple(each for each in inputs if each not in first)
