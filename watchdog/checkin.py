"""Lets a Python program check in with Watchdog. Needs nothing but Python, and may be copied as it is.

    from watchdog.checkin import check_in

    @check_in("https://status.example/in/KEY")    # or WATCHDOG_CHECK_IN_URL in the environment
    def nightly(): ...                            # `async def`, too

    with check_in() as run:
        run.log("half way")

It tells of the start, of the end, of how long it took, and of the exception that ended it. Whatever becomes of that,
the program goes on: a check-in that does not arrive is a warning in the log, never an exception.
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
REQUEST_TIMEOUT_S = 5.0
"""Seconds that Watchdog may take to answer."""
MAX_SEND_ATTEMPTS = 3
"""How often a check-in is tried, a little later each time; the start but once, for the work does not wait."""
MAX_OUTPUT_BYTES = 10_240
"""Bytes of output that are kept: the last ones."""

DecoratedFunction = TypeVar("DecoratedFunction", bound=Callable[..., Any])
log = logging.getLogger("watchdog.checkin")


def send_check_in(url: str, kind: str, run_id: str, age_s: float, output: bytes = b"") -> str:
    """One check-in of something that was `ago` seconds ago. Returns what went wrong: empty when it was taken; with a
    leading "!" when another try would fare no better."""
    address = f"{url.rstrip('/')}/{kind}".rstrip("/")
    query = urlencode({"rid": run_id, "ago": max(round(age_s * 1000), 0)})
    try:
        if urlsplit(address).scheme not in ("http", "https"):
            return "!the address is no http:// or https://"
        request = urllib.request.Request(f"{address}?{query}", output[-MAX_OUTPUT_BYTES:], method="POST")  # noqa: S310 - looked at above
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S):  # noqa: S310 - the same
            return ""
    except urllib.error.HTTPError as e:
        e.close()
        final = "!" if 400 <= e.code < 500 and e.code not in (408, 425, 429) else ""
        return f"{final}Watchdog answered {e.code}"
    except (ValueError, http.client.InvalidURL):
        return "!the address is none"
    except Exception as e:  # a name that is unknown, a line that broke
        return f"{type(e).__name__}: {getattr(e, 'reason', '') or e}".replace(url, "the address")


class check_in:  # noqa: N801 - reads as the verb that it is
    """A decorator of a function, or a context manager. `url`: the check-in address of a heartbeat; without one, that
    of the environment; without both nothing is told."""

    def __init__(self, url: str = ""):
        self.url = url or os.environ.get(CHECK_IN_URL_ENV_VAR, "")
        self.run_id = ""
        self._unsent_start_at: float | None = None
        """When it began, if nobody could be told of it."""

    def log(self, text: str) -> None:
        """Something to be seen beside the run."""
        self._send("log", text)

    def __enter__(self) -> check_in:
        began, self.run_id = time.monotonic(), uuid.uuid4().hex
        self._unsent_start_at = None if self._send("start", attempts=1) else began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = time.monotonic()
        if self._unsent_start_at is not None:
            self._send("start", occurred_at=self._unsent_start_at, attempts=1)
        well = error is None or (isinstance(error, SystemExit) and error.code in (None, 0))
        text = "" if well else "".join(traceback.format_exception(kind, error, trace))
        self._send("" if well else "fail", text, occurred_at=ended)

    async def __aenter__(self) -> check_in:
        await self._run_in_thread(self.__enter__)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._run_in_thread(functools.partial(self.__exit__, kind, error, trace))

    def __call__(self, function: DecoratedFunction) -> DecoratedFunction:
        import inspect

        made: Any
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                async with type(self)(self.url):
                    return await function(*args, **kwargs)

            made = coroutine
        else:

            @functools.wraps(function)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                with type(self)(self.url):
                    return function(*args, **kwargs)

            made = wrapped
        result: DecoratedFunction = made
        return result

    async def _run_in_thread(self, function: Callable[[], object]) -> None:
        import asyncio

        await asyncio.shield(asyncio.to_thread(function))

    def _send(self, kind: str, output: str = "", occurred_at: float | None = None, attempts: int = 0) -> bool:
        """Whether it arrived, or there is nobody to tell."""
        if not self.url:
            return True
        why, occurred_at = "", time.monotonic() if occurred_at is None else occurred_at
        try:
            for n in range(attempts or MAX_SEND_ATTEMPTS):
                time.sleep(n)
                why = send_check_in(
                    self.url, kind, self.run_id, time.monotonic() - occurred_at, output.encode("utf-8", "replace")
                )
                if not why or why.startswith("!"):
                    break
        except Exception as e:
            why = type(e).__name__
        if why:
            log.warning("check-in not delivered: %s", why.lstrip("!"))
        return not why
