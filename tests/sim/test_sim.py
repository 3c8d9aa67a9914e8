"""The fast set: thousands of histories on every `make test`, none of which may end in a lie. `make simulate` plays more."""

from __future__ import annotations

import errno

import pytest

from tests.sim.checks import findings
from tests.sim.install import simulated
from tests.sim.play import play
from tests.sim.scenarios import exhaustive
from tests.sim.script import AWS, CORE, FLEETS, Cut, DiskFault, Fault, Script, Weather, draw
from tests.sim.shrink import report

PARTS = 16
EACH = {CORE: 1060, FLEETS: 90, AWS: 100}


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("level", [CORE, FLEETS, AWS])
def test_no_history_ends_in_a_lie(level: str, part: int) -> None:
    with simulated():
        for seed in range(part * EACH[level], (part + 1) * EACH[level]):
            script = draw(seed, level)
            if found := findings(play(script)):
                raise AssertionError(report(script, found))


KEPT = {
    "a disk that outlives a bare-metal machine can only be asked to go after 21 minutes, and is looked after until it is gone": Script(
        weather=Weather(linger_s=1260.0, keeps="volume"), cuts=(Cut(0, 78, "kill"),), after=("release",)
    ),
    "a disk in use by a machine that is shutting down does not end the looking": Script(
        AWS, weather=Weather(linger_s=1260.0), cuts=(Cut(0, 90, "power"),), after=("release",)
    ),
    "an ending without an error says what to do next": Script(
        weather=Weather(keeps="volume"), faults=(Fault("RemoveOne", 1, "no-credentials", 10**6),)
    ),
    "a provider's own error has a next step": Script(faults=(Fault("CreateInstance", 0, "internal-error"),)),
    "a wall clock that is set forward does not age what is new": Script(
        seed=12345, weather=Weather(late_s=22.0), cuts=(Cut(0, 73, "clock", 86400.0),), after=()
    ),
    "a laptop that sleeps in the middle of a look has not looked twice": Script(
        AWS,
        984,
        weather=Weather(late_s=20.0),
        faults=(Fault("AuthorizeSecurityGroupIngress", 0, "expired-token"),),
        cuts=(Cut(0, 145, "suspend", 2000.0),),
    ),
    "what is new and shown only now and then is not gone": Script(AWS, 72, weather=Weather(late_s=20.0, flaps_s=40.0, linger_s=5.0)),
    "what is new and whose answer was lost is not gone when it is not shown for a moment": Script(
        seed=1048763, weather=Weather(flaps_s=8.0), faults=(Fault("CreateSecurityGroup", 0, "reset-after"),), after=()
    ),
    "a disk that outlives its new machine and is shown only now and then is not gone": Script(
        seed=5006734,
        weather=Weather(flaps_s=8.0, linger_s=0.0, keeps="volume"),
        own_group=True,
        cuts=(Cut(0, 72, "power"),),
        after=(),
    ),
    "nor is it at AWS": Script(
        AWS, 1002660, weather=Weather(flaps_s=40.0, linger_s=5.0, keeps="volume"), cuts=(Cut(0, 114, "signal"),), after=()
    ),
    "a wall clock that is set right again does not make what was made before new for a day": Script(
        seed=5007273,
        disk=(DiskFault(0, "write", 16, errno.EIO, 10**6), DiskFault(1, "fsync", 0, errno.EIO)),
        cuts=(Cut(0, 8, "clock", 86400.0),),
        after=("release",),
    ),
    "a disk that can be asked only when patience is over has more of it": Script(
        seed=1071143,
        weather=Weather(late_s=12.0, flaps_s=8.0, linger_s=1260.0, keeps="volume"),
        disk=(DiskFault(1, "write", 0, errno.EIO, 3),),
        cuts=(Cut(0, 114, "kill"), Cut(1, 91, "flight")),
        after=("release",),
    ),
    "a fleet whose machine was taken back may have another on its way": Script(
        FLEETS,
        seed=192,
        weather=Weather(linger_s=0.0, late_s=19.0, reclaim_s=192.0, flight_s=8.0, refills=True),
        spot=True,
        own_group=True,
        work_s=290.0,
        waived=("schedule",),
        after=(),
    ),
    "and so it may when that machine was a while in going": Script(
        FLEETS,
        seed=165,
        weather=Weather(linger_s=30.0, late_s=19.0, reclaim_s=165.0, flight_s=60.0, refills=True),
        spot=True,
        own_group=True,
        work_s=290.0,
        waived=("schedule",),
        after=(),
    ),
    "a fleet whose machine was given up while it started goes before the next offer is asked for": Script(
        FLEETS,
        seed=1006997,
        weather=Weather(reclaim_s=40.0, refills=True),
        offers=2,
        spot=True,
        cuts=(Cut(0, 145, "partition", 60.0),),
        after=(),
    ),
    "that a thing is not found is no answer to its removal": Script(
        seed=1454648,
        weather=Weather(late_s=12.0, flaps_s=8.0),
        faults=(Fault("*", 1, "no-route"),),
        cuts=(Cut(0, 139, "kill"),),
        after=("reap",),
    ),
    "a disk that was never shown, of a machine given up at once, is waited for": Script(
        AWS,
        seed=1075994,
        weather=Weather(late_s=3.0, flaps_s=40.0, linger_s=0.0, keeps="volume"),
        cuts=(Cut(0, 87, "signal"),),
        after=(),
    ),
    "a disk that is full from the first line on": Script(disk=(DiskFault(0, "write", 0, errno.ENOSPC, 10**6),)),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_was_found_once_stays_found(name: str) -> None:
    with simulated():
        found = findings(play(KEPT[name]))
    assert not found, report(KEPT[name], found)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(4))
def test_every_crash_point_of_every_scenario(part: int) -> None:
    """Killed, killed with a request in flight, a power cut, at every step of the owner. Pairs: `make simulate ARGS='--exhaustive 2'`."""
    with simulated():
        for number, script in enumerate(exhaustive(CORE, 1)):
            if number % 4 == part and (found := findings(play(script))):
                raise AssertionError(report(script, found))
