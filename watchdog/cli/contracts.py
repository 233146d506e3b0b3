"""`watchdog contracts`: how MCP servers differ from their contracts; `watchdog contracts accept`: accept that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from watchdog.cli.acts import ActCommentOption, open_database_to_act
from watchdog.cli.click_classes import CommandGroupWithoutPydantic, CommandWithoutPydantic
from watchdog.cli.common import (
    DEFAULT_CONFIG_PATH,
    ConfigFileOption,
    ExitCode,
    find_probes_by_name_or_exit,
    open_read_connection_or_exit,
)
from watchdog.cli.completion import complete_probe_name
from watchdog.cli.output import (
    CliOutputFormat,
    OutputFormatOption,
    escape_rich_markup,
    print_json,
    print_json_or_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watchdog.store.read.contracts import ProbeContract

contracts_app = typer.Typer(cls=CommandGroupWithoutPydantic, invoke_without_command=True)


@contracts_app.callback()
def contracts_command(
    context: typer.Context,
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
    probe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only of this probe, by name or id.", autocompletion=complete_probe_name),
    ] = None,
) -> None:
    """List how MCP servers differ from their accepted contracts.

    A change is breaking if calls that were valid may be refused now. Exits 1 if there is a change that no one has
    accepted.

    \b
    Example: watchdog contracts
             watchdog contracts --probe "Search MCP"
    """
    if context.invoked_subcommand is not None:
        return
    from watchdog.api.serializers.contracts import serialize_probe_contract
    from watchdog.store.read.contracts import list_probe_contracts

    with open_read_connection_or_exit(config) as (connection, now):
        probes = None if probe is None else find_probes_by_name_or_exit(connection, probe)
        contracts = list_probe_contracts(connection, None if probes is None else [each.database_id for each in probes])
    rows = [row for contract in contracts for row in _list_contract_rows(contract, now)]
    if output is CliOutputFormat.JSON:
        print_json([serialize_probe_contract(contract.probe.id, contract.stored) for contract in contracts])
    else:
        print_json_or_table(
            output,
            rows,
            to_json=list,
            headings=("probe", "status", "change", "before", "after"),
            to_row=lambda row: row,
            empty_text="no contracts",
        )
    raise typer.Exit(ExitCode.DOWN if any(contract.is_to_be_accepted for contract in contracts) else ExitCode.OK)


def _list_contract_rows(contract: ProbeContract, now: int) -> Iterator[tuple[str, ...]]:
    """One for each change; one for a contract without any."""
    from watchdog.domain.formatting import format_utc_timestamp_without_zone

    name, accepted, drift = escape_rich_markup(contract.probe.name), contract.stored.accepted, contract.stored.drift
    if drift is None:
        at = "" if accepted is None else f"accepted at {format_utc_timestamp_without_zone(accepted.accepted_at, now)}"
        yield name, contract.status_label, at, "", ""
        return
    for change in drift.changes:
        texts = map(escape_rich_markup, (f"{change.label}: {change.text}", change.before, change.after))
        yield name, contract.status_label, *texts
    if drift.change_count > len(drift.changes):
        yield name, contract.status_label, f"and {drift.change_count - len(drift.changes)} more", "", ""


@contracts_app.command("accept", cls=CommandWithoutPydantic)
def contracts_accept_command(
    probe: Annotated[
        str, typer.Argument(help="Name or id of the probe.", show_default=False, autocompletion=complete_probe_name)
    ],
    digest: Annotated[
        str,
        typer.Option(help="Of the contract that you have read, as in the output with -o json; default: the newest."),
    ] = "",
    comment: ActCommentOption = "",
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """Accept what an MCP server offers now.

    The command takes effect at the probe's next run. Its incident ends with the next good runs.

    \b
    Example: watchdog contracts accept "Search MCP" --comment "announced for version 2"
    """
    from watchdog.api.serializers.contracts import serialize_accepted_contract_drift
    from watchdog.domain.formatting import format_count_with_noun
    from watchdog.service.acts import accept_contract

    with open_database_to_act(config) as (database, user, now):
        accepted = accept_contract(database, probe, digest, user, comment, now=now)
    if output is CliOutputFormat.JSON:
        print_json(serialize_accepted_contract_drift(accepted))
        return
    changes = format_count_with_noun(accepted.drift.change_count, "change")
    by = "" if accepted.is_new else f" (by {accepted.acceptance.name} before)"
    print(f"Accepted, starting with the next run of {accepted.probe_name}: {changes}{by}")
