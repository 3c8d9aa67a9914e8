"""The ground truth: what there is at EC2, who it belongs to, what it costs, and the time.

Everything that is asked of the simulated AWS, by whichever provider, ends here. It does what EC2 does to people: what
was made is not shown at once, and for a while only now and then; a machine lingers in `shutting-down`; a disk or an
interface may not die with it; a spot machine is taken back; a request whose answer was lost may take effect later.
Guards are the world's too: a timer on the machine and a schedule act by themselves, or early, late, twice, never.

It knows no provider, no journal, and nothing of what the product believes. The checks read it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MACHINE, DISK, CARD, GROUP, SCHEDULE, REQUEST = "instance", "volume", "network-interface", "security-group", "schedule", "spot-request"
FLEET = "fleet"
BILLED = (MACHINE, DISK)
SETTLE_S = {"core": 60.0, "fleets": 60.0, "aws": 300.0}
"""The stated assumption: whatever was asked for has taken effect and is shown by then."""

TIMER_LATE_S, SCHEDULE_LATE_S, FLEET_LATE_S = 90.0, 180.0 + 90.0, 240.0 + 90.0
FLEET_TRIES_AGAIN_S, MOST_REFILLS = 20.0, 12
LONGEST_S = 40 * 86_400.0


@dataclass(slots=True)
class Thing:
    """One resource. `gone_at` is None for as long as nothing ends it."""

    kind: str
    id: str
    region: str
    lease: str
    token: str
    born: float
    shown_at: float
    flaps_until: float
    tags: list[dict[str, str]]
    facts: dict[str, Any] = field(default_factory=dict)
    of: Thing | None = None  # the machine that it was born with
    dies_with: bool = True
    asked_at: float | None = None
    gone_at: float | None = None
    reason: str = ""
    theirs: bool = False
    touched: int = 0  # requests that would change it

    def there(self, t: float) -> bool:
        return self.gone_at is None or t < self.gone_at

    def bills_until(self) -> float | None:
        return self.asked_at if self.kind == MACHINE else self.gone_at


@dataclass(frozen=True)
class Weather:
    """How this cloud behaves."""

    late_s: float = 0.0  # until what was made is shown
    flaps_s: float = 0.0  # and for so much longer only now and then
    effect_s: float = 0.0  # a request whose answer was lost acts so much later
    linger_s: float = 30.0
    keeps: str = ""  # what does not die with its machine: "", "volume", "network-interface"
    page: int = 0  # things on one page of a listing; 0: all
    guest: str = "right"  # right, early, late, twice, never
    schedule: str = "right"
    reclaim_s: float = 0.0  # a spot machine is taken back after so long; 0: never
    boot_s: float = 20.0
    capacity: tuple[str, ...] = ()  # for each machine asked for: "", "full", "given-up"
    fleet: str = "right"  # when its end comes: right, late, never
    fills_s: float = 2.0  # a fleet makes its machine so much later
    flight_s: float = 0.0  # how long such a launch is on its way
    refills: bool = False  # and another one for each that went: nobody says that it does not
    odd: str = ""  # what an account policy makes of a launch: "", "stop" (power-off only stops it)


class World:
    def __init__(self, seed: int, weather: Weather) -> None:
        self.rng, self.weather = random.Random(seed), weather
        self.t = 0.0
        self.things: dict[str, Thing] = {}
        self.tokens: dict[tuple[str, str], Thing] = {}
        self.coming: list[tuple[float, int, Callable[[], None]]] = []
        self.count = self.mutations = self.answers = self.machines_asked = 0
        self.unwritten: list[str] = []  # what was made without a durable intent
        self.is_durable: Callable[[str, str], bool] = lambda lease, token: True
        self.most_at_once = 0
        self.tagged = ""  # what a person gives our lease's tag once there is a machine

    # -- time ----------------------------------------------------------------------------------------------------------

    def go_on(self, seconds: float) -> None:
        end = self.t + max(1e-6, seconds)  # not zero: what floats leave of a wait would never end
        if end > LONGEST_S:
            from tests.sim.process import Stuck

            raise Stuck(f"{end:.0f} s and no end")
        while self.coming and self.coming[0][0] <= end:
            at, _, act = heapq.heappop(self.coming)
            self.t = max(self.t, at)
            act()
        self.t = end

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.coming, (self.t + max(0.0, seconds), self.count, act))

    # -- making and ending ---------------------------------------------------------------------------------------------

    def make(self, kind: str, region: str, lease: str, token: str, tags: list[dict[str, str]], **facts: Any) -> Thing:
        self.count += 1
        id = f"{PREFIX[kind]}-{self.count:017x}" if kind != SCHEDULE else str(facts["Name"])
        shown = self.t + self.weather.late_s
        thing = Thing(kind, id, region, lease, token, self.t, shown, shown + self.weather.flaps_s, tags, facts)
        self.things[id] = thing
        if lease and not thing.theirs and token and not self.is_durable(lease, token):
            self.unwritten.append(f"{kind} {id} was made, and no durable intent of {lease} has {token}")
        return thing

    def launch(self, region: str, lease: str, token: str, tags: list[dict[str, str]], **facts: Any) -> Thing:
        """A machine, with its disk, its interface and, on the spot market, its request."""
        machine = self.make(MACHINE, region, lease, token, tags, **facts)
        if facts.get("spot"):
            self._with(REQUEST, machine)
            if self.weather.reclaim_s:
                self.later(self.weather.reclaim_s, lambda: self.end(machine, "Server.SpotInstanceTermination"))
        self._with(DISK, machine, facts.get("DeleteOnTermination", True))
        self._with(CARD, machine)
        if self.tagged:
            self.make(self.tagged, region, lease, "", tags)
        self._arm_guest(machine)
        self.most_at_once = max(
            self.most_at_once, sum(self.bills(t) for t in self.things.values() if t.kind == MACHINE and t.lease == lease)
        )
        return machine

    def _with(self, kind: str, machine: Thing, dies: bool = True) -> Thing:
        thing = self.make(kind, machine.region, machine.lease, "", machine.tags)
        thing.of, thing.dies_with = machine, dies and self.weather.keeps != kind
        machine.facts[kind] = thing
        return thing

    def _arm_guest(self, machine: Thing) -> None:
        mode = self.weather.guest
        if mode == "never" or "deadline_t" not in machine.facts:
            return
        fires = machine.facts["deadline_t"] - self.t
        shift = {"right": 0.0, "twice": 0.0, "late": 1200.0, "early": -0.7 * max(0.0, fires)}[mode]
        stops = self.weather.odd == "stop"
        for again in (0.0, 60.0) if mode == "twice" else (0.0,):
            self.later(max(self.weather.boot_s, fires + shift) + again, lambda: self._power_off(machine, stops))

    def _power_off(self, machine: Thing, stops: bool) -> None:
        if stops:
            machine.facts["stopped"] = True
        else:
            self.end(machine, "Client.InstanceInitiatedShutdown")

    def arm_schedule(self, schedule: Thing, fires_t: float, instance: str) -> None:
        mode = self.weather.schedule
        schedule.facts |= {"fires_t": fires_t, "instance": instance, "armed": mode in ("right", "twice", "early")}
        if mode == "never":
            return
        shift = {"right": 0.0, "twice": 0.0, "late": 1200.0, "early": -0.6 * max(0.0, fires_t - self.t)}[mode]

        def fire() -> None:
            if schedule.there(self.t) and (machine := self.things.get(instance)) is not None:
                self.end(machine, "Client.UserInitiatedShutdown")

        for again in (0.0, 60.0) if mode == "twice" else (0.0,):
            self.later(fires_t + shift - self.t + again, fire)

    def start_fleet(self, fleet: Thing, ends_t: float, launch: Callable[[], Thing | None]) -> None:
        """It makes a machine, a little later, and tries again for as long as it is there; `launch` is None where there is no room."""
        fleet.facts |= {"machines": [], "why": "", "armed": self.weather.fleet == "right"}

        def fill() -> None:
            made = fleet.facts["machines"]
            if fleet.asked_at is None and len(made) < MOST_REFILLS and not any(m.asked_at is None for m in made):
                self.later(self.weather.flight_s, arrive)  # once on its way, nothing calls it back

        def arrive() -> None:
            if (machine := launch()) is None:
                fleet.facts["why"] = "InsufficientInstanceCapacity"
                self.later(FLEET_TRIES_AGAIN_S, fill)
            else:
                machine.facts["fleet"] = fleet
                fleet.facts["machines"].append(machine)

        fleet.facts["fill"] = fill
        self.later(self.weather.fills_s, fill)
        if self.weather.fleet != "never":
            late = 1200.0 if self.weather.fleet == "late" else 0.0
            self.later(ends_t + late - self.t, lambda: self.end(fleet))

    def end(self, thing: Thing, reason: str = "") -> None:
        """A removal takes effect."""
        thing.touched += 1
        if thing.asked_at is not None or not thing.there(self.t):
            return
        thing.asked_at, thing.reason = self.t, reason
        if thing.kind == FLEET:
            thing.gone_at = self.t + 3.0
            for machine in thing.facts["machines"]:  # its end, or its removal, ends them in the same call
                self.end(machine, "Client.UserInitiatedShutdown")
        elif thing.kind != MACHINE:
            thing.gone_at = self.t
        if thing.kind != MACHINE:
            return
        if (fleet := thing.facts.get("fleet")) is not None and self.weather.refills:
            self.later(5.0, fleet.facts["fill"])
        thing.gone_at = self.t + self.weather.linger_s
        for kind in (DISK, CARD, REQUEST):
            part = thing.facts.get(kind)
            if part is not None and part.dies_with and part.gone_at is None:
                part.asked_at, part.gone_at = self.t, thing.gone_at + (4.0 if kind == DISK else 0.0)

    def in_use(self, thing: Thing) -> bool:
        if thing.kind == GROUP:
            return any(t.kind == CARD and t.lease == thing.lease and t.there(self.t) for t in self.things.values())
        return thing.of is not None and thing.kind in (DISK, CARD) and thing.of.there(self.t)

    # -- looking -------------------------------------------------------------------------------------------------------

    def shows(self, thing: Thing) -> bool:
        if self.t < thing.shown_at:
            return False
        if self.t < thing.flaps_until and self.rng.random() < 0.4:
            return False
        # EC2 forgets a terminated machine after an hour, anything else at once.
        return thing.there(self.t) or (thing.kind == MACHINE and self.t < (thing.gone_at or 0.0) + 3600.0)

    def bills(self, thing: Thing) -> bool:
        until = thing.bills_until()
        return thing.kind in BILLED and (until is None or self.t < until)

    def of(self, lease: str) -> list[Thing]:
        return [t for t in self.things.values() if t.lease == lease and not t.theirs]


PREFIX = {FLEET: "fleet", MACHINE: "i", DISK: "vol", CARD: "eni", GROUP: "sg", REQUEST: "sir", "elastic-ip": "eipalloc", "snapshot": "snap"}
