"""`watchdog test-alert`: send a test alert to a receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption, ExitCode, exit_with_error, load_config_or_exit
from watchdog.cli.output import CliOutputFormat, OutputFormatOption, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from watchdog.config.load import LoadedConfig
    from watchdog.notifiers.base import Notifier
    from watchdog.service.receiver_tests import DestinationTestResult, SentTestAlertOutcome


def send_test_alert_command(
    receiver: Annotated[str, typer.Argument(help="A receiver, or one of its destinations, such as oncall/slack.")],
    config: ConfigFileOption = DEFAULT_CONFIG_PATH,
    output: OutputFormatOption = CliOutputFormat.TABLE,
) -> None:
    """Send a test alert to a receiver.

    Sends an alert and then its resolution, both marked as tests. Exits 3 unless every destination accepts both.

    \b
    Example: watchdog test-alert oncall
    """
    loaded_config = load_config_or_exit(config)

    import asyncio

    from watchdog.api.serializers.receivers import serialize_receiver_test
    from watchdog.service.receiver_tests import describe_unknown_receiver, select_notifiers_of_receiver_or_destination

    notifiers = loaded_config.config.build_notifiers_by_destination()
    chosen = select_notifiers_of_receiver_or_destination(notifiers, receiver)
    if not chosen:
        exit_with_error(describe_unknown_receiver(notifiers, receiver))

    from watchdog.cli.logs import configure_logging

    configure_logging(loaded_config.mask)
    results = asyncio.run(
        _send_test_alerts_and_collect_results(loaded_config, chosen, prints=output is CliOutputFormat.TABLE)
    )
    if output is CliOutputFormat.JSON:
        print_json(serialize_receiver_test(receiver, results))
    if any(result.failure for result in results):
        raise typer.Exit(ExitCode.UNKNOWN)


async def _send_test_alerts_and_collect_results(
    loaded_config: LoadedConfig, notifiers: Mapping[str, Notifier], *, prints: bool
) -> list[DestinationTestResult]:
    """`prints`: a line for each alert, once its result is known."""
    from watchdog.net import NetworkAccess
    from watchdog.service.clock import read_wall_clock_ms
    from watchdog.service.receiver_tests import DestinationTestResult, send_opened_and_resolved_test_alerts

    results = []
    async with NetworkAccess(loaded_config.config.network.request_routing) as network:
        for destination, notifier in notifiers.items():
            alerts = []
            sent = send_opened_and_resolved_test_alerts(
                destination, notifier, network, loaded_config.mask, now=read_wall_clock_ms()
            )
            async for alert in sent:
                alerts.append(alert)
                if prints:
                    print(_format_sent_test_alert(destination, notifier.recipient, alert))
            results.append(DestinationTestResult(destination, notifier.recipient, tuple(alerts)))
    return results


def _format_sent_test_alert(destination: str, recipient: str, alert: SentTestAlertOutcome) -> str:
    if alert.error:
        return f"{destination}: {alert.event} alert failed: {alert.error}"
    return f"{destination}: {alert.event} alert sent to {recipient}"
