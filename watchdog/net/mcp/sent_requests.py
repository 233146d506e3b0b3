"""The requests of a session, and the replies that belong to none of them."""

from __future__ import annotations

from mcp.types import JSONRPCError, JSONRPCMessage, JSONRPCRequest, JSONRPCResponse

from watchdog.net.errors import ProbeError


class SentMcpRequests:
    """The ids of the requests of a session, to detect replies that belong to none of them."""

    def __init__(self) -> None:
        self.methods: dict[str, str] = {}
        """Id -> method."""
        self._awaited: set[str] = set()

    def add(self, request: JSONRPCRequest) -> None:
        self.methods[str(request.id)] = request.method
        self._awaited.add(str(request.id))

    @property
    def awaited_method_by_request_id(self) -> dict[str, str]:
        """Of the requests that still await their reply."""
        return {id_: method for id_, method in self.methods.items() if id_ in self._awaited}

    def find_mcp_method_of_reply(self, response: JSONRPCResponse) -> str:
        """The method of the request that this is the response to; empty if there is none."""
        return self.methods.get(str(response.id), "")

    def mark_request_answered_or_reject_unknown_reply(self, message: JSONRPCMessage) -> None:
        """Raises ProbeError for a reply to another request, if there is one that still awaits its reply."""
        if not isinstance(message, JSONRPCResponse | JSONRPCError):
            return
        if message.id is None:  # in an error about a request that the server could not parse
            return
        if self._awaited and str(message.id) not in self.methods:
            raise ProbeError(
                "mcp.unexpected_id", f"the server replies to request {str(message.id)[:40]!r}, which was never sent"
            )
        self._awaited.discard(str(message.id))
