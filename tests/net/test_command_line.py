"""A command is shown as it was configured, without the secrets in its arguments."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from watchdog.net.command_line import find_secret_spans_by_argument_index, redact_command
from watchdog.net.redact import MAX_TARGET_CHARS, SecretMask


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["npx", "-y", "@acme/search-mcp", "--region", "eu"], "npx -y @acme/search-mcp --region eu"),
        (["python", "/srv/my server.py", ""], "python '/srv/my server.py' ''"),
        (["sh", "-c", "exec server\n  --verbose"], "sh -c 'exec server --verbose'"),
        (["server", "--token", "ro", "-v"], "server --token ••• -v"),
        (["server", "--api-key=ro"], "server --api-key=•••"),
        (["server", "--token="], "server --token="),
        (["server", "--token", "--verbose"], "server --token --verbose"),
        (["server", "--token-stdin", "serve"], "server --token-stdin •••"),
        (["env", "GITHUB_TOKEN=ro", "LEVEL=debug", "server"], "env GITHUB_TOKEN=••• LEVEL=debug server"),
        (["docker", "run", "-e", "DB_PASSWORD=p w", "acme/mcp"], "docker run -e DB_PASSWORD=••• acme/mcp"),
        (["curl", "-H", "Authorization: Bearer ro", "http://h/"], "curl -H 'Authorization: •••' http://h/"),
        (["mcp-proxy", "--header=X-Api-Key: ro"], "mcp-proxy '--header=X-Api-Key: •••'"),
        (["server", "postgres://me:ro@db:5432/app?sslpassword=x"], "server postgres://db:5432/app"),
        (["server", "--url=https://me@h/mcp?token=x#y"], "server --url=https://h/mcp"),
        (["größe", "--ordner=ä"], "größe --ordner=ä"),
        (
            ["sh", "-c", "API_KEY=abc LEVEL=debug exec server --token 'x y' --port 80"],
            """sh -c 'API_KEY=••• LEVEL=debug exec server --token •••'"'"' --port 80'""",
        ),
        (["bash", "-lc", "export PGPASSWORD=ro; server"], "bash -lc 'export PGPASSWORD=•••; server'"),
        (["server", "-c", "/etc/server.yaml"], "server -c /etc/server.yaml"),
        (["server", "--db", "Server=db;User Id=sa;Password=ro;"], "server --db 'Server=db;User Id=sa;Password=•••;'"),
        (["server", '--config={"url": "x", "apiKey": "ro"}'], """server '--config={"url": "x", "apiKey": "•••"}'"""),
    ],
)
def test_a_command(arguments: Sequence[str], line: str) -> None:
    assert redact_command(arguments) == line


def test_the_secrets_of_arguments() -> None:
    arguments = ["server", "--token", "one", "API_KEY=two", "--header=Cookie: three", "--level", "four"]
    secrets = {
        index: [arguments[index][slice(*span)] for span in spans]
        for index, spans in find_secret_spans_by_argument_index(arguments).items()
    }
    assert secrets == {2: ["one"], 3: ["two"], 4: ["three"]}


def test_a_shown_command_is_masked_by_value_before_it_is_shortened() -> None:
    secret = "hunter2hunter2"
    line = redact_command(["server", "x" * (MAX_TARGET_CHARS - 12), secret, "--url=http://h/hunter2hunter2"])
    masked_line = SecretMask([secret]).mask_target(line)
    assert len(masked_line) == MAX_TARGET_CHARS
    assert masked_line.endswith("x •••…")
    assert SecretMask([secret]).mask_target(f"server --url=http://h/{secret}") == "server --url=http://h/•••"
