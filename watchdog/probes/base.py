"""The base of all probe kinds: common configuration, and the interface for observing a target."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictInt,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from watchdog.config_types import (
    DURATION_PATTERN,
    ConfigModel,
    CronExpression,
    Duration,
    DurationOrZero,
    FieldPath,
    HttpLink,
    MultiFieldValidationError,
    SingleLineText,
    TimezoneName,
    create_duration_bounds_validator,
    format_config_duration,
    parse_config_duration_ms,
)
from watchdog.config_values import slugify
from watchdog.domain.formatting import DAY_MS, MINUTE_MS
from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.model import Json, Observation, Severity
from watchdog.domain.uptime_clock import DowntimeGaps
from watchdog.expressions import CelExpression, CelExpressionError, compile_expression
from watchdog.net.phases import PhaseTimer
from watchdog.probes.http_routing import HttpRoutingSettings
from watchdog.queues.base import QueueSystemConfig
from watchdog.remediations import (
    JOB_RUN_ID_REMEDIATION_PARAMETER,
    RemediationAction,
    RemediationSettings,
    SqlRemediation,
)

if TYPE_CHECKING:
    from watchdog.net import NetworkAccess

MAX_PREFER_CEL_EXPRESSION_BYTES = 2_000
"""A `prefer` expression is the subject of its incident, and PostgreSQL cannot index a text of more than 2.7 kB."""
MIN_REPEAT_INTERVAL_MS, MAX_REPEAT_INTERVAL_MS = MINUTE_MS, 365 * DAY_MS


@dataclass(frozen=True, slots=True)
class ProbeAttemptContext:
    """What a probe is given for one attempt of a run."""

    slot: int
    started_at: int
    """The time at the start of the attempt, epoch ms. Ages are measured against it."""
    remaining_s: float
    """Seconds left until the deadline of the run. The caller enforces it; a probe uses it to name the phase that timed
    out."""
    idempotency_key: str
    """The same for all attempts of this probe and slot."""
    probe_state: Mapping[str, Json]
    """The state that earlier runs of this probe stored."""
    network: NetworkAccess
    """The network client that all probes share."""
    phase_timer: PhaseTimer = field(default_factory=PhaseTimer)
    """Measures the phases of the attempt. After a cancellation it holds the finished phases and the current one."""
    generation: int = 0
    """The clock generation of `slot` and `previous_slot`: after a step of the clock, an instant may come again."""
    previous_slot: int | None = None
    """The previous slot of this probe; None: this is the first."""
    gaps: DowntimeGaps = ()
    """The periods in which Watchdog was down and could receive no check-ins."""
    state_updates_on_timeout: dict[str, Json] = field(default_factory=dict)
    """The state to store if the deadline interrupts the attempt; the probe fills it in."""
    check_ins_until: int | None = None
    """The check-ins received until this instant are in `probe_state`; None: all until `started_at`."""
    mask_secrets: Callable[[str], str] = str
    """Masks the secrets of the configuration, for text of the target that is stored in another place than evidence."""


def derive_slot_idempotency_key(probe_id: str, slot: int, generation: int = 0) -> str:
    """The key of a probe's slot: the same for every attempt, in every process."""
    slot_text = f"{slot}\0{generation}" if generation else str(slot)
    return "wd-" + blake2b(f"{probe_id}\0{slot_text}".encode(), digest_size=16).hexdigest()


def _parse_repeat_interval(value: Any) -> int:
    return 0 if value in ("off", 0, "0s") and not isinstance(value, bool) else parse_config_duration_ms(value)


def _validate_repeat_interval(ms: int) -> int:
    if 0 < ms < MIN_REPEAT_INTERVAL_MS or ms > MAX_REPEAT_INTERVAL_MS:
        limits = map(format_config_duration, (MIN_REPEAT_INTERVAL_MS, MAX_REPEAT_INTERVAL_MS))
        raise ValueError(f"expected {' to '.join(limits)}, or `off`, found {format_config_duration(ms)}")
    return ms


