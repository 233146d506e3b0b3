"""Logs on standard error: readable at a terminal, JSON elsewhere, secrets masked by value in both."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import structlog

from watchdog.net import SecretMask


def configure_logging(mask: SecretMask, *, quiet: bool = False) -> None:
    """`quiet`: only what goes wrong inside Watchdog itself."""

    def masked(_logger: Any, _method: str, event: Any) -> Any:
        """Before it is rendered each value by itself; afterwards the line, for what only then became text."""
        return mask.mask_json(event)

    terminal = sys.stderr.isatty()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if terminal else "iso", utc=True),
    ]
    people, programs = structlog.dev.ConsoleRenderer, structlog.processors.JSONRenderer
    colours = not os.environ.get("NO_COLOR")
    renderer = people(colors=colours) if terminal else programs(ensure_ascii=False)
    render: list[Any] = [structlog.processors.format_exc_info, masked, renderer, masked]
    level = logging.ERROR if quiet else logging.INFO
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[_drop_processor_metadata, *render]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("apscheduler").setLevel(logging.ERROR)  # a tick that is still busy is coalesced, by design


def _drop_processor_metadata(_logger: Any, _method: str, event: Any) -> Any:
    return structlog.stdlib.ProcessorFormatter.remove_processors_meta(_logger, _method, event)
