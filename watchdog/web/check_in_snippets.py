"""What a job has to call to check in, as commands and code to copy. Those of an address with a token contain it."""

from __future__ import annotations

import json
import re
import shlex
from typing import NamedTuple

from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS
from watchdog.service.check_in_addresses import CheckInAddress

CRONTAB_TIMES_PLACEHOLDER = "SCHEDULE"
"""In a crontab line, where a crontab cannot express the schedule."""
JOB_COMMAND_PLACEHOLDER = "backup.sh"
CURL = "curl -fsS -m 10"
CURL_WITH_RETRIES = f"{CURL} --retry 5 --retry-connrefused -o /dev/null"
"""For ends of runs. A start is not retried, because a second one is the start of another run."""
_CRONTAB_FIELD = r"(?:\*|[0-9]+|[A-Za-z]{3})(?:[,/-](?:\*|[0-9]+|[A-Za-z]{3}))*"
_CRONTAB_TIMES_PATTERN = re.compile(
    rf"@(?:hourly|daily|midnight|weekly|monthly|yearly|annually)|{_CRONTAB_FIELD}(?: {_CRONTAB_FIELD}){{4}}"
)
_CRONTAB_TIMES_BY_INTERVAL_MS = {
    **{n * MINUTE_MS: f"*/{n} * * * *" for n in (2, 3, 4, 5, 6, 10, 12, 15, 20, 30)},
    **{n * HOUR_MS: f"0 */{n} * * *" for n in (2, 3, 4, 6, 8, 12)},
    MINUTE_MS: "* * * * *",
    HOUR_MS: "0 * * * *",
    DAY_MS: "0 0 * * *",
    7 * DAY_MS: "0 0 * * 0",
}
"""The intervals that are always equal in a crontab."""


class CheckInSnippet(NamedTuple):
    """A text to copy."""

    label: str
    text: str


def list_check_in_snippets(address: CheckInAddress, probe_id: str) -> list[CheckInSnippet]:
    """In the order in which a person would try them. Of a masked address, only what works without the token."""
    name = shlex.quote(probe_id)
    from_file = CheckInSnippet(
        "Any command, on a machine with the configuration",
        f"watchdog exec {name} -c watchdog.yaml -- {JOB_COMMAND_PLACEHOLDER}",
    )
    if address.is_masked:
        return [from_file]
    url, start_url, fail_url = (shlex.quote(f"{address.url}{action}") for action in ("", "/start", "/fail"))
    return [
        CheckInSnippet("A run succeeded", f"{CURL_WITH_RETRIES} {url}"),
        CheckInSnippet("A run starts", f"{CURL} -o /dev/null {start_url}"),
        CheckInSnippet("A run failed", f"{CURL_WITH_RETRIES} {fail_url}"),
        CheckInSnippet(
            "Any command: start, end, exit code and output",
            f"WATCHDOG_CHECK_IN_URL={url} watchdog exec {name} -- {JOB_COMMAND_PLACEHOLDER}",
        ),
        from_file,
        CheckInSnippet("A line of a crontab", build_crontab_line(address)),
        CheckInSnippet(
            "Python, with watchdog/checkin.py, which is a single file",
            "from watchdog.checkin import check_in\n\n"
            f"@check_in({json.dumps(address.url)})\ndef nightly() -> None: ...",
        ),
    ]


def build_crontab_line(address: CheckInAddress) -> str:
    """With a comment that states the time zone of the schedule, because cron knows only that of its machine."""
    comment = ""
    if address.cron:
        times = " ".join(address.cron.split())
        comment = f"# the schedule is in the time zone {address.timezone}, cron uses the one of its machine\n"
    else:
        times = _CRONTAB_TIMES_BY_INTERVAL_MS.get(address.interval_ms or 0, "")
    if not _CRONTAB_TIMES_PATTERN.fullmatch(times):
        times = CRONTAB_TIMES_PLACEHOLDER
    url = shlex.quote(address.url).replace("%", r"\%")  # cron reads a bare % as the end of the line
    return f"{comment}{times} {JOB_COMMAND_PLACEHOLDER} && {CURL_WITH_RETRIES} {url}"
