#!/usr/bin/env python3
"""Checks the example's own rules against spec/vectors: how an implementation makes use of them.

Each check computes from a case's inputs what the case says, or finds that it must be refused. Messages are compared
decoded, not byte by byte; of an answer of Reconcile a replica can only see what contradicts itself.
"""

import json
import sys
from pathlib import Path

from google.protobuf import text_format

from reconcile import Part, understand
from rules import Column, Malformed, Record, clock_bound, fingerprint, inside, issue_time, parse, pb, types

FOLDER = Path(__file__).resolve().parents[3] / "spec/vectors"
SEEN_BY_REPLICA = {"answer_malformed", "records_unsorted", "no_progress", "resume_inside"}


def unhex(text):
    return None if text is None else bytes.fromhex(text)


def message(r):
    version = types.Version(time=int(r["time"]), replica=int(r["replica"]))
    return types.Record(key=unhex(r["key"]), version=version, flags=r["flags"], value=unhex(r["value"]))


def record(r) -> Record:
    return parse(message(r))


def leaves_of(records, low=b"", high=None, horizon=0):
    covered = [r for r in records if inside(r.key, low, high) and not (r.tombstone and r.time < horizon)]
    return [(r.key, r.digest()) for r in sorted(covered)]


def digest(case):
    return {"digest": record(case["record"]).digest().hex()}


def order(case):
    a, b = [(int(v["time"]), int(v["replica"])) for v in (case["a"], case["b"])]
    return {"order": "equal" if a == b else "less" if a < b else "greater"}


def merge(case):
    a, b = record(case["a"]).order, record(case["b"]).order
    return {"winner": "same" if a == b else "a" if a > b else "b"}


def within(time, reading, skew):
    if time > clock_bound(reading, skew):
        raise Malformed("CLOCK_SKEW")
    return {}


def clock(case):
    now = int(case["now_ms"])
    if "skew_ms" in case:
        return within(int(case["time"]), now, int(case["skew_ms"]))
    replaced = case["replaces"]
    return {"time": str(issue_time(now, int(case["floor"]), None if replaced is None else int(replaced)))}


def clock_update(case):
    if "skew_ms" in case:
        other = case["stored_ms"] if "stored_ms" in case else int(case["told_ms"]) + int(case["passed_ms"])
        return within(int(case["time"]), max(int(case["wall_ms"]), int(other)), int(case["skew_ms"]))
    floor, received, unsent = int(case["floor"]), {}, {}

    def write(key, now):
        nonlocal floor
        try:
            floor = issue_time(now, floor, (unsent.get(key) or [received.get(key)])[-1])
        except OverflowError:
            return None
        unsent.setdefault(key, []).append(floor)
        return str(floor)

    for step in case["steps"]:
        if step["event"] == "write":
            assert write(step["key"], int(step["now_ms"])) == step["time"], step
        elif step["event"] == "receive":
            received[step["key"]] = int(step["time"])
            unsent[step["key"]] = [t for t in unsent.get(step["key"], []) if t > int(step["time"])]
        elif step["event"] == "restamp":
            floor = int(step["floor"])
            for key in step["keys"]:
                unsent.pop(key, None)
            assert [write(key, int(step["server_ms"])) for key in step["keys"]] == step["times"], step
    return {"floor_after": str(floor)}


def state(case):
    low, high = unhex(case.get("start", "")), unhex(case.get("end"))
    if high is not None and high <= low:
        raise Malformed("an inverted range")
    leaves = leaves_of([record(r) for r in case["records"]], low, high, int(case["horizon"]))
    return {"count": len(leaves), "fingerprint": fingerprint(leaves).hex()}


def messages(case):
    name = case["type"].removeprefix("gosync.v1.")
    kind = getattr(pb, name, None) or getattr(types, name)
    assert kind.FromString(unhex(case["hex"])) == text_format.Parse(case["text"], kind())
    return {}


def collisions(case):
    sets = [[Record(unhex(key), 65536, 1, False, b"") for key in case[side]] for side in ("a", "b")]
    return {f"fingerprint_{side}": fingerprint(leaves_of(s)).hex() for side, s in zip("ab", sets)}


def asked_by(request, replica, length, horizon):
    """What a request's columns ask: (part, its leaves, whether they are listed)."""
    kinds, bounds, low, asked = Column(unhex(request["parts"])), Column(unhex(request["bounds"])), b"", []
    while not kinds.done():
        n, kind = divmod(kinds.varint(), 4)
        for left in range(1 if kind == 2 else n, 0, -1):
            last = kinds.done() and left == 1
            high = None if last else bounds.bound(low)
            if kind:
                asked.append((Part(low, high), leaves_of(replica.values(), low, high, horizon), kind == 2))
            low = high
    return asked


def descent(case):
    if case.get("failure", "answer") not in SEEN_BY_REPLICA | {"answer"}:
        return {}  # about requests, or nothing that a replica can see
    replica = {r.key: r for r in map(record, case["replica"])}
    length, salt, receives, lacks = case["digest_len"], int(case["salt"]), set(), set()
    for exchange in case["exchanges"]:
        asked = asked_by(exchange["request"], replica, length, int(case["horizon"]))
        told = {k: v for k, v in exchange["answer"].items() if k not in ("records", "resume_at")}
        answer = pb.ReconcileResponse(**{k: unhex(v) for k, v in told.items()})
        if exchange["answer"]["resume_at"] is not None:
            answer.resume_at = unhex(exchange["answer"]["resume_at"])
        records = [record(r) for r in exchange["answer"]["records"]]
        _, lacking, _ = understand(answer, records, asked, salt, length, True)
        receives |= {r.key for r in records}
        lacks |= lacking - {r.key for r in records}
        replica.update((r.key, max(r, replica.get(r.key, r), key=lambda r: r.order)) for r in records)
    return {"receives": [k.hex() for k in sorted(receives)], "lacks": [k.hex() for k in sorted(lacks)]}


CHECKS = {"digest": digest, "order": order, "merge": merge, "clock": clock, "clock_update": clock_update,
          "fingerprint": state, "range": state, "messages": messages, "collisions": collisions, "descent": descent}  # fmt: skip


def main():
    failed = count = 0
    for kind, check in CHECKS.items():
        for case in json.loads((FOLDER / f"{kind}.json").read_text(encoding="utf-8"))["cases"]:
            count += 1
            try:
                found, refused = check(case), False
            except (Malformed, OverflowError):
                found, refused = {}, True
            wrong = {k: v for k, v in found.items() if v != case[k]} if case["valid"] else {}
            unseen = kind == "descent" and case.get("failure") not in SEEN_BY_REPLICA
            if wrong or refused == case["valid"] and not (unseen and not refused):
                failed += 1
                print(f"{kind}: {case['name']}: {wrong or ('refused' if refused else 'not refused')}", file=sys.stderr)
    print(f"{count - failed} of {count} vectors are as the example computes them")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
