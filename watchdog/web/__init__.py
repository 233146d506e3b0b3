"""The faces in the browser: a public status page, and pages for operators."""

from watchdog.web.access import Key
from watchdog.web.app import create_app
from watchdog.web.status import Site

__all__ = ["Key", "Site", "create_app"]
