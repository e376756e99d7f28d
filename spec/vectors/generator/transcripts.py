"""The file of reconcile sessions: descent. Legal ones in several styles, and illegal ones with one thing wrong each."""

from .columns import EQUAL, FINGERPRINT, ITEMS, RESOLVED, SKIP, put_bound, short
from .descent import Illegal, Session
from .protobuf import varint
from .rules import digest, ms, plain, record

SALT = 0x5EED0123456789AB
ALL = (b"", None)


def middle(start, end, records):
    """Two halves, or a resolved part where there is nothing to split."""
    return [records[len(records) // 2]["key"]] if len(records) > 1 else None


def fine(n):
    def cut(start, end, records):
        bounds = [records[len(records) * i // n]["key"] for i in range(1, n)]
        return sorted({b for b in bounds if b > start}) or None

    return cut


def nowhere(start, end, records):
    """A split into one part: legal, and no help."""
    return []


def resolve(start, end, records):
    return None


def world(n, replica=(), server=(), gone=(), lost=()):
    """Two sides that hold n counters each, save what is named."""
    base = {b"item-%03d" % i: record(b"item-%03d" % i, ms(1000 + i), 1, "v%d" % i) for i in range(n)}
    sides = []
    for own, without in ((replica, gone), (server, lost)):
        side = {k: r for k, r in base.items() if k not in without}
        side.update({r["key"]: r for r in own})
        sides.append([side[k] for k in sorted(side)])
    return sides


class Transcript:
    def __init__(self, name, replica, server, held=ALL, horizon=0, length=5):
        self.name, self.sides = name, (replica, server)
        self.session = Session(replica, server, held, horizon, SALT, length)
        self.exchanges, self.failure = [], None

    def say(self, parts, change=lambda request: request):
        self.request = change(self.session.ask(parts))
        return self

    def hear(self, cut=resolve, resume_at=None, change=lambda answer: answer):
        answer = change(self.session.answer(self.request, cut, resume_at))
        return self.judge(answer)

    def judge(self, answer):
        self.exchanges.append((self.request, answer))
        try:
            self.session.exchange(self.request, answer)
        except Illegal as illegal:
            self.failure = str(illegal)
        return self

    def descend(self, cut, items=2):
        """Asks on about what is open, listing parts of few records, until nothing is."""
        while self.session.open:
            counts = [(low, high, len(self.session.mine(low, high))) for low, high in self.session.open]
            self.say([(low, high, ITEMS if n <= items else FINGERPRINT) for low, high, n in counts]).hear(cut)
        return self

    def expect(self, failure):
        assert self.failure == failure, (self.name, self.failure, failure)
        return self

    def case(self):
        s = self.session
        out = {
            "name": self.name,
            "valid": self.failure is None,
            "replica": [plain(r) for r in self.sides[0]],
            "server": [plain(r) for r in self.sides[1]],
            "start": s.held[0].hex(),
            "end": None if s.held[1] is None else s.held[1].hex(),
            "horizon": str(s.horizon),
            "salt": str(s.salt),
            "digest_len": s.length,
            "exchanges": [{"request": hexed(q), "answer": hexed(a)} for q, a in self.exchanges],
        }
        if self.failure:
            out["failure"] = self.failure
        else:
            out["complete"] = not s.open
            out["receives"] = [k.hex() for k in sorted(s.receives)]
            out["lacks"] = [k.hex() for k in sorted(s.lacks)]
        return out


def hexed(columns):
    out = {}
    for name, value in columns.items():
        if name == "records":
            out[name] = [plain(r) for r in value]
        elif name == "resume_at":
            out[name] = None if value is None else value.hex()
        else:
            out[name] = value.hex()
    return out


def legal():
    def newer(i):
        return record(b"item-%03d" % i, ms(9000), 2, "newer")

    new, own = record("zebra", ms(9001), 2, "new"), record("own", ms(9002), 3, "unknown there")
    few = world(5, replica=[own], server=[newer(3), new])
    many = world(20, replica=[own], server=[newer(3), newer(15), new], gone=[b"item-010"], lost=[b"item-006"])
    whole, print_ = [(b"", None, ITEMS)], [(b"", None, FINGERPRINT)]
    yield Transcript("both are empty", [], []).say(print_).hear()
    yield Transcript("equal at once", *world(9)).say(print_).hear()
    yield Transcript("the replica has nothing", *world(4, gone=[b"item-%03d" % i for i in range(4)])).say(whole).hear()
    yield Transcript("the server has nothing", *world(4, lost=[b"item-%03d" % i for i in range(4)])).say(whole).hear()
    yield Transcript("few records, listed at once", *few).say(whole).hear()
    yield Transcript("a fingerprint that is answered by all records", *few).say(print_).hear()
    yield Transcript("a descent by halves", *many).descend(middle)
    yield Transcript("the same differences, split in eight", *many).descend(fine(8), 6)
    yield Transcript("the same, with digests of 32 bytes", *many, length=32).descend(fine(3))
    yield Transcript("a split into one part, then the items", *few).say(print_).hear(nowhere).say(whole).hear()
    yield Transcript("not yet complete: a split whose parts stay open", *many).say(print_).hear(middle)
    yield Transcript("parts of which nothing is said", *many, held=(b"item-004", b"item-012")).say(
        [(b"item-004", b"item-008", FINGERPRINT), (b"item-008", b"item-012", ITEMS)]
    ).hear(middle).descend(middle)
    yield Transcript("an answer that ends early, within a listed part", *few).say(whole).hear(
        resume_at=b"item-003"
    ).descend(middle, 9)
    yield Transcript("an answer that ends before the second part", *many).say(
        [(b"", b"item-010", FINGERPRINT), (b"item-010", None, FINGERPRINT)]
    ).hear(middle, resume_at=b"item-010").descend(middle)
    tombs = [record("old", ms(5), 1, tombstone=True), record("young", ms(50), 1, tombstone=True)]
    yield Transcript("a tombstone below the horizon is nowhere", tombs, tombs[1:], horizon=ms(10)).say(whole).hear()
    yield Transcript("tombstones travel like records", [], tombs, horizon=ms(5)).say(whole).hear()
    long = [record(b"k" * n, ms(n), 1, "v") for n in (20, 40, 300, 512)]
    yield Transcript("bounds that drop and add more than 14 bytes", long, long[:3]).descend(middle, 1)
    a, b = colliding(4)
    yield Transcript(
        "short digests that agree by chance hide a difference; the session is complete all the same", [a], [b], length=4
    ).say(whole).hear()
    yield Transcript("which 32 bytes show", [a], [b], length=32).say(whole).hear()


def colliding(length):
    """Two records under one key whose shorts agree: the first pair of a numbered series."""
    seen = {}
    for i in range(1 << 20):
        r = record("k", ms(i), 1, "")
        twin = seen.setdefault(short(SALT, digest(r), length), r)
        if twin is not r:
            return r, twin
    raise SystemExit("no collision in a million")


def illegal_requests():
    sides = world(5)
    whole = [(b"", None, ITEMS)]

    def bad(name, failure, change, parts=whole, held=ALL):
        t = Transcript("request: " + name, *sides, held=held).say(parts, change)
        return t.judge({k: b"" for k in ("parts", "bounds", "digests", "lacking")} | {"records": [], "resume_at": None}).expect(failure)

    def columns(**new):
        return lambda request: request | new

    kind = FINGERPRINT
    yield bad("a kind that does not exist", "request_malformed", columns(parts=varint(4 + 3)))
    yield bad("a run of no parts", "request_malformed", columns(parts=varint(kind)))
    yield bad("no part at all", "request_malformed", columns(parts=b"", digests=b""))
    yield bad("a digest is missing", "request_malformed", lambda r: r | {"digests": r["digests"][:-1]})
    yield bad("a digest is left over", "request_malformed", lambda r: r | {"digests": r["digests"] + b"\0" * 5})
    yield bad("a bound is left over", "request_malformed", columns(bounds=put_bound(b"", b"x")))
    yield bad("a bound is missing", "request_malformed", columns(parts=varint(2 * 4 + kind), digests=bytes(10)))
    yield bad("a varint that is not in shortest form", "request_malformed", columns(parts=b"\x96\x00"))
    yield bad("a varint of more than 64 bits", "request_malformed", columns(parts=b"\x86" + b"\x80" * 8 + b"\x02"))
    yield bad("a varint of eleven bytes", "request_malformed", columns(parts=b"\x86" + b"\x80" * 9 + b"\x01"))
    three = varint(4 + SKIP) + varint(4 + kind) + varint(4 + SKIP)
    for name, bounds in [
        ("a bound that equals the lower one", b"\x01b" + b"\x00"),
        ("a bound below the lower one", b"\x01b" + b"\x11a"),
        ("a bound that drops more than there is", b"\x01b" + b"\x21c"),
        ("a bound of 514 bytes", b"\x01b" + b"\x0f" + varint(513 - 15) + b"x" * 513),
    ]:
        yield bad(name, "request_malformed", columns(parts=three, bounds=bounds, digests=bytes(5)))
    yield bad("it asks about nothing", "request_empty", columns(parts=varint(4 + SKIP), digests=b""))
    inside = [(b"item-001", b"item-003", ITEMS)]
    yield bad("a part outside the held range", "request_outside", lambda r: r, inside, (b"item-002", None))
    yield bad("a part that goes on beyond the held range", "request_outside", lambda r: r, inside, (b"", b"item-002"))
    yield bad("an item is left out", "request_untrue", lambda r: r | {"parts": varint(4 * 4 + ITEMS), "digests": r["digests"][:20]})
    yield bad("items out of order", "request_untrue", lambda r: r | {"digests": r["digests"][5:10] + r["digests"][:5] + r["digests"][10:]})
    yield bad("a fingerprint of something else", "request_untrue", columns(digests=bytes(5)), [(b"", None, kind)])


def illegal_answers():
    new = record("item-002", ms(9000), 2, "newer")
    sides = world(5, server=[new, record("zebra", ms(9001), 2, "new")], lost=[b"item-004"])
    whole, print_ = [(b"", None, ITEMS)], [(b"", None, FINGERPRINT)]
    two = [(b"", b"item-002", FINGERPRINT), (b"item-002", None, FINGERPRINT)]

    def bad(name, failure, parts, change, cut=resolve, resume_at=None):
        return Transcript("answer: " + name, *sides).say(parts).hear(cut, resume_at, change).expect(failure)

    def columns(**new):
        return lambda answer: answer | new

    def drop(n):
        return lambda answer: answer | {"records": answer["records"][:n] + answer["records"][n + 1 :]}

    yield bad("equal, though it differs", "equal_untrue", print_, columns(parts=varint(4 + EQUAL), records=[]))
    yield bad("a split, though it is equal", "split_of_equal", two, columns(parts=varint(4 + 1) + varint(4 + RESOLVED), digests=bytes(5)))
    yield bad("a split with a fingerprint of something else", "split_untrue", print_, lambda a: a | {"digests": bytes(5) + a["digests"][5:]}, middle)
    yield bad("a record that was not listed is left out", "record_missing", whole, drop(1))
    yield bad("another record under a listed key is left out", "record_missing", whole, drop(0))
    yield bad("all records of a part, save one", "record_missing", print_, drop(2))
    yield bad("a record that the server does not hold", "record_foreign", whole, lambda a: a | {"records": a["records"] + [record("zz", 1)]})
    yield bad("a record of a part that is equal", "record_foreign", two, lambda a: a | {"records": [sides[1][0]] + a["records"]})
    yield bad("records out of order", "records_unsorted", whole, lambda a: a | {"records": a["records"][::-1]})
    yield bad("a record twice", "records_unsorted", whole, lambda a: a | {"records": a["records"][:1] + a["records"]})
    yield bad("an item that it has is called lacking", "lacking_untrue", whole, columns(lacking=varint(0) + varint(5)))
    yield bad("an item that it lacks is not marked", "lacking_untrue", whole, columns(lacking=b""))
    yield bad("items answered by a fingerprint", "answer_malformed", whole, columns(parts=varint(4 + EQUAL), records=[], lacking=b""))
    yield bad("an answer too few", "answer_malformed", two, columns(parts=varint(4 + EQUAL), records=[]))
    yield bad("an answer too many", "answer_malformed", two, lambda a: a | {"parts": a["parts"] + varint(4 + RESOLVED)})
    yield bad("an empty run", "answer_malformed", print_, columns(parts=varint(0), records=[]))
    yield bad("an answer that does not exist", "answer_malformed", print_, columns(parts=varint(4 + 3), records=[]))
    yield bad("an inner bound outside its part", "answer_malformed", two[:1], columns(parts=varint(2 * 4 + 1), bounds=put_bound(b"", b"item-003"), digests=bytes(10)))
    yield bad("an inner bound at the start of its part", "answer_malformed", two[1:], columns(parts=varint(2 * 4 + 1), bounds=b"\x00", digests=bytes(10), records=[]))
    yield bad("a digest is missing", "answer_malformed", print_, lambda a: a | {"digests": a["digests"][:-1]}, middle)
    yield bad("a digest is left over", "answer_malformed", print_, columns(digests=b"\0"))
    yield bad("lacking counts more items than were listed", "answer_malformed", whole, columns(lacking=varint(0) + varint(6)))
    yield bad("nothing was processed", "no_progress", whole, lambda a: a | {"parts": b"", "lacking": b"", "records": [], "resume_at": b""})
    yield bad("it ends inside a part that it splits", "resume_inside", print_, columns(resume_at=b"item-001"), middle)
    yield bad("it ends inside a part that it calls equal", "resume_inside", two, columns(parts=varint(4 + EQUAL), records=[], resume_at=b"item-001"))
    yield bad("a record at or above the end that it names", "record_foreign", whole, columns(resume_at=b"item-003"))


def descent_vectors():
    transcripts = [t.expect(None) for t in legal()]
    transcripts += [*illegal_requests(), *illegal_answers()]
    about = (
        "Reconcile sessions, exchange by exchange: each is legal as it stands, though others would be as well; "
        "in those that are not valid the last exchange breaks the rule that is named."
    )
    return "descent", about, [t.case() for t in transcripts]
