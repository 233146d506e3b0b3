"""A configured probe as the store registers, schedules and evaluates it."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.domain.model import ProbeInfo
from watchdog.domain.rules import AlertPolicy
from watchdog.domain.schedule import Schedule


@dataclass(frozen=True, slots=True)
class RegisteredProbe:
    """Before registration its database id is 0."""

    policy: AlertPolicy
    schedule: Schedule
    config_yaml: str
    """The configuration as written, without the values of variables."""

    @property
    def info(self) -> ProbeInfo:
        return self.policy.probe
