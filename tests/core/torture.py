"""The program that is killed: a lease held on the simulated cloud, at every instant of its life."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from cost import Price
from provisioner.journal import Journal
from provisioner.lease import hold, release
from provisioner.model import LaunchSpec, Offer, Verdict
from provisioner.providers.sim import Fault, SimClock, SimProvider, Wire, World
from provisioner.secret import Secret

LEASE = "r-20261121t140210z-7f3a9k2m"
OFFER = Offer("sim", "sim-1", "sim.large", "SIM", 1, 24000, 4, Price(1_000_000, "simulated", "2026-11-21"))
SPEC = LaunchSpec(OFFER, 60, "2030-11-21T15:00:00.000Z", user_data=Secret("secret"))


class TrippingJournal(Journal):
    """Dies before, in the middle of, or after a line."""

    wire = Wire()

    def _write(self, line: bytes) -> None:
        self.wire.trip()
        if self.wire.count + 1 == self.wire.at:
            os.write(self._fd, line[: len(line) // 2])
        self.wire.trip()
        super()._write(line)
        self.wire.trip()


class FullDisk(Journal):
    """A disk with room for `left` more lines, ballast or no ballast."""

    left = 10**9

    def _write(self, line: bytes) -> None:
        self.left -= 1
        if self.left < 0:
            os.write(self._fd, line[:7])
            raise OSError(errno.ENOSPC, "No space left on device")
        super()._write(line)


def program(cloud: SimProvider, clock: SimClock, path: Path, wire: Wire, machines: int = 1) -> Verdict | None:
    """Holds a machine; with more than one, each is dropped before the next is asked for, as after a spot machine was taken back."""
    journal = TrippingJournal(path, clock)
    journal.wire = cloud.wire = wire
    try:
        journal.append("genesis", {"lease": LEASE, "provider": "sim", "settings": {}})
        with hold(LEASE, cloud, journal, clock) as lease:
            for kind in cloud.steps(SPEC):
                lease.create(kind, SPEC)
            for _ in range(machines - 1):
                wire.trip()
                lease.drop(lease.made["instance"], within=60, sleep=clock.sleep, tell=lambda text: None)
                wire.trip()
                lease.create("instance", SPEC)
            wire.trip()
            clock.sleep(100)
            wire.trip()
        return lease.verdict
    finally:
        journal.close()


def recover(cloud: SimProvider, clock: SimClock, path: Path, at: int | None = None) -> Verdict:
    wire = Wire(at)
    cloud.wire = wire
    journal = TrippingJournal(path, clock)
    journal.wire = wire
    try:
        return release(LEASE, cloud, journal, clock, patience=1e6)
    finally:
        journal.close()


def cloud(**kw: Any) -> tuple[SimProvider, SimClock]:
    clock = SimClock()
    faults = [Fault(*f) for f in kw.pop("faults", [])]
    return SimProvider(clock, World(faults=faults, **kw)), clock
