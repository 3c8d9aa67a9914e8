"""What makes machines by itself: asked to go before them, looked for in every look, and waited for when it was never seen to make one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provisioner import closing
from provisioner import journal as J
from provisioner.errors import ProviderError
from provisioner.journal import Journal, instant
from provisioner.lease import Lease, hold, holdings, release
from provisioner.model import Inventory, Json, LaunchSpec, Looked, Resource, Verdict
from provisioner.providers.sim import Crash, SimClock, SimProvider, Thing, Wire, World
from tests.core.torture import LEASE, SPEC, program, recover


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(J, "sync", lambda fd: None)
    monkeypatch.setattr(J, "sync_folder", lambda path: None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


class Filling(SimProvider):
    """A cloud whose fleets make a machine, and another one for each that went: the worst that one may do."""

    fills, hidden, denied = True, False, False

    def steps(self, spec: LaunchSpec) -> tuple[str, ...]:
        return ("security-group", "fleet")

    def create(self, kind: str, spec: LaunchSpec, *, lease: str, token: str, made: Mapping[str, Resource]) -> Resource:
        before = len(self.world.things)
        try:
            return super().create(kind, spec, lease=lease, token=token, made=made)
        finally:  # also where the answer is lost, or nobody is left to hear it
            if kind == "fleet" and self.fills and len(self.world.things) > before:
                self.fill(next(reversed(self.world.things.values())))

    def fill(self, fleet: Thing) -> None:
        if fleet.asked is None:
            self._born(self.world, "instance", fleet.lease, fleet.token)

    def remove(self, resource: Resource) -> Mapping[str, Json]:
        thing = self.world.things[resource.id]
        kin = [t for t in self.world.things.values() if t.token == thing.token and t is not thing]
        if thing.kind == "fleet":
            self.wire.trip()
            thing.asked = thing.dies_at = self.clock.now()
            for machine in kin:
                self._end(self.world, machine)
            self.wire.trip()
            return {}
        answer = super().remove(resource)
        for fleet in kin if thing.kind == "instance" else ():
            if fleet.kind == "fleet":
                self.fill(fleet)
        return answer

    def inventory(self, lease: str | None = None) -> Inventory:
        found = super().inventory(lease)
        shown = tuple(r for r in found.resources if r.kind != "fleet" or not (self.denied or self.hidden))
        looked = Looked("fleet", "sim-1", not self.denied, "AccessDenied" if self.denied else "")
        return replace(found, resources=shown, looked_in=(*found.looked_in, looked))

    def machines(self) -> list[Thing]:
        return [t for t in self.world.things.values() if t.kind == "instance"]


def filling(**world: Any) -> tuple[Filling, SimClock]:
    clock = SimClock()
    return Filling(clock, World(**world)), clock


def test_the_fleet_is_asked_to_go_before_its_machine_so_there_is_no_second_one(path: Path) -> None:
    provider, clock = filling()
    with Journal(path, clock) as journal, hold(LEASE, provider, journal, clock) as lease:
        for kind in provider.steps(SPEC):
            lease.create(kind, SPEC)
    assert lease.verdict is Verdict.RELEASED and len(provider.machines()) == 1
    assert not provider.world.billed()


def test_one_that_was_made_in_place_of_a_machine_that_went_goes_too(path: Path) -> None:
    provider, clock = filling(linger_s=5.0)
    with Journal(path, clock) as journal, hold(LEASE, provider, journal, clock) as lease:
        lease.create("fleet", SPEC)
        SimProvider.remove(provider, provider._as(provider.machines()[0]))
        provider.fill(next(iter(provider.world.things.values())))
    assert lease.verdict is Verdict.RELEASED and len(provider.machines()) == 2 and not provider.world.billed()


def test_a_fleet_goes_first_where_another_machine_is_to_follow(path: Path) -> None:
    provider, clock = filling(linger_s=600.0)
    with Journal(path, clock) as journal:
        lease = Lease(LEASE, provider, journal, clock)
        lease.create("fleet", SPEC)
        machine = lease.adopt(provider._as(provider.machines()[0]))
        clock.sleep(provider.traits.settle_s)
        lease.drop(machine, within=30.0, sleep=clock.sleep, tell=lambda text: None)
    assert len(provider.machines()) == 1 and not provider.world.billed()


def test_no_machine_follows_a_fleet_that_does_not_go(path: Path) -> None:
    provider, clock = filling()
    with Journal(path, clock) as journal:
        lease = Lease(LEASE, provider, journal, clock)
        lease.create("fleet", SPEC)
        machine = lease.adopt(provider._as(provider.machines()[0]))
        provider.remove = lambda resource: {}  # type: ignore[method-assign]
        with pytest.raises(ProviderError, match=r"fleet .* was asked to go and is still running"):
            lease.drop(machine, within=30.0, sleep=clock.sleep, tell=lambda text: None)


def test_who_may_not_list_fleets_and_made_one_has_not_looked(path: Path) -> None:
    provider, clock = filling(linger_s=0.0)
    provider.denied = True
    with Journal(path, clock) as journal:
        with hold(LEASE, provider, journal, clock) as lease:
            lease.create("security-group", SPEC)
        assert lease.verdict is Verdict.RELEASED, "one that made none is not asked to"
        intent = journal.append("intent", {"op": "create", "class": "fleet", "token": "t-1"})
        provider.create("fleet", SPEC, lease=LEASE, token=intent["body"]["token"], made={})
        assert release(LEASE, provider, journal, clock) is Verdict.UNPROVEN


def test_a_fleet_of_which_no_machine_was_seen_is_waited_for_as_long_as_a_lost_answer(path: Path) -> None:
    provider, clock = filling(linger_s=0.0)
    provider.fills = False
    with Journal(path, clock) as journal:
        with hold(LEASE, provider, journal, clock) as lease:
            lease.create("fleet", SPEC)
        assert lease.verdict is Verdict.RELEASED
        empty = [instant(e["at"]["wall"]) for e in journal.entries if e["kind"] == "sweep" and e["body"]["found"] == 0]
        assert empty[-1] - empty[0] >= provider.traits.settle_s - 0.01
        assert not closing.launched(journal.entries), "it made none, and is gone: nothing was launched"


def test_a_machine_answers_the_intent_of_its_fleet(path: Path) -> None:
    provider, clock = filling()
    with Journal(path, clock) as journal:
        lease = Lease(LEASE, provider, journal, clock)
        fleet = lease.create("fleet", SPEC)
        assert holdings(journal.entries).unfilled == {fleet.token} and closing.launched(journal.entries)
        lease.adopt(provider._as(provider.machines()[0]))
        held = holdings(journal.entries)
        assert not held.unfilled and {r.kind for r in held.resources.values()} == {"fleet", "instance"}


def test_killed_at_every_instant_of_its_life_it_leaves_neither_fleet_nor_machine(path: Path) -> None:
    """The create of the fleet included: the request arrived, the machine is made, and nobody is there to hear of either."""
    at, over = 0, False
    while not over:
        at += 1
        provider, clock = filling(late_s=20.0)
        path.unlink(missing_ok=True)
        try:
            program(provider, clock, path, Wire(at))
            over = True
        except Crash:
            clock.sleep(5)
            assert recover(provider, clock, path) is Verdict.RELEASED, at
        clock.sleep(1e5)
        assert not provider.world.billed(), at
        assert len(provider.machines()) <= 1, f"at {at} the machine was asked to go before its fleet"
    assert at > 40
