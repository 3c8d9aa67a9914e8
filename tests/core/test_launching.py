"""One offer after the other, on the simulated cloud: what is asked for, what is not, and what ends the asking."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import cost
from provisioner import closing, ledger, profile
from provisioner.errors import Exit, NoCapacity, NotCreated, ProviderError, RefusedError
from provisioner.journal import read
from provisioner.life import Access
from provisioner.model import Offer, Phase, Resource, Verdict
from provisioner.plan import Plan
from provisioner.providers.sim import Fault, SimProvider, World, truth
from provisioner.run import Ended, run
from provisioner.scope import Scope
from tests.core.test_fleet_rules import Filling
from tests.core.torture import OFFER

ZONES = tuple(replace(OFFER, zone=f"sim-1{letter}") for letter in "abc")


class Starting(SimProvider):
    """Its machines run, and none of them has an address; the first so many are given up while they start, for `reason`."""

    given_up = 0
    reason = "Server.InsufficientInstanceCapacity"

    def create(self, kind: str, *args: Any, **more: Any) -> Resource:
        made = super().create(kind, *args, **more)
        if kind == "instance" and self.given_up:
            self.given_up -= 1
            self.remove(made)
            return replace(made, phase=Phase.LEAVING, state="shutting-down", facts={"stateReason": self.reason})
        return made


class Bench:
    def __init__(self, tmp: Path) -> None:
        self.cloud = tmp / "cloud.json"
        self.provider: Any = Starting(path=str(self.cloud), world=World(linger_s=0.0), settle_s=0.3)
        self.folder = ledger.create({"provider": "sim", "settings": self.provider.settings()})
        self.story: list[str] = []
        self.launch: dict[str, Any] = {}

    def run(self, *offers: Offer, seconds: int = 3, budget: int = 10**7) -> Ended:
        smoke = profile.load("smoke")
        launch = smoke.launch.model_copy(update=self.launch)
        wanted = replace(smoke, waived=("watchdog", "schedule"), launch=launch)
        plan = Plan(wanted, offers, tuple(cost.own_host(offer.price) for offer in offers), budget, seconds, seconds, True)
        return run(plan, self.provider, self.folder, Scope(), lambda stage, text: self.story.append(text), access=Access())

    def asked(self) -> list[dict[str, Any]]:
        bodies = [e["body"] for e in read(self.folder.journal).entries if e["kind"] == "intent" and e["body"]["op"] == "create"]
        return [body for body in bodies if body["class"] == "instance"]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Bench(tmp_path)


class FullAtFirst(SimProvider):
    """Two zones have no room."""

    refusals = 2

    def create(self, kind: str, *args: Any, **more: Any) -> Resource:
        if kind == "instance" and self.refusals:
            self.refusals -= 1
            raise NoCapacity("no room", provider_code="InsufficientInstanceCapacity")
        return super().create(kind, *args, **more)


def test_a_refusal_for_capacity_is_followed_by_the_next_offer_with_a_token_of_its_own(bench: Bench) -> None:
    bench.provider = FullAtFirst(path=str(bench.cloud), world=World(linger_s=0.0), settle_s=0.3)
    bench.run(*ZONES)
    assert [body["params"]["zone"] for body in bench.asked()] == ["sim-1a", "sim-1b", "sim-1c"]
    assert len({body["token"] for body in bench.asked()}) == 3
    assert not truth(bench.cloud).billed()


def test_when_no_offer_is_to_be_had_every_refusal_is_named(bench: Bench) -> None:
    bench.provider.world.faults = [Fault("create", 9, "full")]
    ended = bench.run(*ZONES)
    assert (ended.exit, ended.verdict) == (Exit.REFUSED, Verdict.RELEASED)
    assert "none of 3 offers" in str(ended.error) and "sim-1c" in getattr(ended.error, "why", "")


def test_any_other_refusal_is_the_same_everywhere(bench: Bench) -> None:
    bench.provider.world.faults = [Fault("create", 1, "refuse")]
    ended = bench.run(*ZONES)
    assert ended.exit is Exit.REFUSED and "VcpuLimitExceeded" in getattr(ended.error, "provider_code", "")
    assert len(bench.asked()) == 0  # it was the group that was refused, and nothing else was asked for


class Lost(SimProvider):
    """Machines are made, and the answers are lost."""

    def create(self, kind: str, *args: Any, **more: Any) -> Resource:
        made = super().create(kind, *args, **more)
        if kind == "instance":
            raise ProviderError("the connection was reset")
        return made


def test_a_lost_answer_is_followed_by_nothing(bench: Bench) -> None:
    bench.provider = Lost(path=str(bench.cloud), world=World(linger_s=0.0), settle_s=0.3)
    ended = bench.run(*ZONES)
    assert ended.exit is Exit.FAILED and len(bench.asked()) == 1
    assert not truth(bench.cloud).billed()


@pytest.mark.parametrize(("reason", "asked"), [("Server.InsufficientInstanceCapacity", 2), ("Client.VolumeLimitExceeded", 1)])
def test_a_machine_given_up_while_it_starts_is_a_refusal_only_for_want_of_capacity(bench: Bench, reason: str, asked: int) -> None:
    bench.provider.given_up, bench.provider.reason = 1, reason
    bench.run(*ZONES[:2])
    assert len(bench.asked()) == asked and not truth(bench.cloud).billed()


class RefusedNext(Starting):
    """The first machine is given up while it starts, the request for a second is refused."""

    refusal: type[NotCreated] = NotCreated
    given_up = 1

    def create(self, kind: str, *args: Any, **more: Any) -> Resource:
        if kind == "instance" and not self.given_up:
            raise self.refusal("no", provider_code="VcpuLimitExceeded")
        return super().create(kind, *args, **more)


@pytest.mark.parametrize("refusal", [NotCreated, NoCapacity])
def test_a_run_that_had_a_machine_is_never_said_to_have_launched_none(bench: Bench, refusal: type[NotCreated]) -> None:
    bench.provider = RefusedNext(path=str(bench.cloud), world=World(linger_s=0.0), settle_s=0.3)
    bench.provider.refusal = refusal
    ended = bench.run(*ZONES[:2])
    assert len(bench.asked()) == 2 and ended.exit is Exit.FAILED and ended.spend is not None and ended.spend.hi
    (said,) = [e["body"] for e in read(bench.folder.journal).entries if e["kind"] == "outcome"]
    assert said["outcome"] == "failed"


def test_an_offer_that_the_budget_no_longer_covers_is_not_asked_for(bench: Bench) -> None:
    dear = replace(OFFER, zone="sim-1z", price=replace(OFFER.price, micro_usd_per_hour=10**12))
    bench.run(dear, ZONES[0])
    assert [body["params"]["zone"] for body in bench.asked()] == ["sim-1a"]
    assert any("not asked for: sim.large in sim-1z" in line for line in bench.story)


def test_each_intent_holds_the_prices_of_its_own_offer(bench: Bench) -> None:
    dearer = replace(OFFER, type="sim.xlarge", price=replace(OFFER.price, micro_usd_per_hour=2_000_000))
    bench.provider.given_up = 1
    bench.run(OFFER, dearer)
    rates = [body["params"]["quote"]["lines"][0]["microUsdPerHour"] for body in bench.asked()]
    assert rates == [1_000_000, 2_000_000]


def test_what_runs_now_is_told_at_the_price_of_the_machine_that_was_asked_for_last(bench: Bench) -> None:
    dearer = replace(OFFER, type="sim.xlarge", price=replace(OFFER.price, micro_usd_per_hour=2_000_000))
    bench.provider.given_up = 1
    bench.run(OFFER, dearer)
    assert closing.hourly(read(bench.folder.journal).entries) == 2_000_000


class LoggedOut(SimProvider):
    """It makes the machine, and then the login is over for once."""

    over = False

    def observe(self, resource: Resource) -> Resource:
        if resource.kind == "instance" and not self.over:
            self.over = True
            raise RefusedError("the login has ended")
        return super().observe(resource)


def test_a_login_refused_while_the_machine_starts_is_no_refusal_to_launch(bench: Bench) -> None:
    bench.provider = LoggedOut(path=str(bench.cloud), world=World(linger_s=0.0), settle_s=0.3)
    ended = bench.run(OFFER)
    (said,) = [e["body"] for e in read(bench.folder.journal).entries if e["kind"] == "outcome"]
    assert (ended.exit, ended.verdict, said["outcome"]) == (Exit.FAILED, Verdict.RELEASED, "failed")


class NoRoom(Filling):
    """Its first fleet makes nothing and says why; it would try again for as long as it is there."""

    full = 1

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.traits = replace(self.traits, fleets=True, second_look_s=0.1)
        self.beside: list[int] = []

    def create(self, kind: str, *args: Any, **more: Any) -> Resource:
        if kind == "fleet":
            self.beside.append(len([t for t in self.world.things.values() if t.kind == "fleet" and t.asked is None]))
            self.fills = len(self.beside) > self.full
        made = super().create(kind, *args, **more)
        return replace(made, facts={"firesAt": "2030-01-01T00:00:00Z"}) if kind == "fleet" else made

    def made_by(self, fleet: Resource) -> Resource | None:
        if not self.machines():
            raise NoCapacity("none", provider_code="InsufficientInstanceCapacity")
        return self._as(self.machines()[0])

    def verify_fleet(self, fleet: Resource) -> list[str]:
        return []


def test_a_fleet_without_room_is_seen_leaving_before_the_next_is_asked_for(bench: Bench) -> None:
    bench.provider = NoRoom(world=World(linger_s=0.0), settle_s=0.2)
    bench.launch = {"fleet": True}
    bench.run(*ZONES[:2])
    assert bench.provider.beside == [0, 0] and len(bench.provider.machines()) == 1
    assert not bench.provider.world.billed()
    refused = [line for line in bench.story if line.startswith("no capacity")]
    assert len(refused) == 1 and "InsufficientInstanceCapacity; 1 more to ask for" in refused[0]
