"""Requests of commands to the `watchdog run` of this machine, over its HTTP API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from watchdog.cli.common import ExitCode, exit_if_default_config_file_missing, exit_with_error

if TYPE_CHECKING:
    from urllib.error import HTTPError
    from urllib.request import OpenerDirector

    from watchdog.config.problems import ServiceConnectionInfo

MAX_SERVICE_RESPONSE_BYTES = 4 * 1024 * 1024
MAX_SHOWN_REFUSAL_CHARS = 2_000
HTTP_UNAUTHORIZED = 401


def load_service_info_or_exit(path: Path) -> ServiceConnectionInfo:
    """Where the service of a configuration listens, and its API key. If the configuration is invalid elsewhere, for
    example because only the service has a variable, goes on nevertheless. Otherwise prints every problem and exits."""
    import sys

    from watchdog.config.load import load_config
    from watchdog.config.problems import ConfigError

    exit_if_default_config_file_missing(path)
    try:
        service = load_config(path).service
    except ConfigError as e:
        if e.service is None:
            print(e, file=sys.stderr)
            raise typer.Exit(ExitCode.USAGE_ERROR) from None
        service = e.service
    if not service.base_url:
        exit_with_error("the port of the service is chosen at random: set a port in `server.listen`, and restart it")
    return service


def post_to_service_or_exit(
    service: ServiceConnectionInfo, path: str, body: dict[str, Any], timeout_s: float
) -> dict[str, Any]:
    """The response to a POST request, an object, without characters that a terminal would obey: while the service is
    down, any program of this machine may listen in its place. Exits 3 with one line if there is none, or if it is an
    error."""
    import json
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import Request

    from watchdog.domain.text import map_json_strings, replace_invisible_characters

    url = f"{service.base_url}{path}"
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if service.api_key:
        headers["Authorization"] = f"Bearer {service.api_key}"
    request = Request(url, json.dumps(body).encode(), headers, method="POST")  # noqa: S310 - http, of the configuration
    try:
        with _build_direct_url_opener().open(request, timeout=timeout_s) as response:
            answer = map_json_strings(
                json.loads(response.read(MAX_SERVICE_RESPONSE_BYTES)), replace_invisible_characters
            )
    except HTTPError as e:
        _exit_with_service_refusal(service, e)
    except TimeoutError:
        exit_with_error(f"{service.base_url} has not responded within {timeout_s:g} s", ExitCode.UNKNOWN)
    except (URLError, OSError, HTTPException) as e:
        reason = getattr(e, "reason", e)
        why = _put_on_one_clean_line(getattr(reason, "strerror", "") or reason).lower()
        advice = "is `watchdog run` running on this machine, with this configuration?"
        exit_with_error(f"no response from {service.base_url}: {why}; {advice}", ExitCode.UNKNOWN)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        exit_with_error(f"the server at {service.base_url} is not Watchdog", ExitCode.UNKNOWN)
    return answer


def _build_direct_url_opener() -> OpenerDirector:
    """Uses no proxy, because the service runs on this machine, and follows no redirect, which would lose the key."""
    from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener

    class NoRedirectHandler(HTTPRedirectHandler):
        def redirect_request(self, *_args: Any, **_options: Any) -> None:
            return None

    return build_opener(ProxyHandler({}), NoRedirectHandler())


def _exit_with_service_refusal(service: ServiceConnectionInfo, error: HTTPError) -> NoReturn:
    import json
    from http.client import HTTPException

    try:
        detail = json.loads(error.read(MAX_SERVICE_RESPONSE_BYTES))["detail"]
    except (OSError, HTTPException, ValueError, KeyError, TypeError, RecursionError):
        exit_with_error(f"the server at {service.base_url} answered HTTP {error.code}", ExitCode.UNKNOWN)
    if error.code == HTTP_UNAUTHORIZED and service.api_key:
        detail = (
            "the API key of this configuration is not valid there; if `access.api_keys` has changed since the start, "
            "send SIGHUP to `watchdog run`"
        )
    exit_with_error(
        f"the service at {service.base_url} refuses this: {_put_on_one_clean_line(detail)}", ExitCode.UNKNOWN
    )


def _put_on_one_clean_line(value: object) -> str:
    """Something that a server has sent, as text."""
    from watchdog.domain.text import replace_invisible_characters, truncate_to_single_line

    return replace_invisible_characters(truncate_to_single_line(str(value), MAX_SHOWN_REFUSAL_CHARS))
