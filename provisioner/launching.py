"""From offers to a machine that runs: one after the other until the provider gives one, and each try told.

A refusal for capacity is about the offer: the next zone, region, type or way to buy is asked for, with an intent and a
token of its own, because a token is only good for one set of parameters. Every other refusal (quota, permission, a bad
image) is about the request, and would be the same anywhere: it ends the run. So does a lost answer: what was asked for
may exist, and a second one beside it would be paid for as well.

A machine that the provider took in and then gave up while it started, for want of capacity, counts as refused. So does a fleet
that says so of itself, once it was seen leaving: while it is there it may still make a machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cost
from provisioner import closing, guards, times
from provisioner.errors import NoCapacity, NotCreated, NotPermitted, ProviderError, RunError
from provisioner.journal import instant
from provisioner.life import Life
from provisioner.model import MAKES_MACHINES, PER_LAUNCH, Fleeting, LaunchSpec, Offer, Phase, Resource
from provisioner.plan import minutes, offer_text
from provisioner.remote import bootstrap, keys, through

BOOT_S = 600.0
GIVEN_UP = ("Server.InsufficientInstanceCapacity", "Server.SpotInstanceTermination")
"""Reasons with which EC2 ends a machine that it had accepted, because it has none."""

DROP_S = 180.0
FILL_S = 180.0
"""A fleet makes its machine in seconds, and tells of what it could not make up to half a minute late."""


class GivenUp(RunError):
    """The provider accepted the machine, and ended it while it started because it has no capacity."""


@dataclass(frozen=True)
class Launched:
    """A machine that runs and has an address, what it was asked for as, and the keys to it."""

    machine: Resource
    offer: Offer
    spec: LaunchSpec
    client_key: Path
    host_key: str

    @property
    def address(self) -> str:
        return where(self.machine, self.spec.reach)


def launch(life: Life, offers: Sequence[tuple[Offer, cost.Quote]]) -> tuple[Launched, list[tuple[Offer, cost.Quote]]]:
    """The first of the offers that there is, and those not asked for yet. NoCapacity when there is none."""
    refused: list[str] = []
    with life.stage("launch") as detail:
        for number, (offer, quote) in enumerate(offers, 1):
            if why := _too_late(life, quote):
                refused.append(f"{offer_text(offer)}: {why}")
                life.tell("create", f"not asked for: {refused[-1]}")
                continue
            try:
                launched = _attempt(life, offer, quote)
            except (NoCapacity, GivenUp) as e:
                refused.append(f"{offer_text(offer)}: {getattr(e, 'provider_code', '') or e.what}")
                life.tell("create", f"no capacity: {refused[-1]}; {len(offers) - number} more to ask for")
                life.waits.sleep(0)
            else:
                detail |= {"id": launched.machine.id, "type": offer.type, "refused": refused[:50]}
                return launched, list(offers[number:])
        detail["refused"] = refused[:50]
        raise NoCapacity(
            f"none of {len(offers)} offers could be had: {refused[0]}",
            why="\n".join(refused),
            next="try again later, or allow more regions, types or ways to buy under `needs`: gpulease plan PROFILE",
        )


def _too_late(life: Life, quote: cost.Quote) -> str:
    """Does what is left of the budget no longer cover this offer until the deadline? The reason, or nothing."""
    left_s = max(0, int(instant(life.deadline) - life.clock.now()))
    costs = closing.spent(life.lease.journal.entries)
    if costs is None:
        return "what was spent so far cannot be told"
    most = costs.hi + quote.at_most(left_s)
    if most > life.plan.budget_micro_usd:
        return f"{cost.show(costs.hi)} spent so far and {minutes(left_s)} of it may come to {cost.show(most)}"
    return ""


def _attempt(life: Life, offer: Offer, quote: cost.Quote) -> Launched:
    """Ask for one offer: what the provider needs, in its order; then wait until the machine runs, and read it back."""
    lease, access = life.lease, life.access
    folder = life.folder.path / "keys"
    client = keys.read_pair(folder, "client_ed25519") if (folder / "client_ed25519").exists() else keys.client_pair(folder)
    # A host key of its own for each machine: one that was shown in another machine's user data is nobody's identity.
    bootstrapped = keys.host_pair(folder, anew=True)
    user_data = bootstrap.user_data(
        lease=lease.id,
        deadline_epoch=int(instant(life.deadline)),
        client_public=client.public,
        host_private=bootstrapped.private_text(),
        host_public=bootstrapped.public,
        lease_silence_s=times.of(lease.provider.traits.simulated).silence_s,
        max_run_s=life.plan.max_seconds,
    )
    asked = life.plan.profile.launch
    spec = LaunchSpec(
        offer,
        life.plan.disk_gib,
        life.deadline,
        user_data,
        image=asked.image,
        ingress_cidr=access.ingress_cidr,
        group=asked.security_group,
        subnet=asked.subnet,
        reach=asked.reach,
        fleet=asked.fleet,
        quote=quote.rates(),
    )
    machine = _create(life, spec, quote)
    if guarded := guards.arm_schedule(lease, spec, life.plan.profile.waived, life.waits.sleep):
        life.tell("guard", guarded)
    try:
        with life.waiting("create", f"{machine.id} to run"):
            machine = _started(life, machine, spec.reach)
    except GivenUp:
        for fleet in [made for kind, made in lease.made.items() if kind in MAKES_MACHINES]:
            _let_go_of(life, fleet)  # it might make another, beside the next offer's
        raise
    if wrong := lease.provider.verify_launch(machine, spec):
        raise RunError(
            f"the machine was not launched as asked: {wrong[0]}",
            why="\n".join(wrong),
            next="an account policy may force this; compare it with the profile",
        )
    return Launched(machine, offer, spec, access.client_key or client.private, access.host_key or bootstrapped.public)


def _create(life: Life, spec: LaunchSpec, quote: cost.Quote) -> Resource:
    lease, offer = life.lease, spec.offer
    *before, last = lease.provider.steps(spec)
    for kind in before:
        if kind in PER_LAUNCH or kind not in lease.made_in(offer.region):
            life.waits.sleep(0)
            made = lease.create(kind, spec)
            life.tell("create", f"{kind} {made.id}")
    life.waits.sleep(0)
    machine = lease.create(last, spec)
    if machine.kind in MAKES_MACHINES:
        life.tell("create", f"{last} {machine.id}")
        with life.waiting("create", f"the machine of {machine.id}"):
            machine = _filled(life, machine)
        last = machine.kind
    price = f"  {offer_text(offer)}, {'at most ' if offer.spot else ''}{cost.show_per_hour(quote.micro_usd_per_hour)}"
    life.tell("create", f"{last} {machine.id}" + (price if machine.billed else ""))
    return machine


def _filled(life: Life, fleet: Resource) -> Resource:
    """The machine that a fleet makes. When it says that it cannot, it is let go of first: it might try again, beside the next."""
    lease, provider, waived = life.lease, cast(Fleeting, life.lease.provider), life.plan.profile.waived
    life.tell("guard", guards.arm_fleet(lease, fleet, waived))
    pause, since = 0.3, life.clock.counting()
    while True:
        life.waits.sleep(pause)
        pause = min(pause * 1.4, 5.0)
        try:
            if (machine := provider.made_by(fleet)) is not None:
                break
        except NoCapacity:
            _let_go_of(life, fleet)
            raise
        except (NotCreated, NotPermitted):
            raise
        except ProviderError as e:
            # A look that failed says nothing; how often it is repeated is bounded below.
            lease.journal.note("sweep", {"checked": False, "classes": [], "found": 0, "requestIds": [], "error": e.what})
        if life.clock.counting() - since > FILL_S:
            raise RunError(
                f"{fleet.id} made no machine within {FILL_S:.0f} s, and does not say why",
                why="its history holds no code of a refusal",
                next=f"aws ec2 describe-fleet-history --fleet-id {fleet.id} --start-time {life.deadline[:10]}; or without launch.fleet",
            )
    lease.adopt(machine)
    guards.read_back_fleet(lease, fleet, waived, life.waits.sleep)
    return machine


def _let_go_of(life: Life, fleet: Resource) -> None:
    """The fleet, and the machine that it may have made after all, seen leaving."""

    def tell(text: str) -> None:
        life.tell("create", text)

    life.lease.drop(fleet, within=DROP_S, sleep=life.waits.sleep, tell=tell)
    late = None
    with suppress(NotCreated):  # it still says that it made none
        late = cast(Fleeting, life.lease.provider).made_by(fleet)
    if late is not None:
        life.lease.drop(life.lease.adopt(late), within=DROP_S, sleep=life.waits.sleep, tell=tell)


def where(machine: Resource, reach: str) -> str:
    """What the way in starts from: an address, "" until it has one; or its name, where no address may reach it."""
    return str(machine.facts.get("address") or "") if reach == "address" else through.name(machine.id, machine.region)


def _started(life: Life, machine: Resource, reach: str) -> Resource:
    """Wait until it runs and has an address. What is not shown yet is asked about again."""
    pause, since = 0.3, life.clock.now()
    while machine.phase is not Phase.HERE or not where(machine, reach):
        if machine.phase in (Phase.LEAVING, Phase.GONE):
            reason = str(machine.facts.get("stateReason") or "")
            raise (GivenUp if reason in GIVEN_UP else RunError)(
                f"{machine.id} went away while it started: {machine.state}",
                why=reason or "the provider gave no reason",
                next="try again, or another zone or type",
            )
        if life.clock.now() - since > BOOT_S:
            raise RunError(
                f"{machine.id} was still {machine.state} after {BOOT_S:.0f} s",
                why="the provider's own word",
                next="try another zone or type",
            )
        life.waits.sleep(pause)
        pause = min(pause * 1.4, 5.0)
        try:
            machine = life.lease.look(machine)
        except NotPermitted:
            raise
        except ProviderError as e:
            # A look that failed says nothing; the deadline bounds how often it is repeated.
            life.lease.journal.note("sweep", {"checked": False, "classes": [], "found": 0, "requestIds": [], "error": e.what})
    return machine
