"""Lets a Python program check in with Watchdog. Needs only the standard library; the file can be copied as it is.

    from watchdog.checkin import check_in

    @check_in("https://status.example/in/TOKEN")  # or WATCHDOG_CHECK_IN_URL in the environment
    def nightly(): ...                            # also for `async def`

    with check_in() as run:
        run.log("half way")

It reports the start, the end and the duration of a run, and the exception that ended it. The program always
continues: a check-in that is not delivered causes a warning in the log, never an exception.
"""

from __future__ import annotations

import functools
import http.client
import logging
import os
import time
import traceback
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

CHECK_IN_URL_ENV_VAR = "WATCHDOG_CHECK_IN_URL"
CHECK_IN_SEND_TIMEOUT_S = 5.0
MAX_CHECK_IN_SEND_ATTEMPTS = 3
"""Attempts for the end of a run and for logs. A start has one attempt, because the work waits for it."""
MAX_CHECK_IN_REJECTION_TEXT_BYTES = 200
MAX_CHECK_IN_OUTPUT_BYTES = 10_240
"""The last bytes of the output that are sent."""

DecoratedFunction = TypeVar("DecoratedFunction", bound=Callable[..., Any])
log = logging.getLogger("watchdog.checkin")


class CheckInDeliveryError(Exception):
    """A check-in was not delivered. The text does not contain the URL, which is a secret."""

    def __init__(self, message: str, *, retryable: bool):
        super().__init__(message)
        self.retryable = retryable
        """Whether another attempt may succeed."""


def send_check_in_once(url: str, kind: str, run_id: str, age_s: float, output: bytes = b"") -> None:
    """Sends a check-in about something that happened `age_s` seconds ago. `kind`: start, fail, log, an exit code, or
    empty for success. Raises CheckInDeliveryError."""
    address = f"{url.rstrip('/')}/{kind}".rstrip("/")
    query = urlencode({"rid": run_id, "ago": max(round(age_s * 1000), 0)})
    try:
        if urlsplit(address).scheme not in ("http", "https"):
            raise CheckInDeliveryError("the URL does not start with http:// or https://", retryable=False)
        request = urllib.request.Request(f"{address}?{query}", output[-MAX_CHECK_IN_OUTPUT_BYTES:], method="POST")  # noqa: S310 - checked above
        with urllib.request.urlopen(request, timeout=CHECK_IN_SEND_TIMEOUT_S):  # noqa: S310 - checked above
            return
    except CheckInDeliveryError:
        raise
    except urllib.error.HTTPError as error:
        is_final = 400 <= error.code < 500 and error.code not in (408, 425, 429)
        explanation = _read_check_in_rejection_text(error) if is_final else ""
        error.close()
        text = f"Watchdog answered HTTP {error.code}{explanation}"
        raise CheckInDeliveryError(text, retryable=not is_final) from None
    except (ValueError, http.client.InvalidURL):
        raise CheckInDeliveryError("the URL is not valid", retryable=False) from None
    except Exception as error:
        text = f"{type(error).__name__}: {getattr(error, 'reason', '') or error}".replace(url, "the URL")
        raise CheckInDeliveryError(text, retryable=True) from None


def _read_check_in_rejection_text(error: urllib.error.HTTPError) -> str:
    """What the response states to be wrong, as ": ..."; empty if it states nothing that can be shown."""
    try:
        line = error.read(MAX_CHECK_IN_REJECTION_TEXT_BYTES).decode("ascii").strip()
    except Exception:
        return ""
    return f": {line}" if line.isprintable() and line else ""


class check_in:  # noqa: N801 - reads as a verb where it is used
    """A context manager, or a decorator of a function, that checks in at the start and the end of each run.

    `url`: the check-in URL of a heartbeat; default: the environment variable WATCHDOG_CHECK_IN_URL. Without either,
    nothing is sent. One object can be entered several times in a row; each time is a run with an id of its own.
    """

    def __init__(self, url: str = ""):
        self.url = url or os.environ.get(CHECK_IN_URL_ENV_VAR, "")
        self.run_id = ""
        self._undelivered_start_at: float | None = None
        """When the run started (monotonic), if its start was not delivered. It is sent again with the end."""

    def log(self, text: str) -> None:
        """Sends text that is shown beside the run."""
        self._send("log", text)

    def __enter__(self) -> check_in:
        started_at, self.run_id = time.monotonic(), uuid.uuid4().hex
        delivered = self._send("start", occurred_at=started_at, attempts=1)
        self._undelivered_start_at = None if delivered else started_at
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended_at = time.monotonic()
        if self._undelivered_start_at is not None:
            self._send("start", occurred_at=self._undelivered_start_at, attempts=1)
        succeeded = error is None or (isinstance(error, SystemExit) and error.code in (None, 0))
        output = "" if succeeded else "".join(traceback.format_exception(kind, error, trace))
        self._send("" if succeeded else "fail", output, occurred_at=ended_at)

    async def __aenter__(self) -> check_in:
        await self._enter_or_exit_in_thread(self.__enter__)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._enter_or_exit_in_thread(functools.partial(self.__exit__, kind, error, trace))

    def __call__(self, function: DecoratedFunction) -> DecoratedFunction:
        import inspect

        wrapper: Any
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_coroutine(*args: Any, **kwargs: Any) -> Any:
                async with type(self)(self.url):
                    return await function(*args, **kwargs)

            wrapper = run_coroutine
        else:

            @functools.wraps(function)
            def run_function(*args: Any, **kwargs: Any) -> Any:
                with type(self)(self.url):
                    return function(*args, **kwargs)

            wrapper = run_function
        decorated: DecoratedFunction = wrapper
        return decorated

    async def _enter_or_exit_in_thread(self, function: Callable[[], object]) -> None:
        """Shielded, so that a cancelled coroutine still checks in."""
        import asyncio

        await asyncio.shield(asyncio.to_thread(function))

    def _send(self, kind: str, output: str = "", *, occurred_at: float | None = None, attempts: int = 0) -> bool:
        """Whether the check-in was delivered, or there is no URL. Never raises."""
        if not self.url:
            return True
        occurred_at = time.monotonic() if occurred_at is None else occurred_at
        problem: Exception | None = None
        for attempt in range(attempts or MAX_CHECK_IN_SEND_ATTEMPTS):
            time.sleep(attempt)
            try:
                body = output.encode("utf-8", "replace")
                send_check_in_once(self.url, kind, self.run_id, time.monotonic() - occurred_at, body)
            except Exception as error:
                problem = error
                if not (isinstance(error, CheckInDeliveryError) and error.retryable):
                    break
            else:
                return True
        log.warning("check-in not delivered: %s", problem)
        return False
