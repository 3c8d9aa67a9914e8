"""A cloud that behaves like the worst day of a real one. For the guarantee's tests only; nothing here is real.

In memory it lives on a clock of its own (`SimClock`), so that an hour costs nothing; with a `path` it lives in a file
on real time, so that several real processes (a run, its watchdog, a test) see the same cloud.

It lists late, lingers in `shutting-down`, loses answers, refuses and throttles, as it is told. `Wire` is the crash:
it counts the instants between steps and kills the process at the one chosen; once tripped it stays tripped, so that a
`finally` cannot quietly help.

It must not know the engine that it tortures.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cost import Price
from provisioner.errors import NoCapacity, NotCreated, NotPermitted, ProviderError
from provisioner.model import Clock, Inventory, Json, LaunchSpec, Looked, Offer, Phase, Requirements, Resource, Traits

KINDS = ("instance", "volume", "security-group")


class Crash(BaseException):
    """The process dies here: nothing of it runs any more, not even a `finally`."""


class Wire:
    """Counts the instants between steps; the process dies at the one chosen, and stays dead."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.count, self.dead = at, 0, False

    def trip(self) -> None:
        self.count += 1
        if self.dead or self.count == self.at:
            self.dead = True
            raise Crash


class SimClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self, at: float = 1_800_000_000.0) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    def counting(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


@dataclass
class Fault:
    """`times` calls of `verb` go wrong: refuse, full, down (before effect), lost (after effect), throttled, denied."""

    verb: str
    times: int
    what: str


@dataclass
class Thing:
    id: str
    kind: str
    lease: str
    token: str
    born: float
    listed_at: float
    asked: float | None = None
    dies_at: float | None = None
    of: str = ""  # the instance a volume was born with


@dataclass
class World:
    """The ground truth, and how it misbehaves."""

    things: dict[str, Thing] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    late_s: float = 0.0
    linger_s: float = 30.0
    volume_survives: bool = False
    answer_takes_s: float = 0.0

    def billed(self) -> list[Thing]:
        """What costs money now: instances not asked to go, volumes not deleted."""
        return [t for t in self.things.values() if t.asked is None and t.kind != "security-group"]


class SimProvider:
    name = "sim"
    anchor = ""

    def __init__(self, clock: Clock | None = None, world: World | None = None, *, path: str | None = None, settle_s: float = 60.0) -> None:
        self.clock: Clock = clock or RealClock()
        self.path = path
        self.world = world or World()
        self.wire = Wire()
        self.traits = Traits(settle_s=settle_s, second_look_s=0.2 if path else 2.0, powers_itself_off=True, simulated=True)
        self.calls = 0

    def settings(self) -> dict[str, Json]:
        return {"path": self.path, "settle_ms": int(self.traits.settle_s * 1000)}

    @classmethod
    def connect(cls, settings: Mapping[str, Json]) -> SimProvider:
        return cls(path=settings["path"], settle_s=settings["settle_ms"] / 1000)

    def offers(self, need: Requirements) -> Sequence[Offer]:
        return [Offer("sim", "sim-1", "sim.large", "SIM", 1, 24000, 4, Price(1_000_000, "simulated", "2026-11-21"))]

    def steps(self, spec: LaunchSpec) -> tuple[str, ...]:
        return ("instance",) if spec.group else ("security-group", "instance")

    def create(self, kind: str, spec: LaunchSpec, *, lease: str, token: str, made: Mapping[str, Resource]) -> Resource:
        self.wire.trip()
        with self._world() as world:
            fault = self._fault(world, "create")
            if fault == "refuse":
                raise NotCreated("the simulated cloud has no quota", provider_code="VcpuLimitExceeded")
            if fault == "full":
                raise NoCapacity("the simulated cloud has no capacity", provider_code="InsufficientInstanceCapacity")
            if fault in ("down", "throttled", "denied"):
                raise ProviderError("connect timeout")
            thing = next((t for t in world.things.values() if t.token == token), None) or self._born(world, kind, lease, token)
        time.sleep(world.answer_takes_s)
        self.wire.trip()  # the request arrived; the answer is on its way
        if fault == "lost":
            raise ProviderError("read timeout")
        return self._as(thing)

    def verify_launch(self, machine: Resource, spec: LaunchSpec) -> Sequence[str]:
        return ()

    def inventory(self, lease: str | None = None) -> Inventory:
        self.wire.trip()
        with self._world() as world:
            self._fail(world, "inventory")
            now = self.clock.now()
            shown = tuple(self._as(t) for t in world.things.values() if (lease is None or t.lease == lease) and now >= t.listed_at)
        return Inventory(shown, tuple(Looked(kind, "sim-1") for kind in KINDS), (f"req-{self.calls}",))

    def observe(self, resource: Resource) -> Resource:
        self.wire.trip()
        with self._world() as world:
            self._fail(world, "observe")
            thing = world.things[resource.id]
            if self.clock.now() < thing.listed_at:
                return replace(resource, phase=Phase.GONE, state="not-found")
            return self._as(thing)

    def remove(self, resource: Resource) -> Mapping[str, Json]:
        self.wire.trip()
        with self._world() as world:
            self._fail(world, "remove")
            thing = world.things[resource.id]
            if self.clock.now() < thing.listed_at:
                return {"state": "not-found"}  # which is no failure, and no removal either
            machines = [t for t in world.things.values() if t.lease == thing.lease and t.kind == "instance"]
            users = [t for t in machines if self._as(t).phase is not Phase.GONE]
            if thing.kind != "instance" and users:
                raise ProviderError("still in use", provider_code="DependencyViolation")
            self._end(world, thing)
        self.wire.trip()
        return {"requestId": f"req-{self.calls}"}

    def _born(self, world: World, kind: str, lease: str, token: str) -> Thing:
        now = self.clock.now()
        thing = Thing(f"{kind}-{len(world.things):04x}", kind, lease, token, now, now + world.late_s)
        world.things[thing.id] = thing
        if kind == "instance":  # its disk is born with it, in the same call
            disk = Thing(f"volume-{len(world.things):04x}", "volume", lease, "", now, now + world.late_s, of=thing.id)
            world.things[disk.id] = disk
        return thing

    def _end(self, world: World, thing: Thing) -> None:
        if thing.asked is not None:
            return
        thing.asked = self.clock.now()
        thing.dies_at = thing.asked + (world.linger_s if thing.kind == "instance" else 0.0)
        for disk in world.things.values():
            if disk.of == thing.id and not world.volume_survives:
                disk.asked, disk.dies_at = thing.asked, thing.dies_at

    def _as(self, thing: Thing) -> Resource:
        if thing.dies_at is not None and self.clock.now() >= thing.dies_at:
            phase, state = Phase.GONE, "terminated"
        elif thing.asked is not None:
            phase, state = Phase.LEAVING, "shutting-down"
        else:
            phase, state = Phase.HERE, "running"
        billed = thing.kind != "security-group"
        facts = {"instance": thing.of} if thing.of and thing.asked is None else {}
        return Resource(thing.kind, thing.id, phase, state, thing.token or None, billed, "sim-1", thing.lease, facts)

    def _fault(self, world: World, verb: str) -> str | None:
        self.calls += 1
        for fault in world.faults:
            if fault.verb == verb and fault.times > 0:
                fault.times -= 1
                return fault.what
        return None

    def _fail(self, world: World, verb: str) -> None:
        match self._fault(world, verb):
            case None:
                return
            case "denied":
                raise NotPermitted(f"not allowed to {verb}", provider_code="UnauthorizedOperation")
            case what:
                raise ProviderError(f"the simulated cloud is {what}", provider_code="RequestLimitExceeded")

    @contextlib.contextmanager
    def _world(self) -> Iterator[World]:
        """The world in memory, or the one in the file, locked and written back."""
        if self.path is None:
            yield self.world
            return
        with open(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            text = file.read()
            world = load(text) if text else self.world
            try:
                yield world
            finally:
                file.seek(0)
                file.truncate()
                file.write(json.dumps(asdict(world)))


class RealClock:
    def now(self) -> float:
        return time.time()

    def counting(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def load(text: str) -> World:
    """A world from its file's text."""
    raw: dict[str, Any] = json.loads(text)
    raw["things"] = {id: Thing(**thing) for id, thing in raw["things"].items()}
    raw["faults"] = [Fault(**fault) for fault in raw["faults"]]
    return World(**raw)


def truth(path: Path) -> World:
    """The ground truth of a cloud in a file."""
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        text = file.read()
    return load(text) if text else World()
