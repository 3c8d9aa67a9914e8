"""Processes on simulated computers: what runs now, where it may die, and the time that it is told.

One process runs at a time. Its steps are counted: before and after each call to the disk, and each request as it is
sent, as it takes effect and as its answer is on the way. At a step that the script names, something happens: the
process is killed, the power fails, the clock is set, the computer sleeps, or another process runs in between. A
killed process stays dead: every further step of it raises `Crash`, so that no `finally` of it can help.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.sim.disk import Disk
    from tests.sim.world import World

EPOCH = 1_800_000_000.0
MOST_STEPS = 20_000


class Crash(BaseException):
    """The process is dead: nothing of it runs any more, not even a `finally`."""


class Stuck(BaseException):
    """The history does not end: a bug of the product or of the simulator."""


class Computer:
    """A disk, a wall clock that somebody may set, and a clock that nobody sets."""

    def __init__(self, name: str, disk: Disk, world: World, rng: random.Random) -> None:
        self.name, self.disk, self.world, self.rng = name, disk, world, rng
        self.wrong_s = 0.0  # by how much the wall clock is off
        self.asleep_s = 0.0  # how long it has been suspended in all


class Process:
    """A program that runs on a computer, and everything that will befall it."""

    def __init__(self, computer: Computer, name: str, pid: int = 1, parent: int = 0) -> None:
        self.computer, self.name, self.pid, self.parent = computer, name, pid, parent
        self.disk = computer.disk
        self.count, self.dead = 0, False
        self.cuts: dict[int, Any] = {}  # step -> Cut
        self.disk_faults: list[Any] = []
        self.refusal: OSError | None = None
        self.befalls: Callable[[Process, Any, str], None] = lambda process, cut, site: None
        self.flight: Callable[[], Any] | None = None  # the request that is about to be sent
        self.trail: list[str] | None = None

    def step(self, site: str, size: int = 0, creates: bool = False) -> int | None:
        """One instant. Returns how much of a write the disk takes, when not all."""
        if self.dead:
            raise Crash
        self.count += 1
        if self.count > MOST_STEPS:
            raise Stuck(f"{self.name}: {self.count} steps, the last one {site} at {self.computer.world.t:.0f} s")
        if self.trail is not None:
            self.trail.append(site)
        if (cut := self.cuts.get(self.count)) is not None:
            self.befalls(self, cut, site)
            if self.dead:
                raise Crash
        if self.disk_faults:
            return self._disk(site, size, creates)
        return None

    def _disk(self, site: str, size: int, creates: bool) -> int | None:
        self.refusal = None
        for fault in self.disk_faults:
            if fault.times > 0 and fault.hits(site, creates):
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                COVERED[site, errno.errorcode[fault.errno], fault.often] += 1
                error = OSError(fault.errno, os.strerror(fault.errno))
                if site == "write" and fault.part:
                    self.refusal = error  # part of it arrives first
                    return int(size * fault.part)
                raise error
        return None

    def die(self) -> None:
        self.dead = True
        self.disk.forget(self)


COVERED: Counter[tuple[str, str, str]] = Counter()
"""(site, what befell it, which way) -> how often."""

_NOW: list[Process] = []
_LIVING: dict[int, Process] = {}


def now() -> Process:
    return _NOW[-1]


@contextlib.contextmanager
def running(process: Process) -> Iterator[Process]:
    _NOW.append(process)
    _LIVING[process.pid] = process
    try:
        yield process
    finally:
        _NOW.pop()
        del _LIVING[process.pid]
        process.disk.forget(process)  # it ended, or it died


def kill(pid: int) -> None:
    if pid in _LIVING:
        COVERED["process", "SIGKILL", "by the watchdog"] += 1
        _LIVING[pid].die()


class SimTime:
    """`time`, for the process that runs now."""

    CLOCK_BOOTTIME = 7
    gmtime, strftime = staticmethod(time.gmtime), staticmethod(time.strftime)

    @staticmethod
    def time() -> float:
        computer = _NOW[-1].computer
        return EPOCH + computer.world.t + computer.wrong_s

    @staticmethod
    def monotonic() -> float:
        computer = _NOW[-1].computer
        return computer.world.t - computer.asleep_s

    @staticmethod
    def monotonic_ns() -> int:
        return int(SimTime.monotonic() * 1e9)

    @staticmethod
    def clock_gettime(which: int) -> float:
        return _NOW[-1].computer.world.t

    @staticmethod
    def sleep(seconds: float) -> None:
        process = _NOW[-1]
        process.step("sleep")
        process.computer.world.go_on(seconds)
        process.step("sleep.done")
