"""Sets of records that weaker fingerprints confuse; how they were found, and the check that they do."""

from .rules import digest, fingerprint, record


def numbered(n):
    """The n-th record of the collision sets."""
    return record("n%07d" % n, 65536, 1)


def xor_sets():
    """Two sets of equal size with the same XOR of digests, by elimination."""
    basis = {}  # highest bit -> (value, set of indexes as a bit mask)
    n = 0
    while True:
        value, used = int.from_bytes(digest(numbered(n)), "big"), 1 << n
        n += 1
        while value:
            top = value.bit_length()
            if top not in basis:
                basis[top] = (value, used)
                break
            other, other_used = basis[top]
            value ^= other
            used ^= other_used
        else:
            members = [i for i in range(n) if used >> i & 1]
            if len(members) % 2 == 0:
                half = len(members) // 2
                return members[:half], members[half:]


def additive_sets(bits=128, lists=128, size=1 << 16):
    """Two sets of equal size with the same sum of digests mod 2^bits.

    Wagner's tree algorithm: half of the lists count with a minus.
    """
    modulus = 1 << bits
    per_level = bits // (lists.bit_length())

    def leaf(number):
        base = number * size
        sign = 1 if number % 2 == 0 else -1
        return {
            sign * int.from_bytes(digest(numbered(base + i)), "big") % modulus: (base + i,) for i in range(size)
        }

    def combine(left, right, known):
        mask = (1 << known) - 1
        buckets = {}
        for value, members in right.items():
            buckets.setdefault(value & mask, []).append((value, members))
        out = {}
        for value, members in left.items():
            for other, others in buckets.get(-value & mask, ()):
                out[(value + other) % modulus] = members + others
                if len(out) >= size * 2:
                    return out
        return out

    def tree(first, count):
        if count == 1:
            return leaf(first)
        half = count // 2
        level = count.bit_length() - 1
        known = bits if count == lists else per_level * level
        return combine(tree(first, half), tree(first + half, half), known)

    for value, members in tree(0, lists).items():
        if value == 0:
            plus = sorted(m for m in members if (m // size) % 2 == 0)
            minus = sorted(m for m in members if (m // size) % 2 == 1)
            return plus, minus
    raise SystemExit("no collision was found; enlarge `size`")


# Found by additive_sets(), verified at every run.
ADDITIVE = (
    [
        61342, 170101, 312484, 404437, 546281, 660986, 788537, 959495, 1087638, 1206787, 1332726,
        1490924, 1596851, 1746335, 1878852, 1968595, 2141548, 2263552, 2379367, 2531543, 2678656,
        2816665, 2892700, 3037494, 3200022, 3289553, 3453224, 3570248, 3672289, 3862349, 3932902,
        4071804, 4246231, 4374778, 4495433, 4611895, 4773337, 4884034, 5027326, 5126586, 5263016,
        5434026, 5556719, 5639690, 5812846, 5953973, 6058794, 6196811, 6319099, 6438674, 6580525,
        6703077, 6868316, 6991810, 7092710, 7242172, 7369074, 7494806, 7657202, 7795605, 7865568,
        8001462, 8187110, 8288984,
    ],
    [
        119198, 247132, 381966, 506040, 623423, 762478, 906975, 988257, 1134985, 1300131, 1440616,
        1572374, 1651399, 1782375, 1908960, 2080280, 2210869, 2327035, 2435972, 2589012, 2704524,
        2823001, 2961522, 3089678, 3246883, 3402136, 3480913, 3637924, 3791842, 3925189, 4010176,
        4150718, 4262096, 4449258, 4569328, 4690154, 4831396, 4957381, 5092956, 5216290, 5329478,
        5461722, 5587304, 5746743, 5862200, 6014970, 6133586, 6247879, 6369272, 6539453, 6632604,
        6758561, 6902484, 7073467, 7200156, 7282078, 7412137, 7591099, 7732065, 7820673, 7944868,
        8114399, 8218927, 8362240,
    ],
)


def collision_vectors():
    out = []
    for name, combine, (a, b) in [
        ("xor", "xor", xor_sets()),
        ("sum modulo 2^128", "sum128", ADDITIVE),
    ]:
        sets = [sorted((numbered(i) for i in s), key=lambda r: r["key"]) for s in (a, b)]
        numbers = [[int.from_bytes(digest(r), "big") for r in s] for s in sets]
        weak = []
        for values in numbers:
            total = 0
            for v in values:
                total = total ^ v if combine == "xor" else (total + v) % (1 << 128)
            weak.append(total)
        assert weak[0] == weak[1] and a != b and len(a) == len(b), name
        fps = [fingerprint(s) for s in sets]
        assert fps[0] != fps[1]
        out.append(
            {
                "name": "two sets of equal size with the same " + name + " of digests",
                "valid": True,
                "combine": combine,
                "weak": format(weak[0], "x"),
                "a": [r["key"].hex() for r in sets[0]],
                "b": [r["key"].hex() for r in sets[1]],
                "fingerprint_a": fps[0].hex(),
                "fingerprint_b": fps[1].hex(),
            }
        )
    return (
        "collisions",
        "Sets that fingerprints by XOR or addition cannot tell apart. Each record has time 65536, replica 1, no flags and an empty value.",
        out,
    )
