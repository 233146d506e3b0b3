"""JSON shapes that the command line, the pages and the MCP server share."""
