"""How we touch the network: the HTTP exchange, the MCP adapter, the address filter, redaction."""


class Wire:
    """The process's shared connections and contexts."""
