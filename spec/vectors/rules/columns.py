"""The columns of Reconcile (chapter 7): packed byte strings, written and read. Knows nothing of what is true."""

import functools

from .protobuf import varint
from .records import sha256

SKIP, FINGERPRINT, ITEMS = 0, 1, 2  # kinds of a request's part
EQUAL, SPLIT, RESOLVED = 0, 1, 2  # answers
MAX_BOUND = 513


class Malformed(Exception):
    pass


def short(salt, digest, length):
    if length == 32:
        return digest
    total = keys(salt)[0] + sum(k * w for k, w in zip(keys(salt)[1:], numbers(digest, 8)))
    return (total % (1 << 128)).to_bytes(16, "big")[:length]


@functools.cache
def keys(salt):
    stem = b"gosync.v1.shorts" + salt.to_bytes(8, "big")
    return numbers(b"".join(sha256(stem + bytes([i])) for i in range(3)), 16)[:5]


def numbers(data, size):
    return [int.from_bytes(data[i : i + size], "big") for i in range(0, len(data), size)]


def put_bound(lower, upper):
    same = 0
    while same < min(len(lower), len(upper)) and lower[same] == upper[same]:
        same += 1
    drop, add = len(lower) - same, len(upper) - same
    out = bytes([min(drop, 15) * 16 + min(add, 15)])
    for n in (drop, add):
        if n >= 15:
            out += varint(n - 15)
    return out + upper[same:]


def put_request(parts):
    """Of parts (start, end, kind, shorts) that tile the key space: the columns parts, bounds and digests."""
    out = [b"", b"", b""]
    for start, end, kind, shorts in parts:
        out[0] += varint((len(shorts) if kind == ITEMS else 1) * 4 + kind)
        if end is not None:
            out[1] += put_bound(start, end)
        out[2] += b"".join(shorts)
    return dict(zip(("parts", "bounds", "digests"), out))


def put_lacking(flags):
    """Runs of items that the server has and lacks, in turns; the last run of such as it has is left out."""
    while flags and not flags[-1]:
        flags = flags[:-1]
    out, state, at = b"", False, 0
    while at < len(flags):
        run = at
        while run < len(flags) and flags[run] == state:
            run += 1
        out, at, state = out + varint(run - at), run, not state
    return out


def put_answer(told, lacking, records, resume_at):
    """Of what take_answer() gives; parts of which nothing is told are left out."""
    parts = bounds = digests = b""
    for answer in told:
        if answer is None:
            continue
        if answer[0] != "split":
            parts += varint(4 + (EQUAL if answer[0] == "equal" else RESOLVED))
            continue
        parts += varint(len(answer[1]) * 4 + SPLIT)
        for i, (lower, upper, piece) in enumerate(answer[1]):
            bounds += put_bound(lower, upper) if i + 1 < len(answer[1]) else b""
            digests += piece
    return {
        "parts": parts,
        "bounds": bounds,
        "digests": digests,
        "lacking": put_lacking(lacking),
        "records": records,
        "resume_at": resume_at,
    }


class Column:
    """Reads one column from its start to its end."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if self.at + n > len(self.data):
            raise Malformed("entries are missing")
        self.at += n
        return self.data[self.at - n : self.at]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
            if shift == 70:
                raise Malformed("a varint of more than ten bytes")
        if value >> 64 or (shift > 7 and byte == 0):
            raise Malformed("a varint that is not in shortest form, or over 64 bits")
        return value

    def bound(self, lower):
        head = self.take(1)[0]
        counts = [n + self.varint() if n == 15 else n for n in (head >> 4, head & 15)]
        if counts[0] > len(lower):
            raise Malformed("a bound that drops more than there is")
        upper = lower[: len(lower) - counts[0]] + self.take(counts[1])
        if upper <= lower or len(upper) > MAX_BOUND:
            raise Malformed("a bound that is not above the lower one, or too long")
        return upper

    def done(self):
        if self.at != len(self.data):
            raise Malformed("entries are left over")


def take_request(request, length):
    """The parts (start, end, kind, shorts) of a request's columns."""
    column, kinds = Column(request["parts"]), []
    while column.at < len(column.data):
        n, kind = divmod(column.varint(), 4)
        if kind == 3 or (kind != ITEMS and n == 0):
            raise Malformed("a kind that does not exist, or a run of no parts")
        if n > len(request["bounds"]) + len(request["digests"]) + 1:
            raise Malformed("entries are missing")
        kinds += [(kind, n)] if kind == ITEMS else [(kind, kind)] * n
    if not kinds:
        raise Malformed("no part at all")
    bounds, digests = Column(request["bounds"]), Column(request["digests"])
    parts, start = [], b""
    for i, (kind, shorts) in enumerate(kinds):
        end = bounds.bound(start) if i + 1 < len(kinds) else None
        parts.append((start, end, kind, [digests.take(length) for _ in range(shorts)]))
        start = end
    bounds.done()
    digests.done()
    return parts


def take_answer(answer, asked, length):
    """What is answered to each asked part: None, or ('equal',), ('split', pieces), ('resolved',); and the flags of
    `lacking`, as many as there are items in resolved parts. Pieces are (start, end, short)."""
    resume = answer["resume_at"]
    column, bounds, digests = Column(answer["parts"]), Column(answer["bounds"]), Column(answer["digests"])
    told, run, kind, items = [], 0, 0, 0
    for start, end, asks, shorts in asked:
        if resume is not None and start >= resume:
            told.append(None)
            continue
        if run == 0:
            run, kind = divmod(column.varint(), 4)
            if run == 0 or kind == 3 or (kind != RESOLVED and asks == ITEMS):
                raise Malformed("an answer to nothing, or of a kind that does not go with the part")
        elif kind != RESOLVED and asks == ITEMS:
            raise Malformed("an answer of a kind that does not go with the part")
        if kind == SPLIT:
            pieces, lower = [], start
            for i in range(run):
                upper = bounds.bound(lower) if i + 1 < run else end
                if i + 1 < run and end is not None and upper >= end:
                    raise Malformed("an inner bound outside its part")
                pieces.append((lower, upper, digests.take(length)))
                lower = upper
            told.append(("split", pieces))
            run = 0
        else:
            told.append(("equal",) if kind == EQUAL else ("resolved",))
            items += len(shorts) if asks == ITEMS else 0
            run -= 1
    if run:
        raise Malformed("more answers than parts")
    for c in (column, bounds, digests):
        c.done()
    flags, runs, lacks = [], Column(answer["lacking"]), False
    while runs.at < len(runs.data):
        n = runs.varint()
        if len(flags) + n > items:
            raise Malformed("lacking counts more items than there are")
        flags += [lacks] * n
        lacks = not lacks
    return told, flags + [False] * (items - len(flags))
