"""An HTTP server in threads that prints nothing about clients that disconnect."""

from __future__ import annotations

from http.server import ThreadingHTTPServer
from typing import Any


class QuietHttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores clients that have disconnected."""
