"""A reconcile session's questions and answers (chapter 7). Knows columns and leaves, no store and no calls."""

from rules import Column, Malformed, fingerprint, inside, put_bound, put_varint, separator, short

ITEMS_AT_ONCE = 64  # a part with no more records than this is listed (section 7.8)


class Part:
    """A piece of the key space that is still open in a reconcile session."""

    def __init__(self, low, high, differs=False, full=False, fine=False):
        self.low, self.high = low, high
        self.differs = differs  # fingerprints of it were seen to differ
        self.full = full  # is asked with digests of 32 bytes (RECON-037)
        self.fine = fine  # the server cannot split it (RECON-051)


def question(parts, leaves_of, salt, length, room):
    """The columns of a request about these parts, what it asks, and the parts for which there was no room."""
    asked, unasked = [], []
    for part in parts:
        leaves = leaves_of(part.low, part.high)
        if len(leaves) <= ITEMS_AT_ONCE or (part.fine and len(leaves) <= room):
            pieces = [(part, leaves, True)]
        else:
            pieces = pieces_of(part, leaves)
        cost = sum(1 + (len(piece[1]) if piece[2] else 0) for piece in pieces)
        if asked and cost > room:
            unasked.append(part)
            continue
        room -= cost
        asked += pieces
    runs, bounds, digests, at = [], b"", b"", b""
    for part, leaves, items in asked:
        if part.low > at:
            runs.append((1, 0))
            bounds, at = bounds + put_bound(at, part.low), part.low
        runs.append((len(leaves), 2) if items else (1, 1))
        for digest in [d for _, d in leaves] if items else [fingerprint(leaves)]:
            digests += short(salt, digest, length)
        if part.high is not None:
            bounds, at = bounds + put_bound(at, part.high), part.high
    if asked[-1][0].high is not None:
        runs.append((1, 0))
    columns = {"parts": b"".join(put_varint(n * 4 + kind) for n, kind in runs), "bounds": bounds, "digests": digests}
    return columns, asked, unasked


def pieces_of(part: Part, leaves: list) -> list:
    """A split by count, at the shortest separators."""
    count = min(256, max(2, len(leaves) // (ITEMS_AT_ONCE // 2)))
    cuts = [len(leaves) * i // count for i in range(count + 1)]
    bounds = [part.low] + [separator(leaves[c - 1][0], leaves[c][0]) for c in cuts[1:-1]] + [part.high]
    return [
        (Part(bounds[i], bounds[i + 1], False, part.full), leaves[cuts[i] : cuts[i + 1]], False) for i in range(count)
    ]


def understand(answer, records, asked, salt, length, moved):
    """What an answer means: parts to ask again, keys that the server lacks, how many parts closed.

    `moved`: the server's position is another one than that of the answer before.
    """
    resume = answer.resume_at if answer.HasField("resume_at") else None
    if resume is not None and resume <= asked[0][0].low:
        raise Malformed("an answer that processed nothing")
    answered = [a for a in asked if resume is None or a[0].low < resume]
    again = [a[0] for a in asked[len(answered) :]]
    parts, bounds, digests = Column(answer.parts), Column(answer.bounds), Column(answer.digests)
    if any(a.key >= b.key for a, b in zip(records, records[1:])):
        raise Malformed("records out of order")
    flags = lacking_flags(answer.lacking, sum(len(leaves) for _, leaves, items in answered if items))
    lacks, run, kind, closed, home = set(), 0, 0, 0, 0
    for part, leaves, items in answered:
        if run == 0:
            run, kind = divmod(parts.varint(), 4)
            if run == 0 or kind > 2:
                raise Malformed("an empty run, or an answer of a kind that does not exist")
        if kind < 2 and (items or (resume is not None and (part.high is None or resume < part.high))):
            raise Malformed("listed items answered by a fingerprint, or an answer beyond its end")
        if kind == 0:
            run, closed = run - 1, closed + 1
        elif kind == 1:
            pieces, low = [], part.low
            for i in range(run):
                high = bounds.bound(low) if i + 1 < run else part.high
                if i + 1 < run and part.high is not None and high >= part.high:
                    raise Malformed("a split outside its part")
                mine = [leaf for leaf in leaves if inside(leaf[0], low, high)]
                if digests.take(length) != short(salt, fingerprint(mine), length):
                    pieces.append(Part(low, high, True, length == 32, run == 1))
                low = high
            if not pieces:
                pieces = [again_in_full(part, length, False)]
            again, run = again + pieces, 0
        else:
            run, closed = run - 1, closed + 1
            high = part.high if resume is None or (part.high is not None and part.high <= resume) else resume
            sent = [r for r in records if inside(r.key, part.low, high)]
            home += len(sent)
            keys = [key for key, _ in leaves]
            marks = [next(flags) for _ in keys] if items else [key not in {r.key for r in sent} for key in keys]
            here = {key for key, mark in zip(keys, marks) if mark and inside(key, part.low, high)}
            lacks |= here
            if high != part.high:
                again.append(Part(high, part.high, part.differs, part.full))
            elif part.differs and not here and not sent and not answer.wanted:
                again.append(again_in_full(part, length, moved))
    if run or home != len(records) or not (parts.done() and bounds.done() and digests.done()):
        raise Malformed("an answer with entries left over, or with records outside its parts")
    return again, lacks, closed


def again_in_full(part, length, moved):
    """A part that differs as a whole and in none of its parts: asked at full length (RECON-037)."""
    if length == 32 and not moved:
        raise Malformed("a server whose full fingerprints contradict each other")
    return Part(part.low, part.high, length < 32, True)  # RECON-052


def lacking_flags(data: bytes, items: int):
    """Item by item whether the server lacks it (RECON-020)."""
    column, flags, lacks = Column(data), [], False
    while not column.done():
        run = column.varint()
        if len(flags) + run > items:
            raise Malformed("lacking counts more items than were listed")
        flags += [lacks] * run
        lacks = not lacks
    return iter(flags + [False] * (items - len(flags)))
