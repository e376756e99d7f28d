"""Protocol Buffers by hand: the schema as the .proto files have it, text to bytes, bytes to fields."""

import pathlib
import re
import struct

FOLDER = pathlib.Path(__file__).resolve().parents[3] / "proto/gosync/v1"
PACKAGE = "gosync.v1."
WIRE = {"uint32": 0, "uint64": 0, "bool": 0, "fixed64": 1, "string": 2, "bytes": 2}


class Refused(Exception):
    """With the class of what is wrong."""


def read_schema():
    """{message: {field: (label, type, number)}} and {enum: {name: number}}."""
    text = "".join(re.sub("//.*", "", path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.proto")))
    # one of several has presence, as `optional` has
    text = re.sub(r"oneof\s+\w+\s*{([^}]*)}", lambda m: re.sub(r"(\w+ \w+ = )", r"optional \1", m[1]), text)
    messages, enums = {}, {}
    for kind, name, body in re.findall(r"\b(message|enum)\s+(\w+)\s*{([^}]*)}", text):
        if kind == "enum":
            enums[name] = {n: int(i) for n, i in re.findall(r"(\w+) = (\d+);", body)}
        else:
            fields = re.findall(r"(optional |repeated |)(\w+) (\w+) = (\d+);", body)
            messages[name] = {n: (label.strip(), of, int(i)) for label, of, n, i in fields}
    return messages, enums


MESSAGES, ENUMS = read_schema()


def wire_type(of):
    return 2 if of in MESSAGES else WIRE.get(of, 0)


def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


# ---------------------------------------------------------- text to bytes ----


def encode(kind, text):
    """A message in text format, with its fields in the order of their numbers."""
    tokens = re.findall(r'"(?:[^"\\]|\\.)*"|[{}]|[^\s{}:]+', text)
    data = message(kind.removeprefix(PACKAGE), tokens)
    assert not tokens, tokens
    return data


def message(kind, tokens):
    values = {}
    while tokens and tokens[0] != "}":
        name = tokens.pop(0)
        label, of, number = MESSAGES[kind][name]
        if of in MESSAGES:
            assert tokens.pop(0) == "{"
            value = message(of, tokens)
            assert tokens.pop(0) == "}"
        else:
            value = scalar(of, tokens.pop(0))
        values.setdefault((number, label, of), []).append(value)
    return b"".join(field(*key, values[key]) for key in sorted(values))


def scalar(of, token):
    if of in ENUMS:
        return ENUMS[of][token]
    if WIRE[of] == 2:
        escape = rb"\\([0-7]{1,3}|.)"
        return re.sub(escape, lambda m: bytes([int(m[1], 8)]) if m[1].isdigit() else m[1], token[1:-1].encode())
    return {"true": 1, "false": 0}[token] if of == "bool" else int(token)


def field(number, label, of, values):
    wire = wire_type(of)
    write = {0: varint, 1: lambda n: struct.pack("<Q", n), 2: lambda data: varint(len(data)) + data}[wire]
    if label == "repeated" and wire != 2:
        packed = b"".join(map(write, values))
        return varint(number << 3 | 2) + varint(len(packed)) + packed
    if label == "" and of not in MESSAGES and not values[-1]:
        return b""  # zero and empty are left out
    return b"".join(varint(number << 3 | wire) + write(v) for v in values)


# -------------------------------------------------------- bytes to fields ----


def decode(kind, data, short="truncated"):
    """{field: [values]}. Bytes that end within a field of the message itself are cut off; within a nested message,
    whose length was told, the field's length is wrong."""
    known = {number: (name, label, of) for name, (label, of, number) in MESSAGES[kind].items()}
    found, at = {name: [] for name in MESSAGES[kind]}, 0

    def take(n):
        nonlocal at
        if at + n > len(data):
            raise Refused(short)
        at += n
        return data[at - n : at]

    def take_varint():
        value = 0
        for shift in range(0, 70, 7):
            byte = take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise Refused("varint_too_long")

    while at < len(data):
        number, wire = divmod(take_varint(), 8)
        name, label, of = known.get(number, (None, "", ""))
        if number == 0:
            raise Refused("field_zero")
        if wire in (4, 6, 7):
            raise Refused("invalid_wire_type")
        if name and wire != wire_type(of) and not (label == "repeated" and wire == 2):
            raise Refused("wrong_wire_type")
        if wire == 3:
            raise Refused("unclosed_group")
        value = take_varint() if wire == 0 else take({1: 8, 5: 4}[wire] if wire != 2 else take_varint())
        if of in MESSAGES:
            value = decode(of, value, "length_beyond_end")
        elif of == "string":
            try:
                value = value.decode()
            except UnicodeDecodeError:
                raise Refused("invalid_utf8") from None
        elif of == "fixed64" and wire == 1:
            (value,) = struct.unpack("<Q", value)
        if name:
            found[name].append(value)
    return found
