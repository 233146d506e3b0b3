"""The `command` probe: runs a check of the user's own in a process and evaluates its exit code and output."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import Field, model_validator

from watchdog.config_types import (
    ConfigModel,
    Duration,
    LocalFilePath,
    MultiFieldValidationError,
    format_config_byte_size,
    format_config_duration,
)
from watchdog.domain.model import Evidence, Json, Observation, Outcome, SubjectListing
from watchdog.domain.reasons import build_reason_and_message
from watchdog.domain.rules import preference
from watchdog.domain.text import quote_json_value, summarize_error_text, truncate_to_single_line
from watchdog.expressions import CelExpression
from watchdog.net.body_limits import MAX_BODY_BYTES_IN_EVENT_LOOP, MAX_JSON_ELEMENTS_IN_EVENT_LOOP
from watchdog.net.command_line import redact_command
from watchdog.net.errors import ProbeError
from watchdog.net.plugin_output import CheckOutput, parse_check_output
from watchdog.net.targets import MaxBodySize
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.probes.expectations import (
    ExpressionEvaluationContext,
    ExpressionVariableValueProblem,
    build_observation_from_error,
    evaluate_expectations_to_verdict,
)

if TYPE_CHECKING:
    from watchdog.net.command_run import CommandOutput

DEFAULT_MAX_OUTPUT_BYTES = 64 << 10
WARNING_EXIT_CODE, CRITICAL_EXIT_CODE, UNKNOWN_EXIT_CODE = 1, 2, 3
"""Of plugins of Nagios; 0 is ok."""
EXIT_CODE_NAMES = {WARNING_EXIT_CODE: "warning", CRITICAL_EXIT_CODE: "critical", UNKNOWN_EXIT_CODE: "unknown"}
SHELL_EXIT_CODE_OF_FIRST_SIGNAL = 128
"""Shells add the number of the signal that killed a command."""
WARNING_SUBJECT = f"exit_code != {WARNING_EXIT_CODE}"
"""What a warning is about, among the `prefer` expressions."""
CHECK_MEASUREMENT_PREFIX = "measurements."
"""The measurements of a result have names of Watchdog's own as well."""
MAX_STORED_CHECK_MEASUREMENTS = 20
MAX_CHECK_MESSAGE_CHARS = 1_000
"""More than is stored: cutting before masking could leave part of a secret."""
_JSON_OK_PATTERN = re.compile(r"\bjson\.ok\b")
"""In an `expect` expression: the expression decides what `ok: false` means."""


class CommandSettings(ConfigModel):
    """A command. The short form is the list of its arguments alone."""

    shorthand_field: ClassVar[str] = "run"

    run: Annotated[tuple[str, ...], Field(min_length=1)]
    """The command and its arguments, as a list. No shell is involved; for one, write `[sh, -c, "..."]`. A name without
    `/` is looked up in PATH."""
    ready_within: Duration | None = None
    """How long the command may take to write its first line to standard output; default: until `timeout`."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables, added to a minimal environment (PATH, HOME and the like)."""
    cwd: Annotated[LocalFilePath, Field(validate_default=True)] = "."
    """The working directory; default: the folder of the configuration file."""
    max_output: MaxBodySize = DEFAULT_MAX_OUTPUT_BYTES
    """How much of its standard output is kept, such as `256KiB`; at most 16 MiB. Of standard error, the last 16 KiB are
    kept. What a command writes beyond that is read and discarded, up to 64 MiB."""

    @model_validator(mode="before")
    @classmethod
    def _expand_list(cls, data: Any) -> Any:
        if isinstance(data, list | tuple):
            return {"run": data}
        if isinstance(data, str):
            raise ValueError('expected a list of arguments, such as ["./check.sh", "--verbose"]')
        return data


