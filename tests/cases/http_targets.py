"""HTTP targets on loopback, one behaviour for each path, with the expected result beside it."""

from __future__ import annotations

import socket
import threading


def full(body: bytes, content_type: bytes = b"application/json", extra: bytes = b"") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: " + content_type + b"\r\nContent-Length: %d\r\n" % len(body)
    return head + extra + b"\r\n" + body


CASES = {
    # expect: []                             right: pass (the second request brings back the cookie of the first)
    "/cookie-loop": b"",
    # expect: ["body.status == 'ok'"]        right: pass (RFC 8259 8.1: a reader may ignore the mark)
    "/bom": full(b"\xef\xbb\xbf" + b'{"status":"ok"}'),
    # expect: ["body.contains('Checkout')"]  right: pass (it stands in what was read); a limit is never "fail"
    "/page300k": full(b"<html>Checkout" + b"x" * 300_000 + b"</html>", b"text/html"),
}


def serve(conn: socket.socket) -> None:
    with conn:
        head = b""
        while b"\r\n\r\n" not in head:
            received = conn.recv(65536)
            if not received:
                return
            head += received
        path = head.split(b" ")[1].decode()
        if path == "/cookie-loop":
            has_cookie = b"cookie: seen=1" in head.lower()
            redirect = (
                b"HTTP/1.1 302 Found\r\nSet-Cookie: seen=1; Path=/\r\n"
                b"Location: /cookie-loop\r\nContent-Length: 0\r\n\r\n"
            )
            conn.sendall(full(b"welcome") if has_cookie else redirect)
        else:
            conn.sendall(CASES.get(path) or full(b"ok"))


def start() -> tuple[socket.socket, str]:
    """A listening socket that is served until it is closed, and its base URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:  # closed
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"
