"""Which exchanges of a reconcile session are legal: any split is, anything untrue is not. Naive, and from chapter 7."""

from .columns import ITEMS, SKIP, Malformed, put_answer, put_request, short, take_answer, take_request
from .records import digest, fingerprint, in_range, is_tombstone, rank


class Illegal(Exception):
    """With the class of what is wrong."""


def covered(records, start, end, horizon):
    """What fingerprints cover in a range, in key order."""
    inside = [r for r in records if in_range(r["key"], start, end)]
    return sorted((r for r in inside if not (is_tombstone(r) and r["time"] < horizon)), key=lambda r: r["key"])


def lowest_end(a, b):
    return b if a is None else a if b is None else min(a, b)


def without(ranges, start, end):
    """Ranges less the keys from start to end."""
    out = []
    for low, high in ranges:
        before, after = lowest_end(high, start), None if end is None else max(low, end)
        if before is None or low < before:
            out.append((low, before))
        if after is not None and (high is None or after < high):
            out.append((after, high))
    return out


class Session:
    """Both sides' records, and what is still open between them."""

    def __init__(self, replica, server, held, horizon, salt, length):
        self.replica = {r["key"]: r for r in replica}
        self.server = list(server)
        self.held, self.horizon, self.salt, self.length = held, horizon, salt, length
        self.open, self.receives, self.lacks = [held], set(), set()

    def mine(self, start, end):
        return covered(self.replica.values(), start, end, self.horizon)

    def theirs(self, start, end):
        return covered(self.server, start, end, self.horizon)

    def short(self, thing):
        return short(self.salt, thing if isinstance(thing, bytes) else digest(thing), self.length)

    def close(self, start, end):
        self.open = without(self.open, start, end)

    def exchange(self, request, answer):
        """Takes an exchange in, or raises Illegal. Returns it as this module writes it."""
        parts = self.check_request(request)
        asked = [p for p in parts if p[2] != SKIP]
        try:
            told, flags = take_answer(answer, asked, self.length)
        except Malformed:
            raise Illegal("answer_malformed") from None
        self.check_resumption(answer["resume_at"], asked, told)
        keys = [r["key"] for r in answer["records"]]
        if keys != sorted(set(keys)):
            raise Illegal("records_unsorted")
        self.check_records(answer, asked, told)
        again = put_request(parts), put_answer(told, flags, answer["records"], answer["resume_at"])
        for (start, end, kind, shorts), what in zip(asked, told):
            if what is None:
                continue
            if what[0] == "resolved":
                count = len(shorts) if kind == ITEMS else 0
                self.resolve(start, end, kind, shorts, flags[:count], answer)
                flags = flags[count:]
            else:
                self.compare(start, end, shorts[0], what)
        for record in answer["records"]:
            self.receives.add(record["key"])
            held = self.replica.get(record["key"])
            if held is None or rank(record) > rank(held):
                self.replica[record["key"]] = record
        return again

    def check_request(self, request):
        try:
            parts = take_request(request, self.length)
        except Malformed:
            raise Illegal("request_malformed") from None
        asked = [p for p in parts if p[2] != SKIP]
        if not asked:
            raise Illegal("request_empty")
        for start, end, kind, shorts in asked:
            low, high = self.held
            if start < low or (high is not None and (end is None or end > high)):
                raise Illegal("request_outside")
            mine = self.mine(start, end)
            true = [self.short(r) for r in mine] if kind == ITEMS else [self.short(fingerprint(mine))]
            if shorts != true:
                raise Illegal("request_untrue")
        return parts

    @staticmethod
    def check_resumption(resume, asked, told):
        if resume is None:
            return
        if resume <= asked[0][0]:
            raise Illegal("no_progress")
        for (start, end, _, _), what in zip(asked, told):
            inside = start < resume and (end is None or resume < end)
            if inside and what[0] != "resolved":
                raise Illegal("resume_inside")

    def check_records(self, answer, asked, told):
        for record in answer["records"]:
            resolved = any(
                what == ("resolved",) and in_range(record["key"], start, lowest_end(end, answer["resume_at"]))
                for (start, end, _, _), what in zip(asked, told)
            )
            if not resolved or record not in self.server:
                raise Illegal("record_foreign")

    def compare(self, start, end, told_short, what):
        equal = self.short(fingerprint(self.theirs(start, end))) == told_short
        if what[0] == "equal":
            if not equal:
                raise Illegal("equal_untrue")
            return self.close(start, end)
        if equal:
            raise Illegal("split_of_equal")
        self.close(start, end)
        for low, high, piece in what[1]:
            if piece != self.short(fingerprint(self.theirs(low, high))):
                raise Illegal("split_untrue")
            if piece != self.short(fingerprint(self.mine(low, high))):
                self.open.append((low, high))
        self.open.sort(key=lambda part: part[0])

    def resolve(self, start, end, kind, shorts, flags, answer):
        end = lowest_end(end, answer["resume_at"])
        mine, theirs = self.mine(start, end), self.theirs(start, end)
        told = set(shorts) if kind == ITEMS else set()
        sent = {r["key"] for r in answer["records"]}
        if any(self.short(r) not in told and r["key"] not in sent for r in theirs):
            raise Illegal("record_missing")
        if kind == ITEMS:
            has = {self.short(r) for r in theirs}
            flags = flags[: len(mine)]  # what is said beyond `resume_at` is void
            if flags != [self.short(r) not in has for r in mine]:
                raise Illegal("lacking_untrue")
        else:
            flags = [True] * len(mine)
        self.lacks |= {r["key"] for r, lacks in zip(mine, flags) if lacks} - sent
        self.close(start, end)
