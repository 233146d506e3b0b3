"""`watchdog validate`: check the configuration."""

from __future__ import annotations

from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption, load_config_or_exit


def validate_command(config: ConfigFileOption = DEFAULT_CONFIG_PATH) -> None:
    """Check the configuration.

    Prints one line per problem: file, line, column, field and remedy. Exits 2 if there are problems, otherwise 0, even
    if there are warnings. Warnings are about settings that are valid but probably not intended, such as a probe whose
    incidents are sent to no receiver.

    \b
    Example: watchdog validate -c /etc/watchdog/watchdog.yaml
    """
    from watchdog.domain.formatting import format_count_with_noun

    loaded = load_config_or_exit(config)
    probes, receivers = loaded.config.probes, loaded.config.receivers
    counts = [format_count_with_noun(len(probes), "probe"), format_count_with_noun(len(receivers), "receiver")]
    if loaded.warnings:
        counts.append(format_count_with_noun(len(loaded.warnings), "warning"))
    print(f"ok: {', '.join(counts)}")
    for warning in loaded.warnings:
        print(f"warning: {warning}")
