"""Where the jobs of heartbeats check in, by the running configuration: the store holds tokens as digests only."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from watchdog.config.models import Config
from watchdog.config_values import build_check_in_url
from watchdog.net.redact import MASK_PLACEHOLDER
from watchdog.probes import HeartbeatProbe


@dataclass(frozen=True, slots=True)
class CheckInAddress:
    """The check-in URL of one heartbeat, and when its job is expected."""

    url: str = field(repr=False)
    """Contains the token, which is a secret."""
    masked_url: str
    """With `•••` in place of the token."""
    is_of_this_machine: bool
    """No `public_url` is configured: only this machine reaches the URL."""
    cron: str = ""
    """The schedule as a cron expression; empty: it is an interval."""
    timezone: str = "UTC"
    """Of the cron expression."""
    interval_ms: int | None = None

    @property
    def is_masked(self) -> bool:
        return self.url == self.masked_url

    def mask(self) -> CheckInAddress:
        """The same address for people who may not check in: without the token."""
        return replace(self, url=self.masked_url)


def map_heartbeats_to_check_in_addresses(config: Config) -> dict[str, CheckInAddress]:
    """By probe id, with the tokens."""
    listen, public_url = config.server.listen, config.server.public_url

    def build_check_in_address(probe: HeartbeatProbe) -> CheckInAddress:
        settings = probe.heartbeat
        return CheckInAddress(
            url=build_check_in_url(listen, public_url, settings.token.get_secret_value()),
            masked_url=build_check_in_url(listen, public_url, MASK_PLACEHOLDER),
            is_of_this_machine=not public_url,
            cron=settings.schedule or "",
            timezone=settings.timezone,
            interval_ms=settings.every,
        )

    return {probe.id: build_check_in_address(probe) for probe in config.probes if isinstance(probe, HeartbeatProbe)}
