"""Files about sets of records: fingerprint, range, documents."""

from .rules import documents, ms, name_failure, plain, range_state, record


def fingerprint_vectors():
    def keys(*names):
        return [record(n, ms(1), 1, b"value of " + (n if isinstance(n, bytes) else n.encode())) for n in names]

    sets = [
        ("no records", [], 0),
        ("one record", keys("a"), 0),
        ("two records", keys("a", "b"), 0),
        ("three records", keys("a", "b", "c"), 0),
        ("a key and its extension", keys("a", "a\0"), 0),
        ("prefixes of each other", keys("a", "ab", "abc", "b", "ba"), 0),
        ("zero and 0xff bytes", keys(b"\0", b"\0\0", b"\xff", b"\xff\0", b"\xff\xff"), 0),
        ("above and below the surrogates", keys("\uffff", "\U00010000"), 0),
        ("a tombstone counts", keys("a") + [record("b", ms(9), 1, tombstone=True)], ms(9)),
        ("a tombstone below the horizon does not", keys("a") + [record("b", ms(8), 1, tombstone=True)], ms(9)),
        ("a put below the horizon does", keys("a", "b"), ms(9)),
        ("a chain: each key extends the one before", keys(*["k" * n for n in range(1, 20)]), 0),
        ("a hundred counters", keys(*["item-%03d" % n for n in range(100)]), 0),
    ]
    out = []
    for name, records, horizon in sets:
        count, fp = range_state(records, b"", None, horizon)
        out.append(
            {
                "name": name,
                "valid": True,
                "records": [plain(r) for r in records],
                "horizon": str(horizon),
                "count": count,
                "fingerprint": fp.hex(),
            }
        )
    return "fingerprint", "The fingerprint of a set of records.", out


def range_vectors():
    records = [
        record(n, ms(i), 1, "v")
        for i, n in enumerate(["a", "ab", "b", "b\0", "ba", "c", b"\xff", b"\xff\xff"])
    ] + [record("bb", ms(3), 1, tombstone=True)]
    out = []
    for name, start, end in [
        ("all keys", b"", None),
        ("the end is not in the range", b"a", b"b"),
        ("the start is", b"b", b"c"),
        ("one key", b"b", b"b\0"),
        ("a prefix", b"a", b"b"),
        ("nothing between", b"bc", b"c"),
        ("no upper end", b"c", None),
        ("from the lowest", b"", b"ab"),
        ("an end that is no key", b"a", b"aa\xff\xff"),
    ]:
        count, fp = range_state(records, start, end, 0)
        out.append(
            {
                "name": name,
                "valid": True,
                "records": [plain(r) for r in records],
                "horizon": "0",
                "start": start.hex(),
                "end": None if end is None else end.hex(),
                "count": count,
                "fingerprint": fp.hex(),
            }
        )
    for name, start, end in [("inverted", b"b", b"a"), ("empty", b"a", b"a"), ("empty at the beginning", b"", b"")]:
        out.append(
            {
                "name": name,
                "valid": False,
                "records": [],
                "horizon": "0",
                "start": start.hex(),
                "end": end.hex(),
                "failure": "MALFORMED",
            }
        )
    return "range", "The fingerprint of a key range.", out


def document_vectors():
    def key(field_name, id_="t1", collection="todos"):
        return b"\0".join([collection.encode(), id_.encode(), field_name.encode()])

    out = []
    for name, collection, id_, field_name in [
        ("the existence record", "todos", "t1", ""),
        ("a field", "todos", "t1", "title"),
        ("names beyond ASCII", "Städte", "zürich", "größe"),
        ("an id that looks like a path", "files", "a/b.c", "size"),
    ]:
        k = key(field_name, id_, collection)
        out.append(
            {
                "name": "key: " + name,
                "valid": True,
                "collection": collection,
                "id": id_,
                "field": field_name,
                "key": k.hex(),
            }
        )
    for name, collection, id_, field_name in [
        ("no collection", "", "t1", "title"),
        ("no id", "todos", "", "title"),
        ("a zero in the collection", "to\0dos", "t1", "title"),
        ("a zero in the id", "todos", "t\0001", "title"),
        ("a zero in the field's name", "todos", "t1", "ti\0tle"),
        ("a key of 513 bytes", "todos", "t1", "x" * 504),
    ]:
        parts = {"collection": collection, "id": id_, "field": field_name}
        out.append({"name": "key: " + name, "valid": False, **parts, "failure": name_failure(collection, id_, field_name)})
    views = [
        ("two fields", [record(key(""), 5), record(key("title"), 6, 1, '"Milk"'), record(key("done"), 7, 1, "false")]),
        ("no existence record", [record(key("title"), 6, 1, '"Milk"')]),
        ("deleted, then a late patch", [record(key(""), 9, tombstone=True), record(key("title"), 10, 1, '"late"')]),
        ("created again: old fields do not show", [record(key(""), 9), record(key("title"), 8, 1, '"old"')]),
        ("a field of the same version shows", [record(key(""), 9, 4), record(key("title"), 9, 4, '"same"')]),
        ("a field of the same time and a lower replica does not", [record(key(""), 9, 4), record(key("title"), 9, 3, '"low"')]),
        ("the existence record's value does not matter", [record(key(""), 5, 1, "odd"), record(key("title"), 6, 1, '"Milk"')]),
        ("keys that are no UTF-8", [record(b"todos\0\xff\0", 5, 1), record(key(""), 5), record(key("") + b"\xff", 6, 1, "1")]),
        ("a removed field", [record(key(""), 5), record(key("title"), 6, tombstone=True)]),
        ("an id that extends another", [record(key(""), 5), record(key("", "t10"), 5), record(key("x", "t10"), 6, 1, "1")]),
        ("keys that are no documents", [record("todos", 5, 1, "v"), record(b"todos\0", 5, 1, "v"), record(b"todos\0\0f", 5, 1, "v")]),
        ("another collection", [record(key("", "t1", "todo"), 5), record(key("", "t1", "todos2"), 5)]),
        ("a field name with a zero byte", [record(key(""), 5), record(key("") + b"a\0b", 6, 1, "1")]),
    ]
    for name, records in views:
        shown = documents(records, b"todos")
        out.append(
            {
                "name": "view: " + name,
                "valid": True,
                "collection": "todos",
                "records": [plain(r) for r in records],
                "documents": {
                    i.hex(): {n.hex(): v.hex() for n, v in sorted(f.items())} for i, f in sorted(shown.items())
                },
            }
        )
    return "documents", "Keys of documents and fields, and what a reader shows.", out
