#!/usr/bin/env python3
"""Computes every vector of this folder again, from the specification's text alone.

Standard library only, and no code in common with any other implementation of
the protocol: the rules are written in `rules/` a second time, so that a
mistake in one place shows. From each case the inputs are taken and the results
computed; so are the classes of failure and the layout of the files.
`regenerate.py` writes the files; `regenerate.py --check` compares them byte for
byte, and exits with 1 when they differ.
"""

import json
import pathlib
import re
import sys

sys.dont_write_bytecode = True

from rules import json_schema, records as rules, requests  # noqa: E402 (after the line above)
from rules.protobuf import encode  # noqa: E402
from rules.session import Illegal, Session  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
SCHEMA = "vectors.schema.json"


# --------------------------------------------------- values in JSON, and back


def unhex(text):
    return None if text is None else bytes.fromhex(text)


def hexed(data):
    return None if data is None else data.hex()


def record(r):
    return rules.record(unhex(r["key"]), int(r["time"]), int(r["replica"]), r["flags"], unhex(r["value"]))


def plain(r):
    return {
        "key": hexed(r["key"]),
        "time": str(r["time"]),
        "replica": str(r["replica"]),
        "flags": r["flags"],
        "value": hexed(r["value"]),
    }


def pick(case, *names):
    """The inputs of that name that a case has."""
    return {name: case[name] for name in names if name in case}


# ---------------- a function for each kind: a case to its fields, and a failure


def digest(case):
    r = record(case["record"])
    fields, failure = {"record": plain(r)}, rules.defect(r)
    if not failure:
        fields |= {"preimage": hexed(rules.preimage(r)), "digest": hexed(rules.digest(r))}
    return fields, failure


def order(case):
    a, b = [(int(case[side]["time"]), int(case[side]["replica"])) for side in "ab"]
    return pick(case, "a", "b") | {"order": "equal" if a == b else "less" if a < b else "greater"}, None


def merge(case):
    return pick(case, "a", "b") | {"winner": rules.winner(record(case["a"]), record(case["b"]))}, None


def within(case, reading):
    bound = rules.skew_bound(reading, int(case["skew_ms"]))
    return None if int(case["time"]) <= bound else "CLOCK_SKEW"


def clock(case):
    now = int(case["now_ms"])
    if "skew_ms" in case:
        return pick(case, "now_ms", "skew_ms", "time"), within(case, now)
    replaces = case["replaces"]
    time = rules.issue(now, int(case["floor"]), None if replaces is None else int(replaces))
    fields = pick(case, "now_ms", "floor", "replaces")
    return (fields, "exhausted") if time is None else (fields | {"time": str(time)}, None)


def clock_update(case):
    if "skew_ms" in case:
        wall, told = int(case["wall_ms"]), case.get("told_ms")
        other = int(case["stored_ms"]) if told is None else int(told) + int(case["passed_ms"])
        fields = pick(case, "wall_ms", "stored_ms", "told_ms", "passed_ms", "skew_ms", "time")
        return fields, within(case, max(wall, other))
    store = Store(int(case["floor"]))
    steps = [{"event": s["event"]} | getattr(store, s["event"])(s) for s in case["steps"]]
    return {"floor": case["floor"], "steps": steps, "floor_after": str(store.floor)}, None


class Store:
    """One store's clock: the floor that it keeps, and what stands under each key."""

    def __init__(self, floor):
        self.floor, self.received, self.unsent = floor, {}, {}

    def issue(self, key, now):
        """What is replaced is the newest unsent write, or else the record received (CLOCK-002)."""
        under = self.unsent.setdefault(key, [])
        time = rules.issue(now, self.floor, under[-1] if under else self.received.get(key))
        if time is not None:
            self.floor = time
            under.append(time)
        return time

    def write(self, step):
        time = self.issue(step["key"], int(step["now_ms"]))
        return pick(step, "key", "now_ms") | {"time": None if time is None else str(time)}

    def receive(self, step):
        """A record of the server's: it wins against what is unsent and older, and leaves the floor as it is."""
        key, time = step["key"], int(step["time"])
        self.received[key] = time
        self.unsent[key] = [t for t in self.unsent.get(key, []) if t > time]
        return pick(step, "key", "time")

    def reopen(self, step):
        """Another opening of the store goes on from the same floor (CLOCK-003)."""
        return {}

    def restamp(self, step):
        """Writes refused with CLOCK_SKEW, in the order in which they were made (CLIENT-018); the floor was lowered
        (CLIENT-019)."""
        self.floor = int(step["floor"])
        for key in step["keys"]:
            self.unsent[key] = []
        times = [str(self.issue(key, int(step["server_ms"]))) for key in step["keys"]]
        return pick(step, "keys", "server_ms", "floor") | {"times": times}


def state(case):
    """Of all keys, or of a range."""
    start, end = unhex(case.get("start", "")), unhex(case.get("end"))
    fields = pick(case, "records", "horizon", "start", "end")
    if end is not None and end <= start:
        return fields, "MALFORMED"
    count, fingerprint = rules.range_state([record(r) for r in case["records"]], start, end, int(case["horizon"]))
    return fields | {"count": count, "fingerprint": hexed(fingerprint)}, None


