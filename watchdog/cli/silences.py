"""`watchdog silences`: the silences in effect, and those that ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    find_probes_by_name_or_exit,
    open_read_connection_or_exit,
)
from watchdog.cli.completion import SelectedProbeOption
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, escape_rich_markup, print_json_or_table

if TYPE_CHECKING:
    from watchdog.domain.model import Json
    from watchdog.domain.selection import SilenceSelectionCounts
    from watchdog.domain.silencing import Silence

MAX_LISTED_ENDED_SILENCES = 100


def silences_command(
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
    with_ended: Annotated[bool, typer.Option("--ended", help="Also list the 100 that ended last.")] = False,
    probe: SelectedProbeOption = None,
) -> None:
    """List the silences that are in effect.

    Shows how many probes and open incidents each silence selects now.

    \b
    Example: watchdog silences --probe API
    """
    from watchdog.api.serializers.acts import serialize_silence
    from watchdog.store.read.acts import list_silences, list_silences_in_effect
    from watchdog.store.read.selections import load_active_probe_infos, load_selected_counts_of_silences

    with open_read_connection_or_exit(config) as (connection, now):
        silences = list_silences_in_effect(connection)
        counts = load_selected_counts_of_silences(connection, silences, load_active_probe_infos(connection))
        silences += list_silences(connection, is_in_effect=False, limit=MAX_LISTED_ENDED_SILENCES) if with_ended else []
        if probe is not None:
            matching = find_probes_by_name_or_exit(connection, probe)
            silences = [
                silence for silence in silences if not all(map(silence.matcher.describe_mismatch_of_probe, matching))
            ]
    print_json_or_table(
        output,
        silences,
        to_json=lambda silence: {**serialize_silence(silence), **_to_json_counts(counts.get(silence.id))},
        headings=("id", "silenced", "selects", "until", "by", "comment"),
        to_row=lambda silence: _format_silence_cli_row(silence, counts.get(silence.id), now),
        empty_text="no silences",
    )


def _to_json_counts(counts: SilenceSelectionCounts | None) -> dict[str, Json]:
    """null for a silence that has ended."""
    return {
        "probe_count": counts.probe_count if counts else None,
        "open_incident_count": counts.open_incident_count if counts else None,
    }


def _format_silence_cli_row(silence: Silence, counts: SilenceSelectionCounts | None, now: int) -> tuple[str, ...]:
    from watchdog.domain.formatting import format_utc_timestamp

    ended = "" if silence.ended_at is None else f"ended {format_utc_timestamp(silence.ended_at, now)}"
    return (
        silence.id,
        escape_rich_markup(silence.describe_selection()),
        counts.describe().removeprefix("selects ") if counts else "",
        ended or silence.describe_end(now).removeprefix("until "),
        escape_rich_markup(silence.actor.name),
        escape_rich_markup(silence.comment),
    )
