"""The base of all remediation kinds: run one action for one finding, and describe the result. The service decides when
it runs."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import ClassVar, NamedTuple

from watchdog.config_types import ConfigModel, FieldPath
from watchdog.domain.model import Json
from watchdog.queues.base import QueueConnectContext

JOB_RUN_ID_REMEDIATION_PARAMETER = "id"
"""The parameter with the id of the current run of a job."""


class RemediationParameters(NamedTuple):
    """The finding that a remediation runs for: the values of its parameters. The names of jobs are untrusted text."""

    id: str
    """The id of the current run of the job; empty: there is none."""
    subject: str
    """The name of the job or task; empty: the finding is about the probe itself."""
    reason: str
    probe: str
    """The id of the probe."""
    incident: str


REMEDIATION_PARAMETER_NAMES = RemediationParameters._fields


class RemediationAction(ConfigModel):
    """A configured action. Each kind is a subclass."""

    kind: ClassVar[str]
    example: ClassVar[str]
    """A configuration that uses the kind, for the reference page."""

    @property
    @abstractmethod
    def used_parameters(self) -> frozenset[str]:
        """The parameters (PARAMETER_NAMES) that it uses."""

    @property
    @abstractmethod
    def description(self) -> str:
        """What it does, such as "POST https://...". Safe to show once masked."""

    def preload(self) -> None:
        """Import slow modules before the first run."""
        return

    @abstractmethod
    async def execute(
        self, context: RemediationParameters, connect_context: QueueConnectContext, *, dry_run: bool
    ) -> str:
        """Run the action once and describe its result. `dry_run`: determine what it would do, without changing it.
        Raises ProbeError."""


def find_remediation_placeholders(template: Json) -> frozenset[str]:
    """The names of the placeholders `{name}` in the texts of a template. Keys of mappings are ignored."""
    if isinstance(template, str):
        return frozenset(re.findall(r"{([a-z_]+)}", template))
    items = template.values() if isinstance(template, dict) else template if isinstance(template, list) else ()
    return frozenset(name for item in items for name in find_remediation_placeholders(item))


def find_remediation_placeholder_errors(template: Json, *where: str) -> list[tuple[FieldPath, str]]:
    """The errors of a field at the path `where`, for MultiFieldValidationError."""
    unknown = sorted(find_remediation_placeholders(template) - set(REMEDIATION_PARAMETER_NAMES))
    valid = ", ".join(f"{{{name}}}" for name in REMEDIATION_PARAMETER_NAMES)
    return [(where, f"unknown parameter {{{name}}}; valid parameters: {valid}") for name in unknown[:1]]
