"""The faces in the browser: a public status page, and pages for operators."""

from watchdog.web.app import create_app
from watchdog.web.auth.access import ApiKey
from watchdog.web.pages.status import StatusPageConfig

__all__ = ["ApiKey", "StatusPageConfig", "create_app"]
