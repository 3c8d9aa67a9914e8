"""One history as data: what is rented, the weather, and everything that befalls it. A seed draws one; a test can write one.

Everything random is drawn here or from the history's own seed, so a script replays to the last byte. It is small enough
to be printed, shrunk by leaving things out, and kept as a regression test.
"""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass, field, fields, replace
from typing import Any

from tests.sim.faults import CLASSES, FOR_EVER, fits
from tests.sim.world import SETTLE_S, Weather

CORE, FLEETS, AWS = "core", "fleets", "aws"
SITES = {
    CORE: ("CreateSecurityGroup", "CreateInstance", "CreateSchedule", "ShowAll", "ShowOne", "RemoveOne"),
    FLEETS: ("CreateSecurityGroup", "CreateFleet", "ShowFleet", "CreateSchedule", "ShowAll", "ShowOne", "RemoveOne"),
    AWS: (
        "CreateSecurityGroup",
        "AuthorizeSecurityGroupIngress",
        "RunInstances",
        "CreateSchedule",
        "GetSchedule",
        "ListSchedules",
        "DeleteSchedule",
        "DescribeInstances",
        "DescribeVolumes",
        "DescribeNetworkInterfaces",
        "DescribeSecurityGroups",
        "DescribeInstanceAttribute",
        "DescribeSubnets",
        "DescribeImages",
        "GetParameter",
        "DescribeAddresses",
        "DescribeSpotInstanceRequests",
        "TerminateInstances",
        "DeleteSecurityGroup",
        "DeleteVolume",
        "DeleteNetworkInterface",
        "GetRole",
        "GetRolePolicy",
    ),
}
DISK_OPS = ("open", "write", "fdatasync", "fsync", "rename", "ftruncate", "unlink", "mkdir")
RECOVERIES = ("watchdog", "release", "reap", "elsewhere")


@dataclass(frozen=True)
class Fault:
    """The `nth` request of that kind and those after it go wrong, `times` times."""

    site: str
    nth: int
    what: str
    times: int = 1


@dataclass(frozen=True)
class DiskFault:
    """In one process: the `nth` such call and those after it are refused, `times` times; `part` of a write arrives before."""

    process: int
    op: str
    nth: int
    errno: int = errno.ENOSPC
    times: int = 1
    part: float = 0.0


@dataclass(frozen=True)
class Cut:
    """At that step of that process (0 is the owner, then who recovers, in order), this happens."""

    process: int
    at: int
    what: str  # kill, flight, power, hang, release, watchdog, reap, elsewhere, suspend, clock, signal, reclaim, partition
    arg: float = 0.0


CALM = Weather()


@dataclass(frozen=True)
class Script:
    level: str = CORE
    seed: int = 0
    weather: Weather = CALM
    life: str = "well"  # well, fails, bug, overruns
    work_s: float = 240.0
    max_s: int = 1800
    offers: int = 1
    spot: bool = False
    goes_on: bool = False  # the profile goes on with the next offer after an interruption
    own_group: bool = False
    waived: tuple[str, ...] = ()
    strangers: bool = True
    tagged: str = ""  # a person put our lease's tag on one of these: "elastic-ip", "snapshot"
    faults: tuple[Fault, ...] = ()
    disk: tuple[DiskFault, ...] = ()
    cuts: tuple[Cut, ...] = ()
    after: tuple[str, ...] = ("watchdog",)  # who comes when the owner is gone, in order
    abandoned: bool = False  # nobody comes until every guard has had its turn

    def __repr__(self) -> str:
        """As one would write it: without what is as usual."""
        return _written(self)


def _written(value: Any) -> str:
    if isinstance(value, tuple) and value and not isinstance(value[0], str):
        return f"({', '.join(_written(one) for one in value)},)"
    if not isinstance(value, Script | Weather):
        return repr(value)
    plain = type(value)()
    said = [f"{f.name}={_written(v)}" for f in fields(value) if (v := getattr(value, f.name)) != getattr(plain, f.name)]
    return f"{type(value).__name__}({', '.join(said)})"


@dataclass
class Draw:
    """What is drawn so far."""

    rng: random.Random
    taken: dict[str, Any] = field(default_factory=dict)


