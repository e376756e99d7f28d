"""Messages as bytes: Protocol Buffers by hand, fields in the order of their numbers. Knows no rule of the protocol."""

import struct


def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number, kind, value):
    """One field; zero and empty are left out, as proto3 does."""
    if kind == "fixed64":
        return varint(number << 3 | 1) + struct.pack("<Q", value) if value else b""
    if kind == "varint":
        return varint(number << 3) + varint(int(value)) if value else b""
    if kind == "bytes":
        data = value if isinstance(value, bytes) else value.encode()
        return varint(number << 3 | 2) + varint(len(data)) + data if data else b""
    if kind == "message":  # also when it is empty
        return varint(number << 3 | 2) + varint(len(value)) + value
    raise ValueError(kind)


def version_message(time, replica):
    return field(1, "fixed64", time) + field(2, "fixed64", replica)


def record_message(r):
    return (
        field(1, "bytes", r["key"])
        + field(2, "message", version_message(r["time"], r["replica"]))
        + field(3, "varint", r["flags"])
        + field(4, "bytes", r["value"])
    )


def range_message(start, end):
    return field(1, "bytes", start) + (b"" if end is None else field(2, "message", end))


def cursor_message(epoch, sequence, tag):
    return field(1, "fixed64", epoch) + field(2, "varint", sequence) + field(3, "fixed64", tag)


def held_message(ranges, cursor=None):
    out = b"".join(field(1, "message", range_message(*r)) for r in ranges)
    return out + (b"" if cursor is None else field(2, "message", cursor_message(*cursor)))


def position_message(cursor, horizon):
    return field(1, "message", cursor_message(*cursor)) + field(2, "fixed64", horizon)
