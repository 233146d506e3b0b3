"""The contract of an MCP server, its changes, and what is remembered of them. Pure."""
