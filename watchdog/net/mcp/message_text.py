"""The text of JSON-RPC messages: read as widely as other clients read it. A reply that is no message is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from mcp.types import jsonrpc_message_adapter

from watchdog.domain.model import Json
from watchdog.domain.text import quote_json_value
from watchdog.net.errors import ProbeError
from watchdog.net.text_encoding import parse_json_with_lone_surrogates_and_huge_numbers


def normalize_jsonrpc_message(data: bytes, awaited_method_by_request_id: Mapping[str, str]) -> bytes:
    """The message as the SDK reads it, for one that other clients read: with half an emoji or a long number, with an id
    such as 2.0, or in a batch. Data that is no message is returned as it is.

    `awaited_method_by_request_id`: id of each request without a reply -> its method, the newest last. Raises
    ProbeError for a reply that is no valid message, because the session would wait for it until the deadline.
    """
    if data.lstrip()[:1] not in (b"{", b"[") or _is_valid_jsonrpc_message(data):
        return data
    try:
        value = parse_json_with_lone_surrogates_and_huge_numbers(data.decode(errors="replace"))
    except RecursionError:
        if awaited_method_by_request_id and b'"jsonrpc"' in data[:1_000]:
            raise _build_reply_too_deep_error([*awaited_method_by_request_id.values()][-1]) from None
        return data
    except ValueError:
        return data
    reply = _find_awaited_reply(value, awaited_method_by_request_id)
    if reply is None:
        return data
    method = awaited_method_by_request_id[str(reply["id"])]
    if problem := _find_jsonrpc_reply_problem(reply):
        raise ProbeError("mcp.invalid_response", f"the reply to {method} is not a JSON-RPC message: {problem}")
    encoded = json.dumps(reply).encode()
    if not _is_valid_jsonrpc_message(encoded):  # of all that the SDK refuses, only the depth is left
        raise _build_reply_too_deep_error(method)
    return encoded


def contains_awaited_mcp_reply(data: bytes, awaited_method_by_request_id: Mapping[str, str]) -> bool:
    if b"{" not in data[:100]:
        return False
    try:
        return (
            _find_awaited_reply(
                parse_json_with_lone_surrogates_and_huge_numbers(data.decode(errors="replace")),
                awaited_method_by_request_id,
            )
            is not None
        )
    except (ValueError, RecursionError):
        return False


def _is_valid_jsonrpc_message(data: bytes) -> bool:
    with suppress(ValueError):
        jsonrpc_message_adapter.validate_json(data.decode(errors="replace"), by_name=False)
        return True
    return False


def _find_awaited_reply(value: Json, awaited_method_by_request_id: Mapping[str, str]) -> dict[str, Any] | None:
    """The value itself, or one of the messages of a batch, with the id as it was sent."""
    for message in value if isinstance(value, list) else [value]:
        if isinstance(message, dict) and "method" not in message and not message.keys().isdisjoint(("result", "error")):
            id_ = message.get("id")
            id_ = int(id_) if isinstance(id_, float) and id_.is_integer() else id_
            if isinstance(id_, int | str) and str(id_) in awaited_method_by_request_id:
                return {**message, "id": id_}
    return None


def _find_jsonrpc_reply_problem(reply: Mapping[str, Json]) -> str:
    """What makes it no JSON-RPC message; empty: nothing that is known."""
    error = reply.get("error")
    checks = [
        ("jsonrpc", reply, reply.get("jsonrpc") == "2.0", "'2.0'"),
        ("result", reply, error is not None or isinstance(reply.get("result"), dict), "an object"),
        ("error", reply, error is None or isinstance(error, dict), "an object"),
    ]
    if isinstance(error, dict):
        checks += [
            ("code", error, isinstance(error.get("code"), int), "a whole number"),
            ("message", error, isinstance(error.get("message"), str), "text"),
        ]
    for name, parent, is_valid, expected in checks:
        if not is_valid:
            place = name if parent is reply else f"error.{name}"
            actual = quote_json_value(parent[name], 200) if name in parent else "missing"
            return f"{place} is {actual}, expected {expected}"
    return ""


def _build_reply_too_deep_error(method: str) -> ProbeError:
    return ProbeError(
        "json.too_complex", f"the reply to {method} is nested deeper than Watchdog reads", is_internal=True
    )
