"""The web server: an ASGI server behind bounds on connections and requests, so that visitors delay no check-in."""

from __future__ import annotations

from watchdog.server.guard import InboundConnectionGuard, InboundConnectionLimits
from watchdog.server.web_server import WebServer, open_listen_socket

__all__ = ["InboundConnectionGuard", "InboundConnectionLimits", "WebServer", "open_listen_socket"]