class CommandProbe(Probe):
    """Runs a command on the machine that Watchdog runs on. Exit codes are those of Nagios: 0 is ok, 1 a warning (the
    probe is degraded), 2 critical (the run fails), 3 unknown (the run has no verdict); with any other code, the run
    fails. If an `expect` expression uses `exit_code`, the expression decides instead. Instead of text, the command can
    write a JSON object: `{"ok": false, "message": "40 s behind", "measurements": {"lag_s": 40}}`. Numbers behind `|`
    in the text, as plugins write them, are `measurements` as well. At `timeout`, the command is killed with all
    processes that it has started. Operators cannot enter this kind on the pages or through the API."""

    kind: ClassVar[str] = "command"
    example: ClassVar[str] = """
        probes:
          - name: Replication lag
            command: {run: [./checks/replication.py, --host, db.acme.example], ready_within: 5s}
            expect: ["measurements.lag_s < 60"]
            timeout: 30s
          - name: Disk
            command: [/usr/lib/nagios/plugins/check_disk, -w, "10%", -c, "5%", -p, /]
    """
    expression_variables: ClassVar[Mapping[str, str]] = {
        "exit_code": "int",
        "output": "string",
        "json": "dyn",
        "measurements": "dyn",
        "elapsed_ms": "int",
    }
    is_entered_by_hand: ClassVar[bool] = True

    command: CommandSettings
    """The command. The short form is the list of its arguments."""

    @model_validator(mode="after")
    def _validate_ready_within(self) -> Self:
        limit = self.command.ready_within
        if limit is not None and limit >= self.timeout:
            message = (
                f"expected less than `timeout` ({format_config_duration(self.timeout)}), "
                f"found {format_config_duration(limit)}"
            )
            raise MultiFieldValidationError([(("command", "ready_within"), message)])
        return self

    @property
    def target(self) -> str:
        return redact_command(self.command.run)

    @property
    def may_change_target(self) -> bool:
        return True

    @cached_property
    def _output_criteria(self) -> CommandOutputCriteria:
        return CommandOutputCriteria(self.expectation_expressions, self.preference_expressions)

    def preload(self) -> None:
        import_module("watchdog.net.command_run")

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        from watchdog.net.command_run import CommandOutput, run_command
        from watchdog.net.command_start import CommandToRun

        phase_timer, criteria = context.phase_timer, self._output_criteria
        output = CommandOutput(self.command.max_output)
        command = CommandToRun(self.command.run, self.command.env, self.command.cwd)
        phase_timer.describe_response = output.build_evidence
        try:
            await run_command(command, output, phase_timer, self.command.ready_within)
            observation = await context.network.run_cpu_work_inline_or_in_worker(
                phase_timer,
                build_command_observation,
                output,
                criteria,
                context.slot,
                in_worker=_needs_worker_process(output, loops=criteria.has_looping_expression),
            )
        except ProbeError as error:
            observation = build_observation_from_error(error, phase_timer)
            return observation if "run" in observation.phases else replace(observation, duration=None)
        return replace(observation, phases=phase_timer.phase_durations_ms)


class CommandOutputCriteria(NamedTuple):
    """What is expected of a command."""

    expectation_expressions: tuple[CelExpression, ...]
    preference_expressions: tuple[CelExpression, ...]

    @property
    def judges_exit_code(self) -> bool:
        """Whether the exit code has its usual meaning, because no expectation decides about it."""
        return not any("exit_code" in expression.used_variables for expression in self.expectation_expressions)

    @property
    def judges_reported_ok(self) -> bool:
        return not any(_JSON_OK_PATTERN.search(expression.text) for expression in self.expectation_expressions)

    @property
    def has_looping_expression(self) -> bool:
        """Whether an expression is evaluated for each element of the output."""
        return any(expression.loops for expression in (*self.expectation_expressions, *self.preference_expressions))


def _needs_worker_process(output: CommandOutput, *, loops: bool) -> bool:
    """Whether the output must not be judged in the event loop."""
    element_count = sum(output.stdout.count(character) for character in (b",", b"[", b"{"))
    return len(output.stdout) > MAX_BODY_BYTES_IN_EVENT_LOOP or (
        loops and element_count > MAX_JSON_ELEMENTS_IN_EVENT_LOOP
    )


class _ExitVerdict(NamedTuple):
    """What the exit code and `ok` come to, without expectations."""

    outcome: Outcome
    reason: str = ""
    message: str = ""


def build_command_observation(output: CommandOutput, criteria: CommandOutputCriteria, slot: int) -> Observation:
    """The observation, without phases."""
    parsed = parse_check_output(output.stdout_text)
    context = _build_expression_context(output, parsed)
    by_exit = _judge_exit(output, parsed, criteria)
    verdict = evaluate_expectations_to_verdict(
        context, criteria.expectation_expressions, criteria.preference_expressions
    )
    outcome, reason, message = verdict.outcome, verdict.reason, verdict.message
    if by_exit.outcome is not Outcome.PASS:
        broken = message if outcome is Outcome.FAIL and by_exit.outcome is Outcome.FAIL else ""
        outcome, reason, message = by_exit.outcome, by_exit.reason, "; ".join(filter(None, [by_exit.message, broken]))
    evidence = output.build_evidence()
    facts = _build_command_evidence_facts(output, parsed) | dict(evidence.facts)
    return Observation(
        outcome,
        reason,
        message,
        duration=output.elapsed_ms,
        measurements={
            f"{CHECK_MEASUREMENT_PREFIX}{name}": value
            for name, value in list(parsed.measurements.items())[:MAX_STORED_CHECK_MEASUREMENTS]
        },
        listings=_list_preferences(context, criteria, output, parsed, slot) if outcome is Outcome.PASS else {},
        evidence=Evidence(facts | ({"expect": verdict.evidence} if verdict.evidence else {}), evidence.excerpt),
    )


