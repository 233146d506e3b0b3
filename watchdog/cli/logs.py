"""Logs on standard error: readable at a terminal, JSON elsewhere. Secrets are masked in both."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from watchdog.net.redact import SecretMask


def do_without_rich_and_pygments() -> None:
    """Call it at the start of a service. structlog, httpx and Mako load these packages if they are installed, to print
    errors and source code in colour, which takes 10 MiB. With structlog they would also show the values of local
    variables, which may hold secrets."""
    for package in ("rich", "pygments"):
        sys.modules.setdefault(package, None)  # type: ignore[arg-type] # as if it were not installed


def configure_logging(mask: SecretMask, *, quiet: bool = False) -> None:
    """`quiet`: only errors of Watchdog itself."""
    import structlog

    def mask_secrets_in_log_event(_logger: Any, _method: str, event: Any) -> Any:
        """Masks every value before it is rendered, and then the line, for what rendering turned into text."""
        return mask.mask_json(event)

    terminal = sys.stderr.isatty()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if terminal else "iso", utc=True),
    ]
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
    if terminal:
        renderer = structlog.dev.ConsoleRenderer(colors=not os.environ.get("NO_COLOR"))
    render: list[Any] = [
        structlog.processors.format_exc_info,
        mask_secrets_in_log_event,
        renderer,
        mask_secrets_in_log_event,
    ]
    level = logging.ERROR if quiet else logging.INFO
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(["probe_id"])],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("apscheduler").setLevel(logging.ERROR)  # a tick that is still busy is coalesced, by design
    _hide_python_warnings()


def _hide_python_warnings() -> None:
    """They are for developers, who ask for them with `python -W`.

    Libraries suppress their own with `warnings.catch_warnings`, which fails if several threads do so at once.
    """
    if not sys.warnoptions:
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").setLevel(logging.ERROR)


def configure_logging_on_first_record(mask: SecretMask) -> None:
    """For a command that logs only if something goes wrong: loading structlog would take a tenth of its start."""
    logging.getLogger().handlers[:] = [_ConfigureLoggingOnFirstRecordHandler(mask)]


class _ConfigureLoggingOnFirstRecordHandler(logging.Handler):
    def __init__(self, mask: SecretMask):
        super().__init__()
        self._mask = mask

    def emit(self, record: logging.LogRecord) -> None:
        configure_logging(self._mask)
        logging.getLogger().handle(record)
