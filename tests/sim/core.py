"""A provider of five short verbs over the same world: the fast level, for the journal, the lease and everything above.

What EC2's many calls become in `providers/aws*` is one step here, so a history costs a tenth. The weather, the faults
and the truth are the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from provisioner.errors import NoCapacity, NotCreated, NotPermitted, ProviderError, RefusedError
from provisioner.model import Inventory, LaunchSpec, Looked, Offer, Phase, Resource, Traits
from tests.sim import process as P
from tests.sim.aws import deadline_of, state_of
from tests.sim.faults import Class
from tests.sim.wire import Ec2Error, Network, request
from tests.sim.world import BILLED, FLEET, GROUP, MACHINE, SCHEDULE, SETTLE_S, Thing, World

KINDS = ("instance", "fleet", "volume", "network-interface", "security-group", "spot-request", "schedule", "elastic-ip", "snapshot")
PHASES = {"pending": Phase.COMING, "running": Phase.HERE, "stopped": Phase.HERE, "shutting-down": Phase.LEAVING, "terminated": Phase.GONE}


class NotAllowed(NotPermitted, NotCreated):
    """It answered that we may not, so nothing was made."""


class CoreProvider:
    name = "aws"
    anchor = ""
    account_id = "123456789012"

    def __init__(self, network: Callable[[], Network], region: str, regions: Sequence[str]) -> None:
        self._network, self.region, self.regions = network, region, tuple(regions)
        self.traits = Traits(SETTLE_S["core"], powers_itself_off=True, schedules=True, fleets=True)

    def settings(self) -> dict[str, Any]:
        return {"region": self.region, "regions": list(self.regions)}

    def steps(self, spec: LaunchSpec) -> tuple[str, ...]:
        last = FLEET if spec.fleet else MACHINE
        return (last,) if spec.group else (GROUP, last)

    def check_schedule(self, regions: Sequence[str]) -> None:
        pass

    def offers(self, need: Any) -> Sequence[Offer]:
        raise NotImplementedError

    def create(self, kind: str, spec: LaunchSpec, *, lease: str, token: str, made: Mapping[str, Resource]) -> Resource:
        site = {MACHINE: "CreateInstance", FLEET: "CreateFleet", GROUP: "CreateSecurityGroup", SCHEDULE: "CreateSchedule"}[kind]
        thing = self._ask(site, lambda world: self._make(world, kind, spec, lease, token, made), creating=True)
        seen = self._as(thing)
        return replace(seen, phase=Phase.COMING, state="pending") if kind in (MACHINE, FLEET) else seen

    def _make(self, world: World, kind: str, spec: LaunchSpec, lease: str, token: str, made: Mapping[str, Resource]) -> Thing:
        region, zone = spec.offer.region, spec.offer.zone or ""
        tags = [{"Key": "gpulease:lease", "Value": lease}, {"Key": "gpulease:deadline", "Value": spec.deadline}]
        if kind == GROUP:
            name = f"gpulease-{lease}"
            if any(t.kind == GROUP and t.facts.get("GroupName") == name and t.there(world.t) for t in world.things.values()):
                found = next(t for t in world.things.values() if t.kind == GROUP and t.facts.get("GroupName") == name and t.there(world.t))
                if found.lease != lease or not world.shows(found):
                    raise Ec2Error("InvalidGroup.Duplicate")
                return found
            return world.make(GROUP, region, lease, token, tags, GroupName=name)
        if kind == SCHEDULE:
            name = f"{lease}-{token.split('-')[1]}-{datetime.fromisoformat(spec.deadline):%Y%m%dt%H%M%Sz}"
            thing = world.make(SCHEDULE, region, lease, token, tags, Name=name)
            world.arm_schedule(thing, datetime.fromisoformat(spec.deadline).timestamp() + 180 - P.EPOCH, made[MACHINE].id)
            return thing
        if (before := world.tokens.get((zone, token))) is not None:
            return before
        facts = {"zone": zone, "spot": spec.offer.spot, **deadline_of(world, spec.user_data.reveal())}

        def launched(token: str) -> Thing | None:
            room = world.weather.capacity[world.machines_asked : world.machines_asked + 1] or ("",)
            world.machines_asked += 1
            if room[0] == "full":
                return None
            machine = world.launch(region, lease, token, tags, **facts)
            if room[0] == "given-up":
                world.later(3.0, lambda: world.end(machine, "Server.InsufficientInstanceCapacity"))
            return machine

        if kind == FLEET:
            fires = datetime.fromisoformat(spec.deadline).timestamp() + 240
            made_so = world.make(FLEET, region, lease, token, tags, fires=_date(fires - P.EPOCH))
            world.start_fleet(made_so, fires - P.EPOCH, lambda: launched(""))
        elif (found_room := launched(token)) is None:
            raise Ec2Error("InsufficientInstanceCapacity", 500)
        else:
            made_so = found_room
        world.tokens[zone, token] = made_so
        return made_so

    def check_fleet(self) -> None:
        pass

    def made_by(self, fleet: Resource) -> Resource | None:
        def shown(world: World) -> tuple[Thing | None, str]:
            there = [m for m in world.things[fleet.id].facts["machines"] if world.shows(m)]
            return (there[-1] if there else None), world.things[fleet.id].facts["why"]

        machine, why = self._ask("ShowFleet", shown)
        if machine is not None:
            return replace(self._as(machine), lease=fleet.lease or machine.lease)
        if why:
            raise NoCapacity(why, provider_code=why)
        return None

    def verify_fleet(self, fleet: Resource) -> Sequence[str]:
        return [] if self.observe(fleet).phase is Phase.HERE else ["it is not there"]

    def verify_launch(self, machine: Resource, spec: LaunchSpec) -> Sequence[str]:
        thing = self._ask("ShowOne", lambda world: world.things[machine.id])
        return ["on shutdown is 'stop', asked for 'terminate'"] if self._network().world.weather.odd and thing else []

    def verify_schedule(self, schedule: Resource) -> Sequence[str]:
        return [] if self.observe(schedule).phase is Phase.HERE else ["it is not there"]

    def inventory(self, lease: str | None = None) -> Inventory:
        shown = self._ask("ShowAll", lambda world: [t for t in world.things.values() if self._lists(world, t, lease)])
        looked = tuple(Looked(kind, region) for region in self.regions for kind in KINDS)
        date = _date(self._network().world.t)
        return Inventory(tuple(self._as(t) for t in shown), looked, (f"req-{self._network().world.count}",), date)

    def _lists(self, world: World, thing: Thing, lease: str | None) -> bool:
        if thing.region not in self.regions or (thing.lease != lease if lease is not None else not thing.lease):
            return False
        return world.shows(thing)

    def observe(self, resource: Resource) -> Resource:
        thing = self._ask("ShowOne", lambda world: self._shown(world, resource.id))
        if thing is None:
            born = resource.facts.get("born")
            age = 0.0 if born is None else self._network().world.t - born
            if resource.kind == MACHINE and resource.phase not in (Phase.LEAVING, Phase.GONE) and age < SETTLE_S["core"]:
                raise ProviderError(f"{resource.id} is not found, {age:.0f} s after its launch")
            return replace(resource, phase=Phase.GONE, state="not-found")
        seen = self._as(thing)
        return replace(seen, token=seen.token or resource.token)

    def remove(self, resource: Resource) -> Mapping[str, Any]:
        if not resource.lease:
            seen = self.observe(resource)
            if seen.phase is Phase.GONE:
                return {"state": seen.state}
            if not seen.lease:
                raise NotPermitted(f"{resource.kind} {resource.id} has no lease tag, so it is not ours to remove")

        def end(world: World) -> dict[str, str]:
            thing = world.things.get(resource.id)
            if thing is None or world.t < thing.shown_at or not thing.there(world.t):
                return {"state": "not-found"}  # as a provider's `remove` says that it knows of none: that is no removal
            if world.in_use(thing):
                raise Ec2Error("DependencyViolation")
            world.end(thing, "Client.UserInitiatedShutdown")
            return {}

        return {"requestId": "req", **self._ask("RemoveOne", end)}

    def _shown(self, world: World, id: str) -> Thing | None:
        thing = world.things.get(id)
        return thing if thing is not None and world.shows(thing) else None

    def _ask(self, site: str, effect: Callable[[World], Any], creating: bool = False) -> Any:
        network = self._network()
        try:
            answer, fault = request(network, site, lambda: effect(network.world))
        except Ec2Error as e:
            kind = (NoCapacity if e.code == "InsufficientInstanceCapacity" else NotCreated) if creating else ProviderError
            raise kind(e.code, provider_code=e.code) from None
        if fault is not None:
            raise _error(fault, creating)
        return answer

    def _as(self, thing: Thing) -> Resource:
        world = self._network().world
        facts: dict[str, Any] = {tag["Key"][9:]: tag["Value"] for tag in thing.tags if tag["Key"] == "gpulease:deadline"}
        state, billed = "exists", thing.kind in BILLED
        if thing.kind == MACHINE:
            state = state_of(world, thing)[1]
            facts |= {"born": int(thing.born), **({"stateReason": thing.reason} if thing.reason else {})}
            if state == "running":
                facts["address"] = "203.0.113.9"
        elif thing.kind == SCHEDULE:
            facts |= {"instance": thing.facts["instance"], "firesAt": "2027-01-15T08:00:00Z"}
        elif thing.kind == FLEET:
            state, billed = ("exists" if thing.asked_at is None else "deleting"), True  # for as long as it is there it may make a machine
            facts["firesAt"] = thing.facts["fires"]
        elif thing.asked_at is not None:
            state = "deleting"
        elif thing.of is not None and thing.of.there(world.t):
            facts["instance"] = thing.of.id
        phase = PHASES.get(state, Phase.LEAVING if state == "deleting" and thing.there(world.t) else Phase.HERE)
        token = thing.token or (thing.facts["fleet"].token if "fleet" in thing.facts else None)
        return Resource(thing.kind, thing.id, phase, state, token, billed, thing.region, thing.lease, facts)


def _error(fault: Class, creating: bool) -> ProviderError:
    code = fault.code or fault.botocore
    what = f"simulated: {fault.name}"
    match fault.core:
        case "full":
            return NoCapacity(what, provider_code=code)
        case "denied":
            return NotAllowed(what, provider_code=code) if creating else NotPermitted(what, provider_code=code)
        case "refused" if creating:
            return NotCreated(what, provider_code=code)
        case _:
            return ProviderError(what, provider_code=code)


def _date(t: float) -> str:
    from provisioner.journal import rfc3339

    return rfc3339(P.EPOCH + t)


__all__ = ["CoreProvider", "RefusedError"]
