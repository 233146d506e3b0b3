"""The web interface: a public status page, operator pages, a JSON API, check-ins, and the route of the MCP server."""

from watchdog.web.app import create_web_app
from watchdog.web.auth.session import ApiKey
from watchdog.web.pages.status_snapshot import StatusPageConfig

__all__ = ["ApiKey", "StatusPageConfig", "create_web_app"]
