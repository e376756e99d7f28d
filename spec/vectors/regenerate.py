#!/usr/bin/env python3
"""Makes every vector file of this folder, from the specification's text alone.

Standard library only, and no code in common with any other implementation of
the protocol: the rules are written in `generator/` a second time, so that a
mistake in one place shows. `regenerate.py` writes the files; `regenerate.py
--check` compares them with what it would write, and exits with 1 when they
differ. `regenerate.py --search` looks for the set of the additive collision
again (about two minutes); its result is otherwise taken from ADDITIVE in
`generator/collisions.py`, and verified.
"""

import json
import pathlib
import re
import sys

sys.dont_write_bytecode = True

from generator import clocks, collisions, limits, messages, records, schema, sets, transcripts  # noqa: E402 (after the line above)

HERE = pathlib.Path(__file__).resolve().parent

FILES = [
    records.digest_vectors,
    records.order_vectors,
    clocks.clock_vectors,
    clocks.clock_update_vectors,
    records.merge_vectors,
    sets.fingerprint_vectors,
    sets.range_vectors,
    sets.document_vectors,
    messages.message_vectors,
    messages.malformed_vectors,
    limits.limit_vectors,
    transcripts.descent_vectors,
    collisions.collision_vectors,
]


def render(kind, about, cases):
    document = {"$schema": "vectors.schema.json", "kind": kind, "version": 1, "about": about, "cases": cases}
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    # what holds nothing deeper, like a record, stands on one line
    return re.sub(r"\{\n\s+([^][{}]*?)\n\s+\}", lambda m: "{" + re.sub(r"\n\s+", " ", m[1]) + "}", text)


def main():
    if "--search" in sys.argv:
        print("ADDITIVE =", collisions.additive_sets())
        return 0
    wrong = []
    rules = json.loads((HERE / "vectors.schema.json").read_text(encoding="utf-8"))
    for make in FILES:
        kind, about, cases = make()
        path, text = HERE / (kind + ".json"), render(kind, about, cases)
        wrong += ["%s %s" % (path.name, problem) for problem in schema.problems(json.loads(text), rules)]
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            wrong.append(path.name + " differs from what the specification gives")
    for problem in wrong:
        print(problem, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