RepeatInterval = Annotated[
    int,
    BeforeValidator(_parse_repeat_interval),
    AfterValidator(_validate_repeat_interval),
    WithJsonSchema({"anyOf": [{"enum": ["off", 0]}, {"type": "string", "pattern": DURATION_PATTERN}]}),
]
"""Milliseconds; 0 if it is written as `off` or 0."""


class AlertSettings(ConfigModel):
    """When an incident opens and resolves, and how severe it is."""

    failure_threshold: Annotated[StrictInt, Field(ge=1, le=1000)] = 3
    """The number of consecutive failed or degraded runs after which an incident opens. An incident about a job of
    a `jobs` or `heartbeat` probe depends on the job's limits instead, such as `grace` and `failures`."""
    success_threshold: Annotated[StrictInt, Field(ge=1, le=1000)] = 2
    """The number of consecutive good runs after which the incident resolves. An incident about a job resolves with the
    first good run."""
    repeat_interval: RepeatInterval = 14_400_000
    """How long after the last message about an incident a reminder is sent, as long as the incident is open, not
    acknowledged and not silenced. Every destination that was notified of the incident gets it, except for PagerDuty,
    which repeats alerts itself. `off` or `0` turns reminders off."""
    severity: Severity = Severity.WARNING
    """The severity of the incident. Routes can match it."""


class ProbeDefaults(ConfigModel):
    """Fields that most kinds of probes share. The values under `defaults` apply to every probe that does not set
    its own. A kind that does not support a field ignores its default."""

    group: SingleLineText = ""
    """The group under which the pages list the probe."""
    tags: tuple[SingleLineText, ...] = ()
    """Tags that routes and the status page can match."""
    runbook: HttpLink = ""
    """A link to instructions for the person on call. Notifications contain it."""
    every: Annotated[Duration, create_duration_bounds_validator("1s", "366d")] = 60_000
    """The interval between runs. Cannot be combined with `schedule`."""
    schedule: CronExpression | None = None
    """The run times as a cron expression with 5 fields, or with 6 (seconds first). Cannot be combined with
    `every`."""
    timezone: TimezoneName = "UTC"
    """The time zone for `schedule`, such as `Europe/Berlin`."""
    catch_up: DurationOrZero = 3_600_000
    """How late a scheduled run can still start if no process could start it on time. Only the newest missed
    run is started. `0s` turns this off."""
    timeout: Annotated[
        Duration,
        create_duration_bounds_validator("100ms", "5m", "for longer work, use a heartbeat or jobs probe"),
    ] = 10_000
    """The time limit for a whole run, including retries."""
    retries: Annotated[StrictInt, Field(ge=0, le=10)] = 0
    """The number of retries within a run after a transport error or a 5xx status."""
    retry_interval: Annotated[Duration, create_duration_bounds_validator("1s", "366d")] | None = None
    """The interval between runs while the probe fails, at most `every`; default: the normal interval."""
    alert: AlertSettings = AlertSettings()
    """When an incident opens and resolves, and how severe it is."""
    allow_private_addresses: StrictBool = True
    """Whether targets at loopback, private and reserved addresses are allowed. Link-local addresses and cloud metadata
    services are always blocked."""

    @model_validator(mode="after")
    def _validate_schedule(self) -> Self:
        if self.schedule is not None and "every" in self.model_fields_set:
            raise MultiFieldValidationError(
                [(("schedule",), "`every` and `schedule` cannot be combined: remove one of them")]
            )
        if self.schedule is None and self.retry_interval is not None and self.retry_interval > self.every:
            limit, actual = format_config_duration(self.every), format_config_duration(self.retry_interval)
            raise MultiFieldValidationError(
                [(("retry_interval",), f"expected at most `every` ({limit}), found {actual}")]
            )
        return self