def documents(case):
    if "field" in case:
        names = [case[part] for part in ("collection", "id", "field")]
        fields, failure = pick(case, "collection", "id", "field"), rules.name_failure(*names)
        return fields | ({} if failure else {"key": hexed("\0".join(names).encode())}), failure
    shown = rules.documents([record(r) for r in case["records"]], case["collection"].encode())
    view = {hexed(i): {hexed(n): hexed(v) for n, v in sorted(f.items())} for i, f in sorted(shown.items())}
    return pick(case, "collection", "records") | {"documents": view}, None


def messages(case):
    return pick(case, "type", "text") | {"hex": hexed(encode(case["type"], case["text"]))}, None


def malformed(case):
    return pick(case, "type", "hex"), requests.refusal(case["type"], unhex(case["hex"]))


def limits(case):
    if "field" in case:
        means = requests.means(case["field"], int(case["advertised"]))
        return pick(case, "field", "advertised") | {"means": means}, None
    limit, allowed, actual = case["limit"], int(case["allowed"]), int(case["actual"])
    fields, failure = pick(case, "limit", "allowed", "actual"), requests.over(limit, allowed, actual)
    if failure in ("LIMIT_EXCEEDED", "QUOTA_EXCEEDED"):
        fields["detail"] = hexed(requests.detail(limit, allowed, actual))
    return fields, failure


def collisions(case):
    sets = [[rules.record(unhex(key), 65536, 1) for key in case[side]] for side in "ab"]
    weak = [0, 0]
    for i, side in enumerate(sets):
        for number in (int.from_bytes(rules.digest(r), "big") for r in side):
            weak[i] = weak[i] ^ number if case["combine"] == "xor" else (weak[i] + number) % (1 << 128)
    prints = [rules.fingerprint(side) for side in sets]
    assert weak[0] == weak[1] and prints[0] != prints[1] and len(sets[0]) == len(sets[1]), "no collision"
    fields = {"combine": case["combine"], "weak": format(weak[0], "x")} | pick(case, "a", "b")
    return fields | {"fingerprint_a": hexed(prints[0]), "fingerprint_b": hexed(prints[1])}, None


def columns(told, change, change_record):
    """An exchange's columns, each changed from one form to the other."""
    return {k: [change_record(r) for r in v] if k == "records" else change(v) for k, v in told.items()}


def descent(case):
    sides = [[record(r) for r in case[side]] for side in ("replica", "server")]
    held = unhex(case["start"]), unhex(case["end"])
    session = Session(*sides, held, int(case["horizon"]), int(case["salt"]), case["digest_len"])
    exchanges, failure = [], None
    for exchange in case["exchanges"]:
        assert failure is None, "goes on after what is illegal"
        told = [columns(exchange[side], unhex, record) for side in ("request", "answer")]
        try:
            told = session.exchange(*told)
        except Illegal as illegal:
            failure = str(illegal)
        exchanges.append(dict(zip(("request", "answer"), [columns(c, hexed, plain) for c in told])))
    fields = pick(case, "replica", "server", "start", "end", "horizon", "salt", "digest_len") | {"exchanges": exchanges}
    if failure is None:
        fields["complete"] = not session.open
        fields |= {name: [k.hex() for k in sorted(getattr(session, name))] for name in ("receives", "lacks")}
    return fields, failure


KINDS = {
    "digest": digest,
    "order": order,
    "clock": clock,
    "clock_update": clock_update,
    "merge": merge,
    "fingerprint": state,
    "range": state,
    "descent": descent,
    "limits": limits,
    "documents": documents,
    "messages": messages,
    "malformed": malformed,
    "collisions": collisions,
}


# ------------------------------------------------------------------ the files


def again(kind, case):
    fields, failure = KINDS[kind](case)
    out = {"name": case["name"], "valid": failure is None} | fields
    return out | ({"failure": failure} if failure else {})


def render(kind, about, cases):
    document = {"$schema": SCHEMA, "kind": kind, "version": 1, "about": about, "cases": cases}
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    # what holds nothing deeper, like a record, stands on one line
    return re.sub(r"\{\n\s+([^][{}]*?)\n\s+\}", lambda m: "{" + re.sub(r"\n\s+", " ", m[1]) + "}", text)


def main():
    wrong, layout = [], json.loads((HERE / SCHEMA).read_text(encoding="utf-8"))
    for kind in KINDS:
        path = HERE / (kind + ".json")
        text = path.read_text(encoding="utf-8")
        file = json.loads(text)
        cases = [again(kind, case) for case in file["cases"]]
        fresh = render(kind, file["about"], cases)
        wrong += ["%s %s" % (path.name, problem) for problem in json_schema.problems(json.loads(fresh), layout)]
        if "--check" not in sys.argv:
            path.write_text(fresh, encoding="utf-8")
        elif fresh != text:
            named = [old["name"] for old, new in zip(file["cases"], cases) if list(old.items()) != list(new.items())]
            wrong.append("%s differs: %s" % (path.name, ", ".join(named) or "its layout"))
    files = {path.stem for path in HERE.glob("*.json")} - {SCHEMA.removesuffix(".json")}
    wrong += ["%s.json is of no known kind" % stem for stem in sorted(files - set(KINDS))]
    for problem in wrong:
        print(problem, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
