"""Who is told, and why. Pure."""

from watchdog.alerts.routing import Match, Route, Routes, Routing

__all__ = ["Match", "Route", "Routes", "Routing"]
