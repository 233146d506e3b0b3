"""`watchdog validate`, `watchdog schema` and `watchdog init`: around the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from watchdog.cli.common import DEFAULT_CONFIG_PATH, ConfigFileOption, exit_with_error, load_config_or_exit, print_json

SAMPLE_CONFIG = """\
# yaml-language-server: $schema=./watchdog.schema.json
version: 1

probes:
  - name: Website
    http: https://example.com/
    every: 60s

# Who is told. Secrets come from the environment: slack: {webhook: "${SLACK_WEBHOOK_URL}"}
receivers:
  console:
    log: {}
"""


def validate_command(config: ConfigFileOption = DEFAULT_CONFIG_PATH) -> None:
    """Check the configuration, every problem on a line."""
    from watchdog.domain.formatting import format_count

    given = load_config_or_exit(config).config
    told = f"ok: {format_count(len(given.probes), 'probe')}, {format_count(len(given.receivers), 'receiver')}."
    if given.probes and not given.receivers:
        told += " Nobody is told when a probe fails: add `receivers`."
    if not given.probes:
        told += " Nothing is watched: add `probes`."
    print(told)


def schema_command() -> None:
    """Print the configuration's JSON Schema."""
    from watchdog.config.schema import json_schema

    print_json(json_schema())


def init_command(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = DEFAULT_CONFIG_PATH,
) -> None:
    """Write a first configuration.

    Beside it the schema that lets an editor complete it. One that is there is left as it is.
    """
    import json

    from watchdog.config.schema import json_schema

    beside = path.parent / "watchdog.schema.json"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(SAMPLE_CONFIG)
        beside.write_text(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except FileExistsError:
        exit_with_error(f"{path} exists already; it was left as it is")
    except OSError as e:
        exit_with_error(f"cannot write {e.filename}: {e.strerror}")
    named = "" if path == DEFAULT_CONFIG_PATH else f" -c {path}"
    print(f"Wrote {path} and {beside}. Next: `watchdog validate{named}`, then `watchdog run{named}`.")
