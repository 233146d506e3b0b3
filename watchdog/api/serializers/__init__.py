"""The JSON of each resource, one module each: the HTTP API, the commands and the MCP tools give the same objects.

Instants are RFC 3339 strings in UTC with milliseconds. Durations are in ms, and their names end with `_ms`.
"""
