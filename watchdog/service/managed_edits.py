"""What a person wants to change in the managed file, what it would lead to, and why it is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from watchdog.config.load import LoadedConfig
from watchdog.config.managed_entry import MAX_PROBE_YAML_CHARS, ProbeTextProblem, mask_probe_text
from watchdog.config.managed_file import ManagedFileText, ManagedProbeEntry
from watchdog.config.problems import ConfigProblem
from watchdog.config.safe_problems import describe_config_problems_without_values
from watchdog.config.yaml_tree import YamlNode
from watchdog.config_values import slugify
from watchdog.probes.base import Probe
from watchdog.service.config_reload import ConfigReloadOutcome


class ManagedProbeRefusalReason(StrEnum):
    """Why a change is refused, for programs."""

    UNAVAILABLE = "unavailable"
    """There is no managed file, or it cannot be read, written or edited."""
    NOT_FOUND = "not_found"
    FILE_CHANGED = "changed"
    """The file has changed since it was read."""
    INVALID = "invalid"
    BUSY = "busy"


class ManagedProbeRefusedError(Exception):
    """A change is refused; nothing was stored. The message states why, and what to do."""

    def __init__(self, reason: ManagedProbeRefusalReason, message: str, problems: tuple[ProbeTextProblem, ...] = ()):
        super().__init__(message)
        self.reason, self.problems = reason, problems


class ManagedProbe(NamedTuple):
    """A probe of the managed file, as it may be shown."""

    id: str
    name: str
    line: int
    yaml: str
    """Its text; secrets are `•••`. Empty: it shares values with other parts of the file, and is edited by hand."""


class ManagedProbes(NamedTuple):
    """The managed file, as it may be shown."""

    file: str
    """Its path; empty: there is none."""
    version: str
    probes: tuple[ManagedProbe, ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeEdit:
    """What a person wants to change."""

    yaml: str = ""
    """The new text of the probe. Where it holds `•••`, the secret of the former text stays."""
    id: str = ""
    """The probe that is changed or deleted; empty: another one is added."""
    is_deletion: bool = False
    version: str = ""
    """Of the file as the person has read it; empty: any."""
    copy_of: str = ""
    """A probe whose secrets the text may refer to, if another one is added."""


class CheckedProbeEdit(NamedTuple):
    """A change that may be saved."""

    probe: Probe | None
    """None: it is deleted."""
    probe_id: str
    loaded_config: LoadedConfig
    """With the change. Its mask also masks the secrets of the running configuration."""
    diff: str
    """Of the lines of the probe. Secrets are masked."""
    warnings: tuple[str, ...]
    """About the probe."""
    file: Path
    before: bytes
    after: bytes


class SavedProbeEdit(NamedTuple):
    checked: CheckedProbeEdit
    version: str
    """Of the new file."""
    reload: ConfigReloadOutcome | None
    """None: the configuration is reloaded on a signal only."""


def build_probe_text_problem_from_config_problem(
    problem: ConfigProblem, prefix: str, mask: Callable[[str], str], has_variables: bool
) -> ProbeTextProblem:
    path = problem.path.removeprefix(prefix).lstrip(".")
    if has_variables:  # its values may be repeated in any message
        text = describe_config_problems_without_values([problem._replace(path="", line=0)], mask)
        return ProbeTextProblem(path, text.partition(": ")[2])
    return ProbeTextProblem(path, problem.message)


def describe_warnings_of_probe(warnings: Iterable[ConfigProblem], file: str, index: int | None) -> tuple[str, ...]:
    """Those about one probe of the file."""
    own = f"probes.{index}."
    return tuple(
        str(ProbeTextProblem(f"{w.path}.".removeprefix(own).rstrip("."), w.message))
        for w in warnings
        if w.file == file and f"{w.path}.".startswith(own)
    )


def find_identity_problems(
    node: YamlNode, id: str, text: ManagedFileText, entry: ManagedProbeEntry | None
) -> Iterator[ProbeTextProblem]:
    """A probe keeps its id, and no other one in the file has its name. The configuration's other files are compared
    when it is loaded."""
    name, own_id = (node.mapping_entries.get(field) for field in ("name", "id"))
    name_text = "" if name is None else str(name.raw_value)
    new_id = slugify(name_text) if own_id is None else str(own_id.raw_value)
    if id and name is not None and new_id != id:
        yield ProbeTextProblem("id", f"the probe would lose its history: set `id: {id}`, or add another probe")
    for other in text.entries:
        if (entry is None or other.index != entry.index) and name_text and other.name == name_text:
            yield ProbeTextProblem(
                "name", f"duplicate name: another probe uses it on line {other.line} of the managed file"
            )


def find_managed_entry_or_refuse(text: ManagedFileText, id: str) -> ManagedProbeEntry:
    entry = next((entry for entry in text.entries if entry.id == id), None)
    if entry is None:
        message = f"no probe in the managed file has the id {id}; other probes are edited in their own files"
        raise ManagedProbeRefusedError(ManagedProbeRefusalReason.NOT_FOUND, message)
    return entry


def build_invalid_probe_error(problems: Sequence[ProbeTextProblem]) -> ManagedProbeRefusedError:
    unique = tuple(dict.fromkeys(problems))
    return ManagedProbeRefusedError(ManagedProbeRefusalReason.INVALID, f"the probe is not valid: {unique[0]}", unique)


def build_masked_probe_diff(before: str, after: str, file: str, line: int) -> str:
    """Of the texts of a probe, which starts at this line of the file."""
    old, new = (mask_probe_text(text).split("\n") if text else [] for text in (before, after))
    place = f"{file}:{line}" if line else file
    diff = "\n".join(unified_diff(old, new, place, place, n=MAX_PROBE_YAML_CHARS, lineterm=""))
    return diff or ("" if before == after else "Only a secret changes. Secrets are not shown.")
