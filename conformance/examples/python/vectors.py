#!/usr/bin/env python3
"""Checks the rules of this client against spec/vectors, as far as a client computes or sees what a case is about."""
import json
import sys

from descent import Column, Descent
from replica import LIMITS, Replica
from rules import Failure, Record, clock_bound, fingerprint, inside, issue_time
from store import Store
from wire import ROOT, sync

NOT_MINE = object()  # a rule of servers, or something that a replica cannot know


def record(case: dict) -> Record:
    return Record(bytes.fromhex(case["key"]), int(case["time"]), int(case["replica"]), case["flags"],
                  bytes.fromhex(case["value"]))


def optional(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def covered(records: list, horizon: int, start: bytes = b"", end: bytes | None = None) -> list:
    return sorted((r.key, r.digest) for r in map(record, records)
                  if inside(r.key, start, end) and not (r.dead and r.time < horizon))


def within(time: str, clock_ms: int, skew_ms: str) -> bool:
    if int(time) > clock_bound(clock_ms, int(skew_ms)):
        raise Failure("too far in the future", reason="CLOCK_SKEW")
    return True


def order(case):
    a, b = ((int(case[side]["time"]), int(case[side]["replica"])) for side in "ab")
    return case["order"] == ("less" if a < b else "greater" if a > b else "equal")


def clock(case):
    if "skew_ms" in case:
        return within(case["time"], int(case["now_ms"]), case["skew_ms"])
    replaced = -1 if case["replaces"] is None else int(case["replaces"])
    return issue_time(int(case["now_ms"]), int(case["floor"]), replaced) == int(case["time"])


def clock_update(case):
    if "wall_ms" in case:
        told = int(case["stored_ms"]) if "stored_ms" in case else int(case["told_ms"]) + int(case["passed_ms"])
        return within(case["time"], max(int(case["wall_ms"]), told), case["skew_ms"])
    store, replica = Store(), 1
    store.state.floor = int(case["floor"])
    for step in case["steps"]:
        key = step.get("key", "").encode()
        if step["event"] == "write":
            try:
                store.write({key: b"value"}, int(step["now_ms"]), replica, batch=False)
                time = str(store.writes_to(key)[-1].record.time)
            except Failure:
                time = None
            if time != step["time"]:
                return False
            for kept in store.outbox:
                kept.attempted = True  # so that each write stays, as the vectors count them
        elif step["event"] == "receive":
            store.merge(Record(key, int(step["time"]), 2, 0, b"theirs"), (1, 1))
        elif step["event"] == "reopen":
            replica += 1
        elif step["event"] == "restamp":
            keys = [key.encode() for key in step["keys"]]
            refused = [kept for kept in store.outbox if kept.record.key in keys]
            store.restamp(refused, int(step["server_ms"]), replica)
            if [str(kept.record.time) for kept in refused] != step["times"]:
                return False
    return store.state.floor == int(case["floor_after"])


def merge(case):
    a, b = record(case["a"]), record(case["b"])
    return case["winner"] == ("a" if a.rank > b.rank else "b" if b.rank > a.rank else "same")


def digest(case):
    return record(case["record"]).digest.hex() == case["digest"]


def fingerprint_of(case):
    start, end = optional(case.get("start", "")), optional(case.get("end"))
    if end is not None and end <= start:
        return NOT_MINE
    pairs = covered(case["records"], int(case["horizon"]), start, end)
    return len(pairs) == int(case["count"]) and fingerprint(pairs).hex() == case["fingerprint"]


def collisions(case):
    a, b = (fingerprint(sorted((key, Record(key, 65536, 1, 0, b"").digest) for key in map(bytes.fromhex, case[side])))
            for side in "ab")
    return a != b


def limits(case):
    if case.get("field") in LIMITS:
        replica = Replica(Store(), "http://127.0.0.1", "space")
        replica.store.state.limits[case["field"]] = int(case["advertised"])
        return replica.limit(case["field"]) == int(case["means"])
    if case.get("limit") == "max_key_bytes":
        return len(Record(b"k" * int(case["actual"]), 1, 1, 0, b"").key) == int(case["actual"])
    return NOT_MINE


def descent(case):
    """Hears each answer after the question of the case; of the questions only those of 32 bytes are computed."""
    start, end = optional(case["start"]), optional(case["end"])
    session = Descent(covered(case["replica"], int(case["horizon"]), start, end), case["digest_len"])
    received = set()
    for exchange in case["exchanges"]:
        request, answer = exchange["request"], exchange["answer"]
        if answer is None or case.get("failure", "").startswith("request"):
            return NOT_MINE
        session.asked, session.open = asked(request), []
        told = b"".join(b"".join(digest for _, digest in session.ours(*part)) if part[2] else session.print_of(*part[:2])
                        for part in session.asked)
        if session.digest_len == 32 and told.hex() != request["digests"]:
            return False
        columns = {name: bytes.fromhex(answer[name]) for name in ("parts", "bounds", "digests", "lacking")}
        records = [record(r) for r in answer["records"]]
        session.hear(sync.ReconcileResponse(**columns, resume_at=optional(answer["resume_at"])), records, None)
        received |= {r.key.hex() for r in records}
    if not case["valid"]:
        return NOT_MINE  # well-formed, and not true
    return received == set(case["receives"]) and {key.hex() for key in session.lacks} == set(case["lacks"])


def asked(request: dict) -> list[tuple]:
    """The parts that the columns of a request ask about."""
    parts, bounds = Column(bytes.fromhex(request["parts"])), Column(bytes.fromhex(request["bounds"]))
    found, low = [], b""
    while parts:
        n, kind = divmod(parts.varint(), 4)
        for _ in range(1 if kind == 2 else n):
            high = bounds.bound(low, None) if bounds else None
            found += [(low, high, kind == 2)] if kind else []
            low = high
    return found


RULES = {"order": order, "clock": clock, "clock_update": clock_update, "merge": merge, "digest": digest,
         "fingerprint": fingerprint_of, "range": fingerprint_of, "collisions": collisions, "limits": limits,
         "descent": descent}


def main() -> int:
    failed = 0
    for kind, rule in RULES.items():
        checked = others = 0
        for case in json.loads((ROOT / f"spec/vectors/{kind}.json").read_text())["cases"]:
            try:
                result = rule(case)
            except Failure:
                result = None
            others += result is NOT_MINE
            checked += result is not NOT_MINE
            if result is not NOT_MINE and result is not (True if case["valid"] else None):
                failed += 1
                print(f"{kind}: {case['name']} is not as it should be")
        print(f"{kind}: {checked} cases checked, {others} are not about a client")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
