"""`watchdog validate`: check the configuration."""

from __future__ import annotations

from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption, load_config_or_exit


def validate_command(config: ConfigFileOption = DEFAULT_CONFIG_PATH) -> None:
    """Check the configuration.

    Prints one line per problem: file, line, column, field and remedy. Exits 0 if there are no problems, otherwise 2.

    \b
    Example: watchdog validate -c /etc/watchdog/watchdog.yaml
    """
    from watchdog.domain.formatting import format_count

    loaded = load_config_or_exit(config).config
    print(f"ok: {format_count(len(loaded.probes), 'probe')}, {format_count(len(loaded.receivers), 'receiver')}")
    if not loaded.probes:
        print("warning: no `probes`: nothing is monitored")
    elif not loaded.receivers:
        print("warning: no `receivers`: no alert is sent when a probe fails")
