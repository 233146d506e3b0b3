"""How much a connection has received, by the kernel's count: for drivers that read a value of any size as a whole."""

from __future__ import annotations

import os
import socket
import struct
import sys

_TCP_INFO_BYTES_RECEIVED_OFFSET = 128
"""Of the field tcpi_bytes_received in `struct tcp_info` of Linux."""
_TCP_INFO_BYTES = _TCP_INFO_BYTES_RECEIVED_OFFSET + 8


def count_received_tcp_bytes(descriptor: int) -> int:
    """Bytes that the TCP connection with this descriptor has received. 0 on other systems than Linux, and for
    connections of other kinds. Raises OSError if it is not open."""
    if sys.platform != "linux":
        return 0
    with socket.socket(fileno=os.dup(descriptor)) as duplicate:
        if duplicate.family not in (socket.AF_INET, socket.AF_INET6):
            return 0
        info = duplicate.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    if len(info) < _TCP_INFO_BYTES:  # a kernel before 4.1
        return 0
    [count] = struct.unpack_from("Q", info, _TCP_INFO_BYTES_RECEIVED_OFFSET)
    return int(count)
