"""Files about clocks: clock (one reading) and clock_update (what happens to one over time)."""

from .rules import U64, issue, ms, skew_bound


def clock_vectors():
    out = []
    for name, now, floor, replaces in [
        ("a new clock", 1000, 0, None),
        ("twice in one millisecond", 1000, ms(1000), None),
        ("the wall clock went back", 999, ms(1000, 1), None),
        ("a full counter carries", 3, ms(5, 0xFFFF), None),
        ("above what it replaces", 1000, 0, ms(2000, 5)),
        ("the wall clock is beyond 48 bits", 1 << 50, 0, None),
        ("the last time that there is", 1, U64 - 1, None),
        ("no time is left above the floor", 1, U64, None),
        ("no time is left above what it replaces", 1, 0, U64),
    ]:
        time = issue(now, floor, replaces)
        case = {
            "name": name,
            "valid": time is not None,
            "now_ms": str(now),
            "floor": str(floor),
            "replaces": None if replaces is None else str(replaces),
        }
        case.update({"failure": "exhausted"} if time is None else {"time": str(time)})
        out.append(case)
    for name, now, skew, time in [
        ("at the clock", 1_000_000, 300_000, ms(1_000_000)),
        ("the last of the bound's millisecond", 1_000_000, 300_000, ms(1_300_000, 0xFFFF)),
        ("the first beyond", 1_000_000, 300_000, ms(1_300_001)),
        ("the greatest time", 1_000_000, 300_000, U64),
        ("time zero", 1_000_000, 300_000, 0),
    ]:
        good = time <= skew_bound(now, skew)
        case = {"name": "bound: " + name, "valid": good, "now_ms": str(now), "skew_ms": str(skew), "time": str(time)}
        if not good:
            case["failure"] = "CLOCK_SKEW"
        out.append(case)
    return "clock", "Issuing versions, and the bound on the future.", out


class Clock:
    """One store's clock: the floor that it keeps, and what stands under each key."""

    def __init__(self, floor=0):
        self.start, self.floor, self.steps = floor, floor, []
        self.received, self.unsent = {}, {}

    def write(self, key, now):
        """What is replaced is the newest unsent write, or else the record received (CLOCK-002)."""
        under = self.unsent.get(key, [])
        time = issue(now, self.floor, under[-1] if under else self.received.get(key))
        if time is not None:
            self.floor = time
            self.unsent.setdefault(key, []).append(time)
        self.steps.append({"event": "write", "key": key, "now_ms": str(now), "time": None if time is None else str(time)})
        return self

    def receive(self, key, time):
        """A record of the server's: it wins against what is unsent and older, and leaves the floor as it is."""
        self.received[key] = time
        self.unsent[key] = [t for t in self.unsent.get(key, []) if t > time]
        self.steps.append({"event": "receive", "key": key, "time": str(time)})
        return self

    def reopen(self):
        """Another opening of the store goes on from the same floor (CLOCK-003)."""
        self.steps.append({"event": "reopen"})
        return self

    def restamp(self, keys, server_ms, floor):
        """Writes refused with CLOCK_SKEW, in the order in which they were made (CLIENT-018); the floor was lowered
        to `floor` (CLIENT-019)."""
        self.floor, times = floor, []
        for key in dict.fromkeys(keys):
            self.unsent[key] = []
        for key in keys:
            under = self.unsent[key]
            self.floor = issue(server_ms, self.floor, under[-1] if under else self.received.get(key))
            under.append(self.floor)
            times.append(str(self.floor))
        self.steps.append(
            {"event": "restamp", "keys": keys, "server_ms": str(server_ms), "floor": str(floor), "times": times}
        )
        return self

    def case(self, name):
        return {"name": name, "valid": True, "floor": str(self.start), "steps": self.steps, "floor_after": str(self.floor)}


def clock_update_vectors():
    ahead = 9_000_000
    out = [
        Clock().write("a", 1000).write("a", 1000).write("b", 1000).case("three writes in one millisecond"),
        Clock().write("a", 1000).write("b", 400).write("b", 1001).case("the wall clock goes back, and catches up"),
        Clock().write("a", 1000).reopen().write("a", 900).case("the floor survives the opening"),
        Clock().receive("a", ms(5000, 7)).write("a", 1000).write("b", 1000).case(
            "a received record is exceeded by what replaces it, and by whatever comes after that"
        ),
        Clock().receive("a", ms(5000, 7)).write("b", 1000).case("a received record does not move the clock by itself"),
        Clock().write("a", 1000).receive("a", ms(900)).write("a", 1000).case("an older record changes nothing"),
        Clock().write("a", 1000).receive("a", ms(2000)).write("a", 1000).case("a winner is what is replaced from then on"),
        Clock(ms(5, 0xFFFE)).write("a", 3).write("a", 3).write("a", 3).case("the counter carries into the milliseconds"),
        Clock(U64 - 1).write("a", 1).write("a", 1).write("b", 1).case("no time is left: refused, and the floor stays"),
        Clock().receive("a", U64).write("a", 1).write("b", 1).case("one key at the end of time does not stop others"),
        Clock().write("a", ahead).write("b", ahead).restamp(["a", "b"], 1000, ms(1000)).write("c", 1000).case(
            "writes of a clock that ran ahead, in the order in which they were made"
        ),
        Clock().write("a", ahead).write("a", ahead).restamp(["a", "a"], 1000, ms(1000)).case("two of one key"),
        Clock().receive("a", ms(2000)).write("a", ahead).restamp(["a"], 1000, ms(1000)).case(
            "above what it replaces, although that is ahead of the server's clock"
        ),
    ]
    for name, wall, stored, time in [
        ("the wall clock counts where it is ahead of the stored reading", 2_000_000, 1_000_000, ms(2_300_000, 0xFFFF)),
        ("a wall clock that was set back does not count", 1_000, 2_000_000, ms(2_300_000, 0xFFFF)),
        ("beyond both", 1_000, 2_000_000, ms(2_300_001)),
    ]:
        out.append(bound_case("server: " + name, {"wall_ms": wall, "stored_ms": stored}, max(wall, stored), time))
    for name, wall, told, passed, time in [
        ("its own clock is ahead", 2_000_000, 1_000_000, 0, ms(2_300_000, 0xFFFF)),
        ("the server's is ahead", 1_000_000, 2_000_000, 0, ms(2_300_000, 0xFFFF)),
        ("the server's time goes on after it was told", 1_000_000, 2_000_000, 5_000, ms(2_305_000)),
        ("beyond both", 1_000_000, 2_000_000, 5_000, ms(2_305_001)),
    ]:
        known = {"wall_ms": wall, "told_ms": told, "passed_ms": passed}
        out.append(bound_case("replica: " + name, known, max(wall, told + passed), time))
    return "clock_update", "A clock over time, and the readings that the bound on the future is taken from.", out


def bound_case(name, known, reading, time):
    valid = time <= skew_bound(reading, 300_000)
    case = {"name": name, "valid": valid, **{k: str(v) for k, v in known.items()}, "skew_ms": "300000", "time": str(time)}
    if not valid:
        case["failure"] = "CLOCK_SKEW"
    return case
