"""What a card is, and what it is built from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from watchdog.domain.model import ProbeResult
from watchdog.store.read import history
from watchdog.store.read.jobs import NewestJobSourceListing, load_newest_job_source_listings
from watchdog.store.read.status import Connection, ProbeStatus, ResultRow
from watchdog.web.chart_window import ChartUrlQuery


@dataclass(frozen=True)
class ProbeCardLoadContext:
    """One probe as of `now`, and the connection through which its card reads more."""

    connection: Connection
    status: ProbeStatus
    runs: Sequence[ResultRow]
    """The results of the last day, oldest first."""
    now: int
    chart_query: ChartUrlQuery

    @property
    def probe_database_id(self) -> int:
        return self.status.probe.database_id

    @cached_property
    def newest_job_source_listing(self) -> NewestJobSourceListing | None:
        """The newest list of jobs or tasks that the probe reported."""
        return load_newest_job_source_listings(self.connection, [self.probe_database_id]).get(self.probe_database_id)

    def load_results_of_slots(self, slots: Sequence[int]) -> dict[int, ProbeResult]:
        """Those of the probe's results that are stored, by slot."""
        details = history.load_results_with_evidence(self.connection, self.probe_database_id, slots)
        return {slot: detail.result for slot, detail in details.items()}


@dataclass(frozen=True, slots=True)
class ProbePageCardType:
    """A section of a probe's page."""

    template: str
    """Below templates/pages. It renders the card as `card`."""
    load: Callable[[ProbeCardLoadContext], object | None]
    """Builds the card; None: there is nothing to show."""
    jobs_section_id: str = ""
    """The id of its section that lists the probe's jobs; empty: it lists none."""


@dataclass(frozen=True, slots=True)
class LoadedProbeCard:
    template: str
    card: object
