"""The section `maintenance` of the configuration."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import model_validator

from watchdog.config.matchers import ProbeMatchSettings
from watchdog.config_types import (
    ConfigModel,
    Duration,
    MultiFieldValidationError,
    SingleLineText,
    create_duration_bounds_validator,
    format_config_duration,
)
from watchdog.domain.maintenance_windows import (
    ConfiguredMaintenanceWindow,
    find_shortest_cron_interval_ms,
    parse_local_start_to_epoch_ms,
)
from watchdog.domain.schedule import CronSchedule, CronScheduleError


class MaintenanceWindowSettings(ConfigModel):
    """A period of work on the targets of probes. Their runs go on, but no incident of theirs opens, and their uptime
    leaves it out. A window takes place once (`start`) or recurs (`schedule`)."""

    name: SingleLineText
    """A unique name. The status page shows it."""
    start: SingleLineText = ""
    """When it starts, as a local time such as `2026-12-01T22:00`."""
    schedule: SingleLineText = ""
    """When it starts, as a cron expression."""
    timezone: SingleLineText = "UTC"
    """The time zone of `start` or `schedule`, such as `Europe/Berlin`."""
    duration: Annotated[Duration, create_duration_bounds_validator("1m", "30d")]
    """How long it lasts. A window must end before it starts again."""
    match: ProbeMatchSettings = ProbeMatchSettings()
    """The probes; default: all. Watchdog itself is selected only by `probe: watchdog` or `kind: service`."""

    @model_validator(mode="after")
    def _validate_start(self) -> Self:
        if bool(self.start) == bool(self.schedule):
            raise ValueError("state either `start`, for a window that takes place once, or `schedule`")
        try:
            cron_schedule = CronSchedule(self.schedule or "@daily", self.timezone)
        except CronScheduleError as e:
            field = "timezone" if str(e).startswith("unknown time zone") else "schedule"
            raise MultiFieldValidationError([((field,), str(e))]) from None
        if self.start:
            try:
                parse_local_start_to_epoch_ms(self.start, self.timezone)
            except ValueError as e:
                raise MultiFieldValidationError([(("start",), str(e))]) from None
        elif (shortest := find_shortest_cron_interval_ms(cron_schedule)) <= self.duration:
            message = f"the schedule starts the window again after {format_config_duration(shortest)}: shorten it"
            raise MultiFieldValidationError([(("duration",), message)])
        return self

    def to_configured_window(self) -> ConfiguredMaintenanceWindow:
        return ConfiguredMaintenanceWindow(
            self.name,
            self.match.to_probe_matcher(),
            self.duration,
            parse_local_start_to_epoch_ms(self.start, self.timezone) if self.start else None,
            CronSchedule(self.schedule, self.timezone) if self.schedule else None,
        )
