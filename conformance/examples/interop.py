#!/usr/bin/env python3
"""Clients of different makers on one server: they write, conflict, delete and must end with the same records.

The suite judges each implementation by itself; this sees that they also understand each other. Each `--driver` is a
command that speaks the suite's driver protocol (driver.proto); each gets a replica of its own in one space.
"""

import argparse
import secrets
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "proto"))
pb = grpc.protos("gosync/conformance/v1/driver.proto")
PATIENCE_MS = 20_000


class Driver:
    """A client behind its driver."""

    def __init__(self, command: str, url: str, space: str, folder: str):
        self.process = subprocess.Popen(shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder)
        self.id = 0
        self.name = self.ask(hello=pb.DriverHello()).info.name
        self.ask(open=pb.Open(replica="r", store=self.name, url=url, transport=pb.TRANSPORT_GRPC, space=space))

    def ask(self, **command):
        self.id += 1
        body = pb.DriverRequest(id=self.id, **command).SerializeToString()
        self.process.stdin.write(len(body).to_bytes(4, "big") + body)
        self.process.stdin.flush()
        size = int.from_bytes(self.process.stdout.read(4), "big")
        answer = pb.DriverResponse.FromString(self.process.stdout.read(size))
        result = answer.WhichOneof("result")
        if result not in ("done", "info", "contents"):
            raise SystemExit(f"{self.process.args[-1]} answered {answer}")
        return answer

    def put(self, key: str, value: str):
        self.ask(put=pb.Put(replica="r", key=key.encode(), value=value.encode()))

    def delete(self, key: str):
        self.ask(delete=pb.Delete(replica="r", key=key.encode()))

    def sync(self):
        self.ask(sync=pb.Sync(replica="r", timeout_ms=PATIENCE_MS))

    def contents(self):
        found = self.ask(read_all=pb.ReadAll(replica="r")).contents
        return found, {bytes(e.key).decode(): (bytes(e.value).decode(), e.time, e.writer) for e in found.entries}

    def end(self):
        self.process.stdin.close()
        self.process.wait(10)


def play(drivers: list):
    for i, driver in enumerate(drivers):
        for n in range(100):
            driver.put(f"{driver.name}/{n:03}", f"value {n}")
        driver.put("shared", f"by {driver.name}")
        driver.sync()
    settle(drivers)
    for driver, other in zip(drivers, drivers[1:] + drivers[:1]):  # all offline: edits, a conflict, deletions
        driver.put("shared", f"again by {driver.name}")
        driver.put(f"{driver.name}/000", "changed")
        driver.delete(f"{other.name}/001")
    settle(drivers)


def settle(drivers: list):
    """Twice, so that the first also gets what the last pushed; then all must hold the same."""
    for _ in range(2):
        for driver in drivers:
            driver.sync()
    views = [driver.contents() for driver in drivers]
    for driver, (found, view) in zip(drivers, views):
        if view != views[0][1] or found.pending:
            odd = sorted(k for k in view.keys() | views[0][1].keys() if view.get(k) != views[0][1].get(k))
            raise SystemExit(f"{driver.name} and {drivers[0].name} differ in {odd[:5]}; pending: {len(found.pending)}")


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--url", required=True)
    options.add_argument("--driver", action="append", required=True, metavar="CMD")
    given = options.parse_args()
    space = f"interop-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as folder:
        drivers = [Driver(command, given.url, space, folder) for command in given.driver]
        play(drivers)
        verified = [driver.contents()[0].verified for driver in drivers]
        _, view = drivers[0].contents()
        print(f"{len(view)} records are the same in {', '.join(d.name for d in drivers)}; verified: {verified}")
        for driver in drivers:
            driver.end()


if __name__ == "__main__":
    main()
