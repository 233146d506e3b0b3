"""The forms of acts: what was entered, why it was refused, and what may be entered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote

from watchdog.domain.model import ProbeInfo
from watchdog.store.read.selections import load_active_probe_infos
from watchdog.store.read.status import Connection, WatchdogStatus

MAX_SUGGESTIONS = 500
"""In each list of a page."""


@dataclass(frozen=True, slots=True)
class ActForm:
    """What was entered, and why it was refused. An empty form was not sent yet."""

    values: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    """A sentence; empty: it was not refused."""
    problem_field: str = ""
    """The field that the problem is about; empty: the whole form."""

    def get_value(self, name: str) -> str:
        """Empty if nothing was entered."""
        return self.values.get(name, "")


EMPTY_ACT_FORM = ActForm()


class ActFormButtonWithPath(NamedTuple):
    """A button of a form, and the address that it sends the form to."""

    label: str
    path: str


@dataclass(frozen=True, slots=True)
class ActFormPage:
    """A form alone, to be corrected."""

    service_status: WatchdogStatus
    title: str
    back_path: str
    back_label: str
    buttons: tuple[ActFormButtonWithPath, ...]
    form: ActForm


class ProbeSelectionSuggestions(NamedTuple):
    """What probes have at present, each in alphabetical order."""

    names: tuple[str, ...]
    groups: tuple[str, ...]
    tags: tuple[str, ...]
    kinds: tuple[str, ...]


def load_probe_selection_suggestions(connection: Connection) -> ProbeSelectionSuggestions:
    return build_probe_selection_suggestions(load_active_probe_infos(connection).values())


def build_probe_selection_suggestions(probes: Iterable[ProbeInfo]) -> ProbeSelectionSuggestions:
    infos = list(probes)
    return ProbeSelectionSuggestions(
        names=_alphabetize_suggestions(info.name for info in infos),
        groups=_alphabetize_suggestions(info.group for info in infos),
        tags=_alphabetize_suggestions(tag for info in infos for tag in info.tags),
        kinds=_alphabetize_suggestions(info.kind for info in infos),
    )


def _alphabetize_suggestions(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*texts} - {""}, key=str.casefold)[:MAX_SUGGESTIONS])


def list_timed_act_buttons_of_probe(probe_id: str, *, can_pause: bool) -> tuple[ActFormButtonWithPath, ...]:
    path = f"/probes/{quote(probe_id, safe='')}"
    buttons = (
        ActFormButtonWithPath("Silence", f"{path}/silence"),
        ActFormButtonWithPath("Maintenance", f"{path}/maintenance"),
    )
    return (*buttons, ActFormButtonWithPath("Pause", f"{path}/pause")) if can_pause else buttons


def list_timed_act_buttons_of_incident(incident_id: str) -> tuple[ActFormButtonWithPath, ...]:
    return (ActFormButtonWithPath("Silence", f"/incidents/{incident_id}/silence"),)
