"""The fields that select probes and incidents, in routes, maintenance windows and the status page."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from watchdog.config.problems import build_did_you_mean_suffix
from watchdog.config_types import STRING_OR_LIST_SCHEMA, ConfigModel, SingleLineText, wrap_string_in_list
from watchdog.domain import routing
from watchdog.domain.model import Severity
from watchdog.domain.reasons import find_reason_pattern_problem
from watchdog.domain.rules import service
from watchdog.probes import PROBE_KINDS


def _validate_probe_kind(name: str) -> str:
    kinds = (*PROBE_KINDS, service.WATCHDOG_SELF_PROBE_KIND)
    if name not in kinds:
        hint = build_did_you_mean_suffix(name, kinds) or f"; probe kinds: {', '.join(kinds)}"
        raise ValueError(f"unknown probe kind '{name}'{hint}")
    return name


class ProbeMatchSettings(ConfigModel):
    """Selects probes. A probe matches if it fits every field that is set; if no field is set, every probe matches."""

    severity: Severity | None = None
    """The `alert.severity` of the probe."""
    tags: tuple[SingleLineText, ...] = ()
    """Tags; the probe must have all of them."""
    group: SingleLineText = ""
    """The `group` of the probe."""
    kind: Annotated[
        str,
        AfterValidator(_validate_probe_kind),
        Field(json_schema_extra={"enum": [*PROBE_KINDS, service.WATCHDOG_SELF_PROBE_KIND]}),
    ] = ""
    """The kind of the probe. `service` is Watchdog itself."""
    probe: SingleLineText = ""
    """The id or name of a single probe."""

    def to_probe_matcher(self) -> routing.ProbeMatcher:
        return routing.ProbeMatcher(self.severity, frozenset(self.tags), self.group, self.kind, self.probe)


def _validate_route_match_reason_pattern(pattern: str) -> str:
    if problem := find_reason_pattern_problem(pattern):
        raise ValueError(problem)
    return pattern


class IncidentMatchSettings(ProbeMatchSettings):
    """Selects incidents. An incident matches if it fits every field that is set; if no field is
    set, every incident matches."""

    reason: Annotated[
        tuple[Annotated[str, AfterValidator(_validate_route_match_reason_pattern)], ...],
        BeforeValidator(wrap_string_in_list),
        STRING_OR_LIST_SCHEMA,
    ] = ()
    """The reason of the incident, one or a list (docs/reasons.md): a reason such as `tls.expired`, a family such as
    `tls`, or a class of statuses such as `http.5xx`."""
