"""Watchdog as an MCP server, for agents and for another Watchdog. Its library is loaded with the first request."""
