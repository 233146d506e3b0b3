"""An MCP server of the older protocol over standard input and output, written without an SDK.

usage: raw_stdio.py FAULT
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

FAULT_NAME = sys.argv[1]
stdout_buffer = sys.stdout.buffer


def write_message(message: dict[str, Any] | bytes) -> None:
    stdout_buffer.write(message if isinstance(message, bytes) else json.dumps({"jsonrpc": "2.0", **message}).encode())
    stdout_buffer.write(b"\n")
    stdout_buffer.flush()


def write_forever(chunk: bytes) -> None:
    while True:
        stdout_buffer.write(chunk)


def notification(data: str = "done") -> bytes:
    params = {"level": "info", "data": data}
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": params}).encode()


def notify_forever() -> None:
    while True:
        write_message(notification())
        time.sleep(0.005)


def follow_up(reply: dict[str, Any], id_: Any) -> bytes | None:
    """What is written behind the last reply, in the same write."""
    again = json.dumps({"jsonrpc": "2.0", **reply}).encode()
    match FAULT_NAME:
        case "logs_after":
            return notification()
        case "logs_a_lot_after":
            return b"\n".join([notification()] * 200)
        case "pings_after":
            return b'{"jsonrpc":"2.0","id":"p1","method":"ping"}'
        case "repeats_after":
            return again
        case "unknown_id_after":
            return again.replace(b'"id": %d' % id_, b'"id": 4711')
        case "garbage_after":
            return b"bye"
    return None


def fork_children() -> None:
    """Starts a process in this session and one in a session of its own. Both outlive this process unless killed."""
    for detach in (False, True):
        if os.fork() == 0:
            if detach:
                os.setsid()
            time.sleep(600)
            os._exit(0)


def start_escaping_process() -> None:
    """Starts a process that shares nothing with this one: session, parent, environment, descriptors, signals."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 256)
            program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
            os.execve(sys.executable, [sys.executable, "-c", program, *sys.argv], {})
        os._exit(0)
    os.wait()


def leave_process_behind(exit_code: int) -> None:
    """Exits, and leaves a process that holds the standard streams."""
    if os.fork() == 0:
        time.sleep(600)
    os._exit(exit_code)


def write_before_the_first_message() -> None:
    match FAULT_NAME:
        case "flood":
            write_forever(b"x" * 65536)
        case "lines":
            write_forever(b"x" * 100 + b"\n")
        case "banner":
            write_message(b"Server started on stdio")
        case "banner_in_line":
            stdout_buffer.write(b"Server {debug} started on stdio... ")
        case "banner_with_braces":
            stdout_buffer.write(b"Routes: " + b"{a} {b: {c}} " * 6 + b"ready ")
        case "banner_with_a_message":
            stdout_buffer.write(b'Example: {"jsonrpc": "2.0", "method": } ... ')
        case "byte_order_mark_after_banner":
            stdout_buffer.write(b"Server started\n\xef\xbb\xbf")
        case "byte_order_mark":
            stdout_buffer.write(b"\xef\xbb\xbf")
        case "notifies_forever":
            threading.Thread(target=notify_forever, daemon=True).start()


def start_processes() -> None:
    match FAULT_NAME:
        case "forks" | "forks_and_hangs":
            fork_children()
        case "escapes" | "escapes_and_hangs":
            start_escaping_process()
        case "leaves_a_holder":
            leave_process_behind(0)
        case "launches":
            if os.fork():
                os._exit(0)


def end_or_hang() -> None:
    match FAULT_NAME:
        case "exits":
            sys.exit("config.toml: no such file")
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case "deaf":
            time.sleep(600)


HANGS = (
    ("blocks_at_discovery", "server/discover"),
    *((name, "tools/call") for name in ("hangs", "stubborn", "forks_and_hangs", "escapes_and_hangs")),
)
WITHOUT_REPLY = (("ignores", "server/discover"), ("notifies_forever", "tools/call"))


def answer_request(request: dict[str, Any]) -> dict[str, Any] | bytes | None:
    method, id_ = request["method"], request.get("id")
    if (FAULT_NAME, method) in HANGS:
        time.sleep(600)
    if (FAULT_NAME, method) in WITHOUT_REPLY:
        return None
    match FAULT_NAME, method:
        case ("leaves", "server/discover") | ("leaves_at_call", "tools/call"):
            sys.exit(3)
        case ("fails_with_a_holder", "tools/call"):
            leave_process_behind(3)
        case ("mutes", "tools/call"):
            os.close(stdout_buffer.fileno())
            time.sleep(600)
        case ("sdk_error_code", "tools/call"):
            return {"id": id_, "error": {"code": -32000, "message": "no database"}}
        case ("wrong_id", "tools/list"):
            return {"id": 77, "result": {"tools": []}}
        case ("bad_byte", "tools/call"):
            text = b'{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"caf\xe9"}]}}'
            return text % id_
        case _, "initialize":
            info = {"name": "Raw", "version": "0.1"}
            return {"id": id_, "result": {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": info}}
        case _, "tools/list":
            return {"id": id_, "result": {"tools": [{"name": "health_check", "inputSchema": {"type": "object"}}]}}
        case _, "tools/call":
            return {"id": id_, "result": {"content": [{"type": "text", "text": '{"healthy": true}'}]}}
    return None if id_ is None else {"id": id_, "error": {"code": -32601, "message": "Method not found"}}


end_or_hang()
start_processes()
write_before_the_first_message()
for line in sys.stdin:
    request = json.loads(line)
    reply = answer_request(request)
    if isinstance(reply, dict) and request["method"] == "tools/call" and (more := follow_up(reply, request["id"])):
        write_message(json.dumps({"jsonrpc": "2.0", **reply}).encode() + b"\n" + more)
    elif reply:
        write_message(reply)
if FAULT_NAME == "stubborn":
    time.sleep(600)