def draw(seed: int, level: str) -> Script:
    """A history, by its number. Most have one or two things go wrong; some have many."""
    rng = random.Random(f"{level}-{seed}")
    one = rng.random
    spot = one() < 0.2
    scale = SETTLE_S[level] / SETTLE_S[AWS]  # late, flapping and its effect late as well is still within the settle time
    weather = Weather(
        late_s=scale * rng.choice((0.0, 0.0, 0.5, 3.0, 20.0, 60.0, 110.0)),
        flaps_s=scale * rng.choice((0.0, 0.0, 0.0, 5.0, 40.0)),
        effect_s=scale * rng.choice((1.0, 30.0, 90.0, 140.0)),
        linger_s=rng.choice((0.0, 5.0, 30.0, 60.0, 400.0, 1260.0)),
        keeps=rng.choice(("", "", "", "volume", "network-interface")),
        page=rng.choice((0, 0, 1, 2)),
        guest=rng.choice(("right", "right", "right", "early", "late", "twice", "never")),
        schedule=rng.choice(("right", "right", "right", "early", "late", "twice", "never")),
        reclaim_s=rng.choice((40.0, 100.0, 300.0)) if spot and one() < 0.7 else 0.0,
        capacity=tuple(rng.choice(("", "full", "full", "given-up")) for _ in range(3)) if one() < 0.2 else (),
        odd="stop" if one() < 0.02 else "",
    )
    if level == FLEETS:
        full = tuple(rng.choice(("", "full", "given-up")) for _ in range(5)) if one() < 0.3 else ()
        fleet = rng.choice(("right", "right", "late", "never"))
        weather = replace(weather, fleet=fleet, fills_s=scale * rng.choice((2.0, 20.0, 100.0)), refills=one() < 0.5, capacity=full)
        weather = replace(weather, flight_s=rng.choice((0.0, 2.0, 8.0)))
    life = rng.choices(("well", "fails", "bug", "overruns"), (6, 2, 1, 1))[0]
    abandoned = one() < 0.12
    after = () if abandoned else tuple(rng.choice(RECOVERIES) for _ in range(rng.choice((1, 1, 2, 3))))
    faults = tuple(_fault(rng, level) for _ in range(rng.choices((0, 1, 2, 3), (4, 4, 2, 1))[0]))
    disk = tuple(_disk(rng, len(after)) for _ in range(rng.choices((0, 1, 2), (7, 2, 1))[0]))
    cuts = tuple(_cut(rng, n, spot) for n in range(len(after) + 1) if one() < (0.75 if n == 0 else 0.45))
    if abandoned and not any(cut.process == 0 for cut in cuts):
        cuts = (Cut(0, rng.randint(20, 140), "power"), *cuts)
    return Script(
        level,
        seed,
        weather,
        life,
        work_s=rng.choice((0.0, 30.0, 240.0, 600.0)),
        max_s=rng.choice((600, 1800, 5400)),
        offers=rng.choice((1, 2, 3)) if weather.capacity or spot else 1,
        spot=spot,
        goes_on=one() < 0.6,
        own_group=one() < 0.15,
        waived=("schedule",) if one() < 0.15 else (),
        tagged=rng.choice(("elastic-ip", "snapshot")) if one() < 0.05 else "",
        faults=faults,
        disk=disk,
        cuts=cuts,
        after=after,
        abandoned=abandoned,
    )


def _fault(rng: random.Random, level: str) -> Fault:
    site = rng.choice((*SITES[level], "*"))
    names = [c.name for c in CLASSES.values() if (fits(c, site) if site != "*" else not c.sites and c.effect == "before")]
    return Fault(site, rng.choice((0, 0, 0, 1, 2, 5, 12)), rng.choice(names), rng.choice((1, 1, 1, 1, 3, 3, 3, FOR_EVER)))


def _disk(rng: random.Random, others: int) -> DiskFault:
    number = rng.choice((errno.ENOSPC, errno.ENOSPC, errno.EIO, errno.EDQUOT))
    op = rng.choice(("write", "write", "write", "fdatasync", "fdatasync", "fsync", *DISK_OPS))
    return DiskFault(
        rng.randint(0, others), op, rng.choice((0, 1, 2, 4, 8, 16, 30)), number, rng.choice((1, 1, 3, FOR_EVER)), rng.choice((0.0, 0.5))
    )


DEATHS = ("kill", "kill", "kill", "flight", "power", "power", "hang")
MISHAPS = ("release", "reap", "elsewhere", "suspend", "clock", "signal", "partition")


def _cut(rng: random.Random, process: int, spot: bool) -> Cut:
    what = rng.choice(DEATHS if rng.random() < 0.75 else MISHAPS)
    if spot and process == 0 and rng.random() < 0.15:
        what = "reclaim"
    if process and what in ("hang", "signal"):
        what = "kill"
    arg = {
        "suspend": rng.choice((60.0, 2000.0, 7200.0)),
        "clock": rng.choice((-3600.0, 3600.0, -30.0, 86400.0)),
        "partition": rng.choice((1.0, 60.0, 900.0, 7200.0)),
    }.get(what, 0.0)
    return Cut(process, rng.randint(1, 150 if process == 0 else 110), what, arg)


def without(script: Script) -> list[Script]:
    """The same with one thing less, for shrinking; the largest simplifications first."""
    smaller: list[Script] = []
    for name in ("cuts", "faults", "disk", "after"):
        have = getattr(script, name)
        smaller += [replace(script, **{name: have[:n] + have[n + 1 :]}) for n in range(len(have))]
    plain = Script()
    for f in fields(Script):
        if f.name not in ("level", "seed", "cuts", "faults", "disk", "after", "weather") and getattr(script, f.name) != getattr(
            plain, f.name
        ):
            smaller.append(replace(script, **{f.name: getattr(plain, f.name)}))
    for f in fields(Weather):
        if getattr(script.weather, f.name) != getattr(Weather(), f.name):
            smaller.append(replace(script, weather=replace(script.weather, **{f.name: getattr(Weather(), f.name)})))
    for n, fault in enumerate(script.faults):
        if fault.times > 1:
            smaller.append(replace(script, faults=(*script.faults[:n], replace(fault, times=1), *script.faults[n + 1 :])))
    return smaller
