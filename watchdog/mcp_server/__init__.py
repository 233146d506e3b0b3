"""Watchdog as an MCP server, for agents and for another Watchdog. The MCP SDK is loaded at the first request."""
