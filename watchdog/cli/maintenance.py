"""`watchdog maintenance`: what is in maintenance, now and next; and how people begin and end it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchdog.cli.acts import (
    ActCommentOption,
    ActDurationOption,
    ActEndOption,
    MatchedGroupOption,
    MatchedKindOption,
    MatchedProbeOption,
    MatchedSeverityOption,
    MatchedTagsOption,
    open_database_to_act,
    parse_for_option_ms,
    parse_instant_option,
    parse_severity_option,
)
from watchdog.cli.click_classes import CommandGroupWithoutPydantic, CommandWithoutPydantic
from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    exit_with_error,
    find_probes_by_name_or_exit,
    open_read_connection_or_exit,
)
from watchdog.cli.completion import SelectedProbeOption
from watchdog.cli.output import (
    CliOutputFormat,
    OutputFormatOption,
    escape_rich_markup,
    print_json,
    print_json_or_table,
)

if TYPE_CHECKING:
    from watchdog.domain.maintenance_windows import MaintenanceWindow

MAX_LISTED_ENDED_WINDOWS = 100

maintenance_app = typer.Typer(cls=CommandGroupWithoutPydantic, invoke_without_command=True)


@maintenance_app.callback()
def list_maintenance_windows_command(
    context: typer.Context,
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
    with_ended: Annotated[bool, typer.Option("--ended", help="Also list the 100 that ended last.")] = False,
    probe: SelectedProbeOption = None,
) -> None:
    """List the maintenance windows in effect, and the next ones.

    \b
    Example: watchdog maintenance
             watchdog maintenance --probe API
    """
    if context.invoked_subcommand is None:
        _print_maintenance(config, output, probe, with_ended=with_ended)


@maintenance_app.command("begin", cls=CommandWithoutPydantic)
def maintenance_begin_command(
    probe: MatchedProbeOption = "",
    group: MatchedGroupOption = "",
    tags: MatchedTagsOption = None,
    kind: MatchedKindOption = "",
    severity: MatchedSeverityOption = "",
    everything: Annotated[bool, typer.Option("--all", help="Every probe, except Watchdog itself.")] = False,
    start: Annotated[
        str, typer.Option(help="When it starts, such as 22:00Z or 2026-12-01T22:00+01:00; default: now.")
    ] = "",
    duration: ActDurationOption = "",
    until: ActEndOption = "",
    comment: ActCommentOption = "",
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """Put matching probes into maintenance, from now on or from a planned start.

    Their runs go on, but no incident of theirs opens. What is still wrong afterwards opens then. A probe must match
    every option that is given. At least one is necessary, or --all.

    \b
    Example: watchdog maintenance begin --group Core --for 1h --comment "upgrade"
             watchdog maintenance begin --id api --start 2026-12-01T22:00+01:00 --for 2h
    """
    from watchdog.api.serializers.maintenance import serialize_maintenance_window
    from watchdog.domain.formatting import format_count_with_noun, format_utc_timestamp
    from watchdog.domain.routing import ProbeMatcher
    from watchdog.service.acts import MaintenanceRequest, begin_maintenance

    match = ProbeMatcher(parse_severity_option(severity), frozenset(tags or ()), group, kind, probe)
    if bool(duration) == bool(until):
        exit_with_error("give --for (how long) or --until (when it ends)")
    duration_ms = parse_for_option_ms(duration) if duration else 0
    starts_at = parse_instant_option("--start", start) if start else None
    ends_at = parse_instant_option("--until", until, after=starts_at) if until else 0
    with open_database_to_act(config) as (database, user, now):
        ends_at = ends_at or (now if starts_at is None else starts_at) + duration_ms
        request = MaintenanceRequest(match, ends_at, comment, selects_everything=everything, starts_at=starts_at)
        started = begin_maintenance(database, request, user, now)
    window = started.window
    if output is CliOutputFormat.JSON:
        print_json(serialize_maintenance_window(window, now))
        return
    count = format_count_with_noun(started.probe_count, "probe")
    is_planned = not window.is_in_effect(now)
    begins = f" from {format_utc_timestamp(window.starts_at, now)}" if is_planned else ""
    print(f"{window.id} puts {count} into maintenance{begins} until {format_utc_timestamp(window.ends_at, now)}")
    print(f"`watchdog maintenance end {window.id}` {'cancels' if is_planned else 'ends'} it.")


@maintenance_app.command("end", cls=CommandWithoutPydantic)
def maintenance_end_command(
    window: Annotated[str, typer.Argument(help="Its id: see `watchdog maintenance`.", show_default=False)],
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """End maintenance before its time, or cancel planned maintenance.

    A configured window takes place again as scheduled. To cancel it, remove it from the configuration.

    \b
    Example: watchdog maintenance end m-4f0c2a91be
    """
    from watchdog.api.serializers.maintenance import serialize_maintenance_window
    from watchdog.service.acts import end_maintenance

    with open_database_to_act(config) as (database, user, now):
        ended = end_maintenance(database, window, user, now)
    if output is CliOutputFormat.JSON:
        print_json(serialize_maintenance_window(ended, now))
    else:
        print(f"{'Cancelled' if ended.was_cancelled else 'Ended'}: {window}")


def _print_maintenance(config: Path, output: CliOutputFormat, probe: str | None, *, with_ended: bool) -> None:
    """`probe`: name or id; None: every window."""
    from watchdog.api.serializers.maintenance import serialize_maintenance_window
    from watchdog.domain.maintenance_windows import MaintenanceWindowState
    from watchdog.store.read.maintenance import list_maintenance_windows, list_present_and_next_maintenance

    with open_read_connection_or_exit(config) as (connection, now):
        windows = list_present_and_next_maintenance(connection, now)
        if with_ended:
            ended = MaintenanceWindowState.ENDED
            windows += list_maintenance_windows(connection, now, state=ended, limit=MAX_LISTED_ENDED_WINDOWS)
        if probe is not None:
            matching = find_probes_by_name_or_exit(connection, probe)
            windows = [window for window in windows if not all(map(window.matcher.describe_mismatch, matching))]
    print_json_or_table(
        output,
        windows,
        to_json=lambda window: serialize_maintenance_window(window, now),
        headings=("id", "name", "probes", "starts", "until", "by", "comment"),
        to_row=lambda window: _format_maintenance_row(window, now),
        empty_text="no maintenance",
    )


def _format_maintenance_row(window: MaintenanceWindow, now: int) -> tuple[str, ...]:
    from watchdog.domain.formatting import format_utc_timestamp
    from watchdog.domain.silencing import SilenceMatcher

    is_over = window.ended_at is not None or window.ends_at <= now
    end = window.ends_at if window.ended_at is None else window.ended_at
    return (
        window.id,
        escape_rich_markup(window.name),
        escape_rich_markup(SilenceMatcher(window.matcher).describe()),
        "now" if window.is_in_effect(now) else format_utc_timestamp(window.starts_at, now),
        f"{'cancelled ' if window.was_cancelled else 'ended ' if is_over else ''}{format_utc_timestamp(end, now)}",
        "" if window.actor is None else escape_rich_markup(window.actor.name),
        escape_rich_markup(window.comment),
    )
