"""The page that asks before an act that is hard to undo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from watchdog.domain.formatting import format_count_with_noun
from watchdog.domain.model import ProbeInfo
from watchdog.store.read.metrics import CANARY_PROBE_KIND
from watchdog.store.read.status import WatchdogStatus
from watchdog.web.times import render_timestamp_with_zone

CONFIRMATION_FIELD = "confirmed"
CONFIRMED_VALUE = "yes"


class ActConfirmation(NamedTuple):
    """What is asked, and what the act leads to."""

    title: str
    text: str
    """Sentences."""
    button_label: str
    cancel_path: str


@dataclass(frozen=True, slots=True)
class ActConfirmationPage:
    """The form as it was sent, to be sent once more."""

    service_status: WatchdogStatus
    confirmation: ActConfirmation
    path: str
    fields: Mapping[str, str]


def build_silence_end_confirmation(silence_id: str, incident_count: int) -> ActConfirmation:
    """`incident_count`: how many are sent when it ends."""
    incidents = format_count_with_noun(incident_count, "open incident")
    text = f"It holds back the notifications of {incidents}. If you end it, they are sent at once."
    return ActConfirmation(f"End the silence {silence_id}?", text, "End it", "/silences")


def build_maintenance_end_confirmation(window_id: str, probe_count: int) -> ActConfirmation:
    """`probe_count`: how many have problems that open no incident during maintenance."""
    probes = format_count_with_noun(probe_count, "probe")
    verb = "has" if probe_count == 1 else "have"
    text = f"{probes} in it {verb} problems. If you end it, their incidents open with the next bad run."
    return ActConfirmation(f"End the maintenance {window_id}?", text, "End it", "/maintenance")


def build_resending_confirmation(incident_id: str, destination: str, address: str, count: int) -> ActConfirmation:
    """`count`: of the notifications that are sent again. `address`: of the destination; empty: it is not known."""
    notifications = format_count_with_noun(count, "notification")
    receiver = f"{destination} ({address})" if address else destination or "every destination"
    text = f"{receiver} gets {notifications} of this incident that could not be delivered."
    return ActConfirmation(
        f"Send again to {destination or 'every destination'}?", text, "Send again", f"/incidents/{incident_id}"
    )


def build_silence_everything_confirmation(ends_at: int, now: int) -> ActConfirmation:
    end = render_timestamp_with_zone(ends_at, now)
    text = Markup("No one is notified of any incident, except Watchdog's own faults, until {}.").format(end)
    return ActConfirmation("Silence every incident?", text, "Silence everything", "/silences")


def build_maintenance_everything_confirmation(starts_at: int | None, ends_at: int, now: int) -> ActConfirmation:
    """`starts_at`: None: now."""
    end = render_timestamp_with_zone(ends_at, now)
    start = "From now" if starts_at is None else Markup("From {}").format(render_timestamp_with_zone(starts_at, now))
    text = Markup("{} until {}, no incident of any probe opens, except Watchdog's own faults.").format(start, end)
    return ActConfirmation("Put every probe into maintenance?", text, "Begin", "/maintenance")


def build_pause_without_end_confirmation(probe: ProbeInfo, path: str) -> ActConfirmation:
    text = "The probe does not run, and nothing about it is reported, until someone resumes it."
    return ActConfirmation(f"Pause {probe.name} without an end?", text, "Pause", path)


def build_run_with_effect_confirmation(probe: ProbeInfo, path: str) -> ActConfirmation:
    what = "a test job through the queue" if probe.kind == CANARY_PROBE_KIND else "a request that may change something"
    text = f"The run sends {what}: {probe.target}." if probe.target else f"The run sends {what}."
    return ActConfirmation(f"Run {probe.name} now?", text, "Run now", path)