def _build_expression_context(output: CommandOutput, parsed: CheckOutput) -> ExpressionEvaluationContext:
    code = output.returncode
    variables: dict[str, Json] = {
        "exit_code": code if code >= 0 else SHELL_EXIT_CODE_OF_FIRST_SIGNAL - code,
        "measurements": parsed.measurements,
        "elapsed_ms": round(output.elapsed_ms),
    }
    templates = {"exit_code": "exit code {}"}
    if output.is_stdout_cut:
        limit = format_config_byte_size(output.max_stdout_bytes)
        cut = ExpressionVariableValueProblem(*build_reason_and_message("command.output_cut", limit=limit))
        unavailable, beginnings = dict.fromkeys(("output", "json"), cut), {"output": output.stdout_text}
        return ExpressionEvaluationContext(variables, unavailable, templates, beginnings)
    malformed = {}
    if parsed.json_problem:
        problem = build_reason_and_message("command.output_not_json", problem=parsed.json_problem)
        malformed["json"] = ExpressionVariableValueProblem(*problem)
    variables |= {"output": output.stdout_text, "json": parsed.json}
    return ExpressionEvaluationContext(variables, value_templates=templates, malformed_variables=malformed)


def _judge_exit(output: CommandOutput, parsed: CheckOutput, criteria: CommandOutputCriteria) -> _ExitVerdict:
    code = output.returncode
    if code < 0:
        return _ExitVerdict(Outcome.FAIL, *_build_killed_reason_and_message(-code))
    message = _describe_exit_code(output, parsed)
    if criteria.judges_exit_code:
        match code:
            case 0 | 1:
                pass
            case 2:
                return _ExitVerdict(Outcome.FAIL, "command.critical", message)
            case 3:
                return _ExitVerdict(Outcome.ERROR, "command.unknown", message)
            case _:
                return _ExitVerdict(Outcome.FAIL, "command.failed", message)
    if not isinstance(parsed.reported_ok, bool | None):
        value = quote_json_value(parsed.reported_ok, 60)
        return _ExitVerdict(Outcome.FAIL, *build_reason_and_message("command.result_invalid", value=value))
    if parsed.reported_ok is False and criteria.judges_reported_ok:
        message = _put_message_on_line(parsed) or "the command reports ok: false"
        return _ExitVerdict(Outcome.FAIL, "command.reported_failure", message)
    return _ExitVerdict(Outcome.PASS)


def _put_message_on_line(parsed: CheckOutput) -> str:
    return truncate_to_single_line(parsed.message, MAX_CHECK_MESSAGE_CHARS)


def _build_killed_reason_and_message(number: int) -> tuple[str, str]:
    import signal

    return build_reason_and_message("command.killed", signal=f"{number} ({signal.strsignal(number) or 'unknown'})")


def _describe_exit_code(output: CommandOutput, parsed: CheckOutput) -> str:
    """ "exit code 2 (critical): DISK CRITICAL - 12 MiB free"; of a command that has written nothing, the end of its
    standard error."""
    code = output.returncode
    name = f" ({EXIT_CODE_NAMES[code]})" if code in EXIT_CODE_NAMES else ""
    text = _put_message_on_line(parsed) or summarize_error_text(output.stderr_text) or "no output"
    return f"exit code {code}{name}: {text}"


def _list_preferences(
    context: ExpressionEvaluationContext,
    criteria: CommandOutputCriteria,
    output: CommandOutput,
    parsed: CheckOutput,
    slot: int,
) -> dict[str, SubjectListing]:
    """The `prefer` expressions, and whether the command warns."""
    listings = context.evaluate_all_preferences_as_listing_by_rule(criteria.preference_expressions, slot)
    if not criteria.judges_exit_code:
        return listings
    warns = output.returncode == WARNING_EXIT_CODE
    problem = _describe_exit_code(output, parsed) if warns else ""
    result = preference.PreferenceExpressionResult(problem, "command.warning" if warns else "")
    others = listings[preference.ALERT_RULE_NAME].subjects if listings else {}
    return {preference.ALERT_RULE_NAME: SubjectListing(slot, {**others, WARNING_SUBJECT: result})}


def _build_command_evidence_facts(output: CommandOutput, parsed: CheckOutput) -> dict[str, Json]:
    facts: dict[str, Json] = {"exit_code": output.returncode, "elapsed_ms": round(output.elapsed_ms)}
    return facts | ({"measurements": parsed.measurements} if parsed.measurements else {})
