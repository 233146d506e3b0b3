"""What a card is, and what it is built from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from watchdog.domain.formatting import DAY_MS, HOUR_MS, format_duration
from watchdog.domain.model import Outcome, ProbeResult
from watchdog.service.check_in_addresses import CheckInAddress
from watchdog.store.read import history
from watchdog.store.read.jobs import NewestJobSourceListing, load_newest_job_source_listings
from watchdog.store.read.measured_runs import MeasuredRun, list_measured_runs, list_sampled_runs
from watchdog.store.read.rollups import HourlyRollup, list_hourly_rollups
from watchdog.store.read.status import Connection, ProbeStatus, ResultRow
from watchdog.web.chart_window import (
    MAX_CHART_LENGTH_OF_RUNS_MS,
    ChartUrlQuery,
    ChartWindow,
    build_chart_window_of_runs,
    build_chart_window_of_whole_hours,
    choose_shortest_chart_window_holding_runs,
)
from watchdog.web.latency_points import add_newest_runs_to_hours
from watchdog.web.times import render_timestamp


@dataclass(frozen=True)
class ProbeCardLoadContext:
    """One probe as of `now`, and the connection through which its card reads more."""

    connection: Connection
    status: ProbeStatus
    runs: Sequence[ResultRow]
    """The results of the last day, oldest first."""
    now: int
    chart_query: ChartUrlQuery
    check_in_address: CheckInAddress | None = None
    """Of a heartbeat in the configuration of this process, as the person may see it."""

    @property
    def probe_database_id(self) -> int:
        return self.status.probe.database_id

    @cached_property
    def chart_runs(self) -> Sequence[ResultRow]:
        """The runs that the charts show, oldest first; none if they show more than a day."""
        period = self.chart_query.find_period(self.now)
        if period is None:
            return self.runs
        start, stop = period
        if stop - start > MAX_CHART_LENGTH_OF_RUNS_MS:
            return ()
        if start >= self.now - DAY_MS:
            return [run for run in self.runs if start <= run.slot < stop]
        return history.list_results_between(self.connection, self.probe_database_id, start, stop)

    @cached_property
    def is_chart_of_runs(self) -> bool:
        """Whether the charts show `chart_runs`. Of more than a day, and where a run that is rolled up is no longer
        stored, they show `hourly_rollups_of_chart`."""
        period = self.chart_query.find_period(self.now)
        if period is None:
            return True
        start, stop = period
        if stop - start > MAX_CHART_LENGTH_OF_RUNS_MS:
            return False
        probe = self.probe_database_id
        hours = list_hourly_rollups(self.connection, probe, start // HOUR_MS * HOUR_MS, stop)
        rolled_up_count = sum(part.passed + part.failed for part in hours)
        if not rolled_up_count:
            return True
        first, end = hours[0].hour, hours[-1].hour + HOUR_MS
        return history.count_judged_results_between(self.connection, probe, first, end) >= rolled_up_count

    @cached_property
    def chart_window(self) -> ChartWindow:
        """The same for all charts of the page."""
        period = self.chart_query.find_period(self.now)
        if period is None:
            return choose_shortest_chart_window_holding_runs(self.runs, self.now)
        if self.is_chart_of_runs:
            return build_chart_window_of_runs(self.chart_runs, *period)
        return build_chart_window_of_whole_hours(*period, self.now)

    @cached_property
    def hourly_rollups_of_chart(self) -> Sequence[HourlyRollup]:
        """The hours that the charts show, oldest first, then each run that is not rolled up yet."""
        window = self.chart_window
        hours = list_hourly_rollups(self.connection, self.probe_database_id, window.start, window.stop)
        return add_newest_runs_to_hours(hours, self.runs, window)

    def list_measured_chart_runs(self) -> list[MeasuredRun]:
        """The runs of the charts with what they measured, oldest first; of hours, a sample of them."""
        window, probe = self.chart_window, self.probe_database_id
        if self.is_chart_of_runs:
            end = window.stop + (window.stop == self.now)  # a run of this instant is among the newest
            return list_measured_runs(self.connection, probe, window.start, end)
        return list_sampled_runs(self.connection, probe, window.start, window.stop, window.sample_interval_ms)

    def render_chart_period(self) -> Markup:
        """For titles: "last 7 days"."""
        return self.chart_query.render_period_title(self.chart_window, self.now)

    def render_sample_note(self, runs: Sequence[MeasuredRun]) -> Markup:
        """Which of its runs a chart of `list_measured_chart_runs` shows; empty: all."""
        if self.is_chart_of_runs:
            return Markup()
        window = self.chart_window
        note = Markup("Values come from at most one run per {}, and from runs with which incidents began.").format(
            format_duration(window.sample_interval_ms)
        )
        # The runs that passed show where stored runs begin: the first failed run of an incident is stored for longer.
        first = next((run.slot for run in runs if run.outcome is Outcome.PASS), None)
        first_hour = next((part.hour for part in self.hourly_rollups_of_chart if part.passed), None)
        if first_hour is not None and first is None:
            note += " None of them passed."
        elif first_hour is not None and first is not None and first - first_hour > window.step:
            note += Markup(" All runs are stored from {} on.").format(render_timestamp(first, self.now))
        return note

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
