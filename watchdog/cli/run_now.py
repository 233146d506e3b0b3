"""`watchdog run-now`: has the running service run a probe at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from watchdog.cli.acts import ActCommentOption, open_database_to_act
from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption, ExitCode, exit_with_error, read_database_clock
from watchdog.cli.completion import complete_runnable_probe_name
from watchdog.cli.output import CliOutputFormat, OutputFormatOption
from watchdog.cli.probe import print_run_result_and_exit

if TYPE_CHECKING:
    from watchdog.store.database import Database
    from watchdog.store.read.history import StoredResultWithEvidence
    from watchdog.store.write.requested_runs import RequestedRun


def run_now_command(
    probe: Annotated[
        str,
        typer.Argument(help="Name or id of a probe.", show_default=False, autocompletion=complete_runnable_probe_name),
    ],
    comment: ActCommentOption = "",
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """Have the running service run a probe now, and show the result.

    The result is stored and judged like any other, unless the probe is paused. The schedule does not move. Exits 0 if
    the probe passes, 1 if it fails, and 3 if there is no verdict.

    \b
    Example: watchdog run-now Website
    """
    from watchdog.api.probe_run import serialize_requested_run
    from watchdog.domain.acts import OperatorActRefusalReason, OperatorActRefusedError
    from watchdog.domain.model import Evidence
    from watchdog.service.acts import request_run

    with open_database_to_act(config) as (database, user, now):
        try:
            requested = request_run(database, probe, user, comment, now)
        except OperatorActRefusedError as e:
            if e.refusal is not OperatorActRefusalReason.CONFLICT:
                raise
            exit_with_error(str(e), ExitCode.UNKNOWN)
        stored = _wait_for_requested_run_result_or_exit(database, requested)
    policy = requested.registered.policy
    print_run_result_and_exit(serialize_requested_run(policy, stored.result, stored.evidence or Evidence()), output)


def _wait_for_requested_run_result_or_exit(database: Database, requested: RequestedRun) -> StoredResultWithEvidence:
    """Exits with one line if there is none in time."""
    from time import sleep

    from watchdog.service.requested_runs import (
        REQUESTED_RESULT_POLL_INTERVAL_S,
        RequestedRunResultTimeoutError,
        find_requested_run_result,
    )

    while True:
        now = read_database_clock(database)
        try:
            with database.open_read_transaction() as connection:
                stored = find_requested_run_result(connection, requested, now)
        except RequestedRunResultTimeoutError as e:
            exit_with_error(str(e), ExitCode.UNKNOWN)
        if stored is not None:
            return stored
        sleep(REQUESTED_RESULT_POLL_INTERVAL_S)
