"""The replica's side of Reconcile: what to ask, and what an answer says (chapter 7). No input, no output."""
import bisect

from rules import MAX_BOUND, MAX_U64, Failure, common_prefix, fingerprint, inside

ITEMS = 64  # up to so many records are listed at once
PARTS = 128  # into so many parts a larger range is split
ENTRIES = 700  # parts and items of one request: within the floors of all limits, with keys of any length (LIMIT-006)
NOTHING, FINGERPRINT, LISTED = EQUAL, SPLIT, RESOLVED = 0, 1, 2  # kinds of parts, and of answers


def varint(n: int) -> bytes:
    return bytes([n & 0x7F | 0x80]) + varint(n >> 7) if n > 0x7F else bytes([n])


def bound(low: bytes, high: bytes) -> bytes:
    """`high`, coded against the lower bound of the part that it ends (section 7.2)."""
    common = common_prefix(low, high)
    drop, add = len(low) - common, len(high) - common
    long = b"".join(varint(n - 15) for n in (drop, add) if n >= 15)
    return bytes([min(drop, 15) * 16 + min(add, 15)]) + long + high[common:]


class Column:
    """Reads a column of packed entries from its beginning; true while there are any."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def __bool__(self):
        return self.at < len(self.data)

    def take(self, n: int) -> bytes:
        if n > len(self.data) - self.at:
            raise Failure("a column ends too early")
        self.at += n
        return self.data[self.at - n:self.at]

    def varint(self) -> int:
        n, start = 0, self.at
        while (byte := self.take(1)[0]) > 0x7F and self.at - start < 10:
            n |= (byte & 0x7F) << 7 * (self.at - start - 1)
        n |= byte << 7 * (self.at - start - 1)
        if n > MAX_U64 or varint(n) != self.data[start:self.at]:
            raise Failure("a varint that is too long")  # RECON-002
        return n

    def bound(self, low: bytes, end: bytes | None) -> bytes:
        drop, add = divmod(self.take(1)[0], 16)
        drop += self.varint() if drop == 15 else 0
        add += self.varint() if add == 15 else 0
        high = low[:max(len(low) - drop, 0)] + self.take(add)
        if drop > len(low) or len(high) > MAX_BOUND or high <= low or not inside(high, low, end):
            raise Failure("a bound that is too long, not above the lower one, or outside of its part")  # RECON-003
        return high


class Descent:
    """One session. Fingerprints cover `pairs`: (key, digest) of the replica's records, in key order.

    Digests are told in full: these cost more bytes than short ones, and never agree by chance (section 7.6)."""

    def __init__(self, pairs: list, digest_len: int = 32):
        self.pairs, self.keys, self.digest_len = pairs, [key for key, _ in pairs], digest_len
        self.open, self.asked = [(b"", None)], []  # what is not closed; (start, end, whether its items were listed)
        self.lacks, self.found = set(), []  # keys of ours under which the server has nothing; keys of all differences
        self.differing = []  # (start, end, position) of each range that was found to differ

    def ours(self, start: bytes, end: bytes | None, *_) -> list:
        last = len(self.keys) if end is None else bisect.bisect_left(self.keys, end)
        return self.pairs[bisect.bisect_left(self.keys, start):last]

    def print_of(self, start: bytes, end: bytes | None) -> bytes:
        return fingerprint(self.ours(start, end))

    def refine(self, start: bytes, end: bytes | None) -> list[tuple]:
        """The parts by which an open range is asked about: always finer than before (RECON-051)."""
        keys = [key for key, _ in self.ours(start, end)]
        parts = min(PARTS, 2 * len(keys) // ITEMS)
        cuts = [len(keys) * i // parts for i in range(1, parts)] if len(keys) > ITEMS else []
        # The shortest bound between two neighbours is the upper one, cut after the first difference.
        edges = [start, *(keys[cut][:common_prefix(keys[cut - 1], keys[cut]) + 1] for cut in cuts), end]
        return [(low, high, not cuts) for low, high in zip(edges, edges[1:])]

    def ask(self) -> dict:
        """The columns of the next request: as many open parts as fit."""
        parts, bounds, digests, edge, entries, later, self.asked = b"", b"", b"", b"", 0, [], []
        for outer in self.open:
            for start, end, listed in self.refine(*outer):
                told = [digest for _, digest in self.ours(start, end)] if listed else [self.print_of(start, end)]
                entries += 1 + len(told)
                if entries > ENTRIES:
                    later.append((start, outer[1]))  # this part and what follows it
                    break
                if start != edge:  # nothing is said of what lies between
                    parts, bounds = parts + varint(4 + NOTHING), bounds + bound(edge, start)
                parts += varint(4 * len(told) + (LISTED if listed else FINGERPRINT))
                digests += b"".join(told)
                bounds += b"" if end is None else bound(start, end)
                edge = end
                self.asked.append((start, end, listed))
        self.open = later
        return {"parts": parts if edge is None else parts + varint(4 + NOTHING), "bounds": bounds, "digests": digests,
                "digest_len": self.digest_len}

    def outcomes(self, parts: bytes, due: list) -> list[tuple]:
        """(answer, into how many parts it is split) for each part that is due."""
        outcomes, column = [], Column(parts)
        while column:
            n, kind = divmod(column.varint(), 4)
            if n == 0 or kind > RESOLVED or (n if kind != SPLIT else 1) > len(due) - len(outcomes):
                raise Failure("an answer that does not exist, an empty run, or an answer too many")
            outcomes += [(SPLIT, n)] if kind == SPLIT else [(kind, 1)] * n
        if len(outcomes) != len(due) or not due:
            raise Failure("an answer too few, or nothing was processed")  # RECON-027
        return outcomes

    def hear(self, answer, records: list, position) -> bool:
        """Takes an answer in, or refuses it whole (RECON-030); tells whether it closed a part."""
        resume = answer.resume_at if answer.HasField("resume_at") else None
        due = [part for part in self.asked if resume is None or part[0] < resume]
        still, resolved, differing, closed, items, marks = [], [], [], False, [], []
        bounds, digests, runs = Column(answer.bounds), Column(answer.digests), Column(answer.lacking)
        for (start, end, listed), (kind, n) in zip(due, self.outcomes(answer.parts, due)):
            cut = resume is not None and inside(resume, start, end)
            if kind != RESOLVED and (listed or cut):
                raise Failure("an answer that does not go with its part")  # RECON-018, RECON-028
            if kind == RESOLVED:
                resolved.append((start, resume if cut else end, listed))
                still += [(resume, end)] if cut else []
                items += [key for key, _ in self.ours(start, end)] if listed else []
            differing += [(start, end, position)] if kind == SPLIT else []
            closed |= kind != SPLIT and not cut  # what is cut comes again, however little is left (RECON-036)
            for left in range(n, 0, -1) if kind == SPLIT else ():
                high = bounds.bound(start, end) if left > 1 else end
                if digests.take(self.digest_len) == self.print_of(start, high):
                    closed = True
                else:
                    still.append((start, high))  # RECON-031
                    differing.append((start, high, position))
                start = high
        while runs:  # in turns items that the server has, and items that it lacks (RECON-020)
            marks.append((len(marks) % 2 == 1, runs.varint()))
        if sum(n for _, n in marks) > len(items) or bounds or digests:
            raise Failure("entries are left over")
        sent, starts = [record.key for record in records], [start for start, _, _ in resolved]
        for before, key in zip([b"", *sent], sent):
            at = bisect.bisect_right(starts, key) - 1
            if key <= before or at < 0 or not inside(key, *resolved[at][:2]):
                raise Failure("a record out of order, or outside of the resolved parts")  # RECON-029
        lacking = [lacks for lacks, n in marks for _ in range(n)]
        absent = {key for key, lacks in zip(items, lacking) if lacks and (resume is None or key < resume)}
        absent.update(key for part in resolved if not part[2] for key, _ in self.ours(*part))  # all was sent there
        self.lacks |= absent.difference(sent)  # RECON-033: where a record was sent, merging decides
        self.found += [*sent, *absent]
        self.differing += differing
        self.open = sorted(still + [part[:2] for part in self.asked[len(due):]] + self.open)
        return closed

    def doubt(self, position) -> bool:
        """When all is closed: asks again about the ranges that differed, though nothing was found in them."""
        for start, end, seen_at in self.differing:
            if any(inside(key, start, end) for key in self.found) or any(inside(start, *other) for other in self.open):
                continue
            if seen_at == position:
                raise Failure("the server contradicts itself")  # RECON-030; otherwise both can be right: RECON-052
            self.open.append((start, end))
        self.differing = []
        return bool(self.open)
