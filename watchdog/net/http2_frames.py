"""The frames that an HTTP/2 server sends, as far as they show how a call has ended (RFC 9113)."""

from __future__ import annotations

from enum import IntEnum

_FRAME_HEADER_BYTES = 9
_END_STREAM_FLAG, _ACK_FLAG = 0x1, 0x1
_FIRST_CALL_STREAM_ID = 1
_GOAWAY_FIXED_BYTES = 8
"""The last stream and the error code, which precede the server's text."""
MAX_GOAWAY_TEXT_BYTES = 1_000


class _FrameType(IntEnum):
    DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x7


class Http2FrameScanner:
    """Follows the frames of a connection on which a single call is made. Frames are not decoded."""

    def __init__(self) -> None:
        self.is_http2 = True
        """False once the server has sent something else than the first frame of HTTP/2."""
        self.has_first_frame = False
        self.is_call_ended = False
        """Whether the server has ended the call: by the last frame of its response, or by resetting the stream."""
        self.is_call_ended_by_data = False
        """Whether the last frame of the response is a part of its body. A response of gRPC ends with a status."""
        self.goaway_text: str | None = None
        """What the server stated when it announced that it closes the connection; None: it has not announced it."""
        self._header = bytearray()
        self._payload_start = bytearray()
        self._remaining_payload_bytes = 0
        self._frame_type = -1

    def feed(self, data: bytes) -> None:
        """Follows what was received."""
        position = 0
        while self.is_http2 and position < len(data):
            if self._remaining_payload_bytes:
                position = self._skip_payload(data, position)
                continue
            missing_bytes = _FRAME_HEADER_BYTES - len(self._header)
            self._header += data[position : position + missing_bytes]
            position += missing_bytes
            if not self.has_first_frame and self._header[0]:  # no server begins with a frame of 64 KiB or more
                self.is_http2 = False
            elif len(self._header) == _FRAME_HEADER_BYTES:
                self._begin_frame(bytes(self._header))
                self._header.clear()

    def _begin_frame(self, header: bytes) -> None:
        length, self._frame_type, flags = int.from_bytes(header[:3]), header[3], header[4]
        stream_id = int.from_bytes(header[5:]) & 0x7FFF_FFFF
        if not self.has_first_frame:
            is_settings = self._frame_type == _FrameType.SETTINGS and not flags & _ACK_FLAG and not stream_id
            if not (is_settings or (self._frame_type == _FrameType.GOAWAY and not stream_id)):
                self.is_http2 = False
                return
            self.has_first_frame = True
        is_last_frame = self._frame_type in (_FrameType.DATA, _FrameType.HEADERS) and bool(flags & _END_STREAM_FLAG)
        if stream_id == _FIRST_CALL_STREAM_ID and (is_last_frame or self._frame_type == _FrameType.RST_STREAM):
            self.is_call_ended = True
            self.is_call_ended_by_data = self._frame_type == _FrameType.DATA
        if self._frame_type == _FrameType.GOAWAY:
            self.goaway_text = ""
        self._payload_start.clear()
        self._remaining_payload_bytes = length

    def _skip_payload(self, data: bytes, position: int) -> int:
        part = data[position : position + self._remaining_payload_bytes]
        self._remaining_payload_bytes -= len(part)
        if self._frame_type == _FrameType.GOAWAY:
            room = _GOAWAY_FIXED_BYTES + MAX_GOAWAY_TEXT_BYTES - len(self._payload_start)
            self._payload_start += part[: max(room, 0)]
            self.goaway_text = self._payload_start[_GOAWAY_FIXED_BYTES:].decode(errors="replace")
        return position + len(part)
