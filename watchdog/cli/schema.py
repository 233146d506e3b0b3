"""`watchdog schema`: the configuration's JSON Schema."""

from __future__ import annotations

from watchdog.cli.output import print_json


def schema_command() -> None:
    """Print the JSON Schema of the configuration.

    \b
    Example: watchdog schema > watchdog.schema.json
    """
    from watchdog.config.schema import build_config_json_schema

    print_json(build_config_json_schema())
