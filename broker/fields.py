"""The fields that MQTT packets are made of: integers, strings, lengths; read so that nothing past an end is touched."""

from __future__ import annotations

import struct

from broker.reasons import Reason


class FieldError(Exception):
    """A field is cut off or holds what it must not; `codec` makes a ProtocolError of it."""

    def __init__(self, message: str, reason: Reason = Reason.MALFORMED_PACKET) -> None:
        super().__init__(message)
        self.reason = reason


MAX_LENGTH = 268_435_455  # four bytes of seven bits

U16 = struct.Struct(">H")
U32 = struct.Struct(">I")


def encode_length(length: int) -> bytes:
    """A variable byte integer, 1 to 4 bytes, least significant seven bits first."""
    if length < 128:
        return bytes((length,))
    if length > MAX_LENGTH:
        raise ValueError(f"{length} bytes do not fit into an MQTT packet")
    out = bytearray()
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    out.append(length)
    return bytes(out)


def encode_field(data: str | bytes) -> bytes:
    """A string or binary field: two bytes of length, then the bytes."""
    raw = data.encode() if isinstance(data, str) else data
    if len(raw) > 0xFFFF:
        raise ValueError(f"a field of {len(raw)} bytes is over MQTT's 65,535")
    return U16.pack(len(raw)) + raw


def decode_text(data: memoryview) -> str:
    """A string; Python's decoder refuses surrogates and overlong forms, as MQTT-1.5.4-1 asks."""
    try:
        text = str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise FieldError("a string is not UTF-8") from error
    if "\0" in text:
        raise FieldError("a string contains U+0000")
    return text


class Cursor:
    """A position in a packet's body that refuses to go past its end."""

    __slots__ = ("_data", "at")

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.at = 0

    def take(self, size: int) -> memoryview:
        start, self.at = self.at, self.at + size
        if self.at > len(self._data):
            raise FieldError("a packet ends in the middle of a field")
        return self._data[start : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        high, low = self.take(2)
        return high << 8 | low

    def u32(self) -> int:
        (value,) = U32.unpack(self.take(4))
        return int(value)

    def length(self) -> int:
        """A variable byte integer; one with more bytes than it needs is malformed (MQTT-1.5.5-1)."""
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                if shift and not byte:
                    raise FieldError("a variable byte integer with a byte too many")
                return value
        raise FieldError("a variable byte integer of more than four bytes")

    def packet_id(self) -> int:
        value = self.u16()
        if value == 0:
            raise FieldError("packet id 0", Reason.PROTOCOL_ERROR)
        return value

    def blob(self) -> bytes:
        return bytes(self.take(self.u16()))

    def text(self) -> str:
        return decode_text(self.take(self.u16()))

    def rest(self) -> memoryview:
        return self.take(len(self._data) - self.at)

    def more(self) -> bool:
        return self.at < len(self._data)

    def end(self) -> None:
        if self.more():
            raise FieldError("bytes follow the last field of a packet")
