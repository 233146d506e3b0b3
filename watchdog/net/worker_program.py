"""Runs functions for another process, until that process closes the socket: `python -I worker_program.py FD`.

The socket carries pickles, each after its size. It receives `sys.path`, then a (function, arguments)
for each call, and sends (True, result) or (False, exception).
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
import sys
from queue import SimpleQueue
from threading import Thread

MESSAGE_LENGTH_PREFIX_STRUCT_FORMAT = "!Q"
MESSAGE_LENGTH_PREFIX_BYTES = struct.calcsize(MESSAGE_LENGTH_PREFIX_STRUCT_FORMAT)


def serve_worker_requests(connection: socket.socket) -> None:
    """Never returns."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the process that it belongs to decides when it ends
    requests: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=queue_worker_requests_until_eof_then_exit, args=(connection, requests), daemon=True).start()
    sys.path[:] = pickle.loads(requests.get())  # noqa: S301 - from the process that started this one
    while True:
        response = run_pickled_call(requests.get())
        connection.sendall(struct.pack(MESSAGE_LENGTH_PREFIX_STRUCT_FORMAT, len(response)))
        connection.sendall(response)


def queue_worker_requests_until_eof_then_exit(connection: socket.socket, requests: SimpleQueue[bytes]) -> None:
    """Ends the process at the end of the stream, also while a function runs."""
    try:
        with connection.makefile("rb") as stream:
            while header := stream.read(MESSAGE_LENGTH_PREFIX_BYTES):
                requests.put(stream.read(struct.unpack(MESSAGE_LENGTH_PREFIX_STRUCT_FORMAT, header)[0]))
    finally:
        os._exit(0)


def run_pickled_call(request: bytes) -> bytes:
    try:
        function, args = pickle.loads(request)  # noqa: S301 - from the process that started this one
        return pickle.dumps((True, function(*args)))
    except Exception as error:
        try:
            response = pickle.dumps((False, error))
            pickle.loads(response)  # noqa: S301 - just made
        except Exception:  # errors of libraries may need more arguments than they pickle
            return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
        return response


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as other_process:
        other_process.set_inheritable(False)
        serve_worker_requests(other_process)
