"""`watchdog init`: write a starter configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from watchdog.cli.common import DEFAULT_CONFIG_PATH, exit_with_error

STARTER_CONFIG = """\
# yaml-language-server: $schema=./watchdog.schema.json
version: 1

probes:
  - name: Website
    http: https://example.com/
    every: 60s

# Where alerts go. Secrets come from the environment: slack: {webhook: "${SLACK_WEBHOOK_URL}"}
receivers:
  console:
    log: {}
"""


def init_command(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = DEFAULT_CONFIG_PATH,
) -> None:
    """Write a starter configuration.

    Also writes watchdog.schema.json to the same folder, so that an editor can complete and check fields. An existing
    configuration is never overwritten.

    \b
    Example: watchdog init && watchdog validate
    """
    import json

    from watchdog.config.schema import build_config_json_schema

    schema_path = path.parent / "watchdog.schema.json"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(STARTER_CONFIG)
        schema_path.write_text(
            json.dumps(build_config_json_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    except FileExistsError:
        exit_with_error(f"{path} already exists and was not overwritten")
    except OSError as e:
        exit_with_error(f"cannot write {e.filename}: {(e.strerror or str(e)).lower()}")
    option = "" if path == DEFAULT_CONFIG_PATH else f" -c {path}"
    print(f"Wrote {path} and {schema_path}. Next: `watchdog validate{option}`, then `watchdog run{option}`.")
