"""The seam of remedies: what is done about a named finding, once, and how that went. Whether it may be done is decided
elsewhere."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import ClassVar, NamedTuple

from watchdog.config_types import ConfigModel, FieldPath
from watchdog.domain.model import Json
from watchdog.queues.base import ConnectContext

RUN_ID_PARAMETER = "id"
"""The parameter that stands for the run under way."""


class RemediationContext(NamedTuple):
    """What a remedy is for: the values of its parameters. Texts of jobs and tasks are untrusted."""

    id: str
    """By what the source knows the run that is under way; empty: there is none."""
    subject: str
    """The job or the task; empty: the probe itself."""
    reason: str
    probe: str
    """The probe's key."""
    incident: str


PARAMETER_NAMES = RemediationContext._fields


class RemediationAction(ConfigModel):
    """One way to do something, as configured; a subclass a kind."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def used_parameters(self) -> frozenset[str]:
        """Those of PARAMETERS that it names."""

    @property
    @abstractmethod
    def description(self) -> str:
        """What it does, in words: "POST https://...", safe to show once it is masked."""

    def prepare(self) -> None:
        """Load what it needs, where that takes long."""
        return

    @abstractmethod
    async def execute(self, context: RemediationContext, connect_context: ConnectContext, *, dry_run: bool) -> str:
        """Do it, once; `dry`: find out what it would do, and leave everything as it is. Returns what came of it, in
        words. Raises Fault."""


def find_placeholders(template: Json) -> frozenset[str]:
    """The names that stand in the texts of a template as `{name}`, those of keys left out."""
    if isinstance(template, str):
        return frozenset(re.findall(r"{([a-z_]+)}", template))
    below = template.values() if isinstance(template, dict) else template if isinstance(template, list) else ()
    return frozenset(name for one in below for name in find_placeholders(one))


def validate_placeholders(template: Json, *where: str) -> list[tuple[FieldPath, str]]:
    """The errors of a field at the path `where`, for FieldValidationError."""
    unknown = sorted(find_placeholders(template) - set(PARAMETER_NAMES))
    valid = ", ".join(f"{{{name}}}" for name in PARAMETER_NAMES)
    return [(where, f"unknown parameter {{{name}}}; valid parameters: {valid}") for name in unknown[:1]]