def find_expression_errors(
    expressions: Sequence[str], variables: Mapping[str, str], field_name: str
) -> list[tuple[FieldPath, str]]:
    """Errors in the expressions of a field, by index. `field_name`: `expect` or `prefer`."""
    errors: list[tuple[FieldPath, str]] = []
    for i, text in enumerate(expressions):
        try:
            compile_expression(text, variables)
        except CelExpressionError as e:
            errors.append(((i,), str(e)))
        if field_name == "prefer" and len(text.encode()) > MAX_PREFER_CEL_EXPRESSION_BYTES:
            errors.append(((i,), f"expected at most {MAX_PREFER_CEL_EXPRESSION_BYTES:,} bytes: divide the expression"))
        if text in expressions[:i]:
            errors.append(((i,), "duplicate expression: remove it"))
    return errors


class Probe(HttpRoutingSettings, ProbeDefaults):
    """The fields that all kinds of probes have. A kind adds `observe()` and one field that is named like the kind."""

    kind: ClassVar[str]
    example: ClassVar[str]
    """A configuration that uses the kind, for the reference page."""
    expression_variables: ClassVar[Mapping[str, str]] = {}
    """The variables of `expect` and `prefer`: name -> CEL type, as for `compile_expression`."""
    unsupported_fields: ClassVar[Mapping[str, str]] = {}
    """Fields that this kind does not support -> the error message. Defaults for them do not apply."""
    reason_prefixes: ClassVar[tuple[str, ...]] = ()
    """The prefixes of the reasons about jobs, tasks, queues and canaries that this kind can report."""
    form_fields: ClassVar[tuple[str, ...]] = ()
    """The fields that a form has an input for besides those of every kind, such as `http.url`; others are entered as
    YAML."""
    is_entered_by_hand: ClassVar[bool] = False
    """Whether probes of this kind can be written into the files of the configuration alone, because they execute code
    on the machine that Watchdog runs on: no form offers the kind."""
    form_systems: ClassVar[Mapping[str, type[QueueSystemConfig]]] = MappingProxyType({})
    """The queue systems that its own section chooses from, by the key there: a form has inputs for one of them."""
    cards: ClassVar[tuple[str, ...]] = ("latency", "phases")
    """The cards of its page, in their order: the names of modules in `watchdog/web/cards/`."""
    passive_source: ClassVar[str] = ""
    """For a kind that does not contact its target: where its facts come from instead. A run outside the service cannot
    see them."""

    name: SingleLineText
    """The display name. It must be unique."""
    id: Annotated[str, Field(default_factory=lambda fields: slugify(fields["name"]), validate_default=True)]
    """The stable identity of the probe: up to 64 letters, digits, `-`, `_` and `.`; default: derived from the name. If
    it changes, Watchdog treats the probe as a new one without history."""
    paused: StrictBool = False
    """Whether the probe is paused: it does not run, and nothing about it is reported."""
    expect: tuple[str, ...] = ()
    """CEL expressions that must be true; otherwise the run fails."""
    prefer: tuple[str, ...] = ()
    """CEL expressions that should be true; otherwise the probe is degraded. Each can have at most 2,000 bytes."""
    needs: tuple[SingleLineText, ...] = ()
    """The ids or names of other probes. While one of them is down, the alerts of this probe are muted. What is still
    open when that one recovers is sent then (docs/muting.md)."""
    remediation: RemediationSettings | None = None
    """An action to run automatically when the probe reports certain reasons; default: none."""

    @field_validator("id")
    @classmethod
    def _validate_id(cls, id: str) -> str:
        if not id:
            raise ValueError("no id can be derived from the name, which has no letters a-z or digits: set id")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", id):
            raise ValueError("expected up to 64 letters, digits, '-', '_' and '.', starting with a letter or digit")
        return id

    @field_validator("expect", "prefer")
    @classmethod
    def _validate_expressions(cls, expressions: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.field_name in cls.unsupported_fields:
            return expressions  # `_reject_unsupported_fields` reports it together with the others
        if errors := find_expression_errors(expressions, cls.expression_variables, info.field_name or ""):
            raise MultiFieldValidationError(errors)
        return expressions

    @model_validator(mode="after")
    def _reject_unsupported_fields(self) -> Self:
        if not self.sends_http_requests:
            self.require_no_own_routing(self.kind)
        errors = [((name,), text) for name, text in self.unsupported_fields.items() if name in self.model_fields_set]
        if errors:
            raise MultiFieldValidationError(errors)
        return self

    @model_validator(mode="after")
    def _validate_remediation(self) -> Self:
        if self.remediation is None:
            return self
        action = self.remediation.action
        if isinstance(action, SqlRemediation) and not action.url and not self.database_url:
            message = "the probe reads no database: set url, as in {statement: ..., url: ...}"
            raise MultiFieldValidationError([(("remediation", "sql"), message)])
        if JOB_RUN_ID_REMEDIATION_PARAMETER in action.used_parameters and not self.reports_job_run_ids:
            message = "parameter id requires a jobs probe with sql, and both id and started in its columns"
            raise MultiFieldValidationError([(("remediation",), message)])
        if unsupported := self.remediation.find_unreportable_reasons(self.reason_prefixes):
            message = f"{self.kind} probes never report {' or '.join(unsupported)}: remove it"
            raise MultiFieldValidationError([(("remediation", "on"), message)])
        return self

    @property
    def sends_http_requests(self) -> bool:
        """Whether the probe reaches its target by HTTP requests, which can be routed through a proxy."""
        return False

    @property
    def database_url(self) -> str:
        """The database of the probe, in which a SQL remediation without a `url` runs; empty: the probe has none."""
        return ""

    @property
    def reports_job_run_ids(self) -> bool:
        """Whether the current run of a job has an id, which remediations can use as a parameter."""
        return False

    @property
    def remediation_action(self) -> RemediationAction | None:
        """The configured remediation action, with the database of the probe unless it names another one."""
        action = None if self.remediation is None else self.remediation.action
        if isinstance(action, SqlRemediation) and not action.url:
            return action.model_copy(update={"url": self.database_url})
        return action

    @property
    def run_time_limit_ms(self) -> int:
        """The time limit of a whole run, in ms."""
        return self.timeout

    @cached_property
    def expectation_expressions(self) -> tuple[CelExpression, ...]:
        """`expect`, compiled."""
        return tuple(compile_expression(text, self.expression_variables) for text in self.expect)

    @cached_property
    def preference_expressions(self) -> tuple[CelExpression, ...]:
        """`prefer`, compiled."""
        return tuple(compile_expression(text, self.expression_variables) for text in self.prefer)

    def find_expressions_with_variable(self, name: str, message: str) -> list[tuple[FieldPath, str]]:
        """The message for each expression that uses a variable."""
        fields = (("expect", self.expectation_expressions), ("prefer", self.preference_expressions))
        return [
            ((field, i), message)
            for field, expressions in fields
            for i, expression in enumerate(expressions)
            if name in expression.used_variables
        ]

    @property
    @abstractmethod
    def target(self) -> str:
        """The target in a form that is safe to show: without credentials and query."""

    @property
    def may_change_target(self) -> bool:
        """Whether a run may change something at its target, such as a POST request. Then people are asked before they
        start one."""
        return False

    @property
    def may_run_without_store(self) -> bool:
        """Whether a run can take place while Watchdog's own database is away: it changes nothing, so that it may take
        place twice, and needs nothing from that database but what the probe remembered before."""
        return False

    @property
    def network_endpoint(self) -> str:
        """Host and port, for the limit of concurrent runs against one of these; empty: no limit."""
        return ""

    @property
    def max_task_ages(self) -> Mapping[str, int]:
        """Task name, or "*" -> the maximum age of its last run, in ms."""
        return {}

    @property
    def job_limits(self) -> Mapping[str, ScheduledJobLimits]:
        """Job name, or "*" -> its schedule and limits."""
        return {}

    def preload(self) -> None:
        """Import slow modules before the first run, which would otherwise wait for them."""
        return

    @abstractmethod
    async def observe(self, context: ProbeAttemptContext) -> Observation:
        """Make one attempt. Every failure of the target is returned as an Observation with a reason.

        The caller cancels the attempt at the deadline and records a timeout. Any exception is a bug of Watchdog and
        recorded as `error`.
        """
