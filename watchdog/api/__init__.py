"""JSON that the command line, the web interface and the MCP server share. Nothing else shapes JSON for clients."""
