"""The scenarios whose every crash point is tried: each a way of renting in a certain weather, without anything random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.sim.install import simulated
from tests.sim.play import play
from tests.sim.script import AWS, CORE, FLEETS, Cut, Fault, Script, Weather
from tests.sim.world import SETTLE_S

LATE = {level: settle / 3 for level, settle in SETTLE_S.items()}


def scenarios(level: str) -> list[Script]:
    late = LATE[level]
    launch = {CORE: "CreateInstance", FLEETS: "CreateFleet", AWS: "RunInstances"}[level]
    remove = "TerminateInstances" if level == AWS else "RemoveOne"
    return [
        Script(level),
        Script(level, weather=Weather(late_s=late)),
        Script(level, weather=Weather(linger_s=1260.0)),
        Script(level, weather=Weather(keeps="volume"), tagged="elastic-ip"),
        Script(level, weather=Weather(keeps="network-interface", page=1), own_group=True),
        Script(level, weather=Weather(late_s=late), faults=(Fault(launch, 0, "read-timeout-after"),)),
        Script(level, weather=Weather(late_s=late, effect_s=late), faults=(Fault(launch, 0, "read-timeout-late"),)),
        Script(level, weather=Weather(capacity=("full", "given-up", "")), offers=3),
        Script(level, weather=Weather(reclaim_s=100.0), spot=True, offers=2, goes_on=True),
        Script(level, faults=(Fault(remove, 0, "throttled", 3),), life="fails"),
        Script(level, faults=(Fault("CreateSchedule", 0, "reset-after"),)),
        *([Script(level, weather=Weather(refills=True, reclaim_s=100.0), spot=True, offers=2, goes_on=True)] if level == FLEETS else []),
    ]


def exhaustive(level: str, depth: int) -> Iterator[Script]:
    """Every step of the owner, by a kill, with a request in flight, and by a power cut; with depth 2 then every step of the recovery."""
    with simulated():
        for plain in scenarios(level):
            steps = play(plain).steps[0]
            for what in ("kill", "flight", "power"):
                for first in range(1, steps + 1):
                    once = replace(plain, cuts=(Cut(0, first, what),), after=("release",))
                    if depth == 1:
                        yield once
                        continue
                    again = play(once).steps[1]
                    for second in range(1, again + 1, 1 if what == "kill" else 3):
                        yield replace(once, cuts=(*once.cuts, Cut(1, second, what)), after=("release", "watchdog"))
