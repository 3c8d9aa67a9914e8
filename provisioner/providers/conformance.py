"""What any provider must do. Run it on yours before you trust it with money.

A provider's author writes two fixtures and one import; every function below is then a test of theirs:

    from provisioner.providers.conformance import *

    @pytest.fixture
    def provider(): return MyProvider(...)          # on an account, endpoint or simulator where creating is harmless

    @pytest.fixture
    def spec(provider): return LaunchSpec(offer=provider.offers(Requirements())[0], ...)

Each test leaves nothing behind if the provider conforms, and says what it left if not. One that a provider cannot
pass is overridden by name with a skip that says why. Waiting is done on `provider.clock` if it has one (a simulator),
else for real, in short steps. This file must not know any provider.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from provisioner.errors import ProviderError
from provisioner.model import Inventory, LaunchSpec, Phase, Provider, Requirements, Resource

PAUSE_S, PATIENCE_S = 0.1, 30.0

__all__ = [
    "test_a_machine_is_listed_under_its_lease_with_its_token",
    "test_a_provider_says_where_it_looked",
    "test_asking_by_id_agrees_with_the_list",
    "test_asking_twice_to_remove_is_success",
    "test_every_lease_shows_in_the_whole_inventory_and_only_in_its_own",
    "test_nothing_holds_a_float_or_anything_json_cannot_write",
    "test_offers_carry_a_price_with_source_and_date_cheapest_first",
    "test_offers_create_nothing",
    "test_removal_in_any_order_ends_in_nothing",
    "test_settings_reach_the_same_account_from_another_process",
    "test_the_machine_is_the_last_step",
    "test_the_same_token_never_makes_two_machines",
    "test_what_was_known_and_is_gone_says_gone",
]


def test_offers_carry_a_price_with_source_and_date_cheapest_first(provider: Provider) -> None:
    prices = [offer.price for offer in provider.offers(Requirements())]
    assert prices, "no offers for a need that anything meets"
    assert all(price.micro_usd_per_hour >= 0 and price.source and len(price.as_of) == 10 for price in prices)
    assert [p.micro_usd_per_hour for p in prices] == sorted(p.micro_usd_per_hour for p in prices)


def test_offers_create_nothing(provider: Provider) -> None:
    before = {r.id for r in _alive(provider.inventory())}
    provider.offers(Requirements())
    assert {r.id for r in _alive(provider.inventory())} == before


def test_the_machine_is_the_last_step(provider: Provider, spec: LaunchSpec) -> None:
    steps = provider.steps(spec)
    assert steps and len(set(steps)) == len(steps)
    with _rented(provider, spec) as (_, made):
        assert tuple(made) == steps
        assert made[steps[-1]].billed or not any(r.billed for r in made.values())


def test_a_machine_is_listed_under_its_lease_with_its_token(provider: Provider, spec: LaunchSpec) -> None:
    with _rented(provider, spec) as (lease, made):
        machine = list(made.values())[-1]
        listed = _until(provider, lambda: [r for r in provider.inventory(lease).resources if r.id == machine.id])
        assert [r.lease for r in listed] == [lease]
        assert [r.token for r in listed] == [machine.token] and machine.token
        assert listed[0].kind == machine.kind and listed[0].region == machine.region


def test_every_lease_shows_in_the_whole_inventory_and_only_in_its_own(provider: Provider, spec: LaunchSpec) -> None:
    with _rented(provider, spec) as (lease, made):
        machine = list(made.values())[-1]
        assert _until(provider, lambda: [r for r in provider.inventory().resources if r.id == machine.id and r.lease == lease])
        assert provider.inventory(_lease_id()).resources == ()


def test_a_provider_says_where_it_looked(provider: Provider, spec: LaunchSpec) -> None:
    looked = provider.inventory(_lease_id()).looked_in
    assert {*provider.steps(spec)} <= {one.kind for one in looked if one.checked}, "a kind we make was not looked for"
    assert all(one.checked or one.reason for one in looked), "a kind that was not checked must say why"


def test_asking_by_id_agrees_with_the_list(provider: Provider, spec: LaunchSpec) -> None:
    with _rented(provider, spec) as (_, made):
        for resource in made.values():
            seen = _until(provider, lambda known=resource: _asked(provider, known))
            assert (seen.kind, seen.id, seen.region) == (resource.kind, resource.id, resource.region)
            assert seen.phase in (Phase.COMING, Phase.HERE)
            assert seen.state, "the provider's own word is evidence and must be kept"


def test_the_same_token_never_makes_two_machines(provider: Provider, spec: LaunchSpec) -> None:
    with _rented(provider, spec) as (lease, made):
        kind, machine = list(made.items())[-1]
        assert machine.token
        again = provider.create(kind, spec, lease=lease, token=machine.token, made={k: v for k, v in made.items() if k != kind})
        assert again.id == machine.id


def test_asking_twice_to_remove_is_success(provider: Provider, spec: LaunchSpec) -> None:
    with _rented(provider, spec) as (lease, made):
        machine = _until(provider, lambda: _asked(provider, list(made.values())[-1]))
        provider.remove(machine)
        provider.remove(machine)
        _clear(provider, lease, made)
        provider.remove(machine)


def test_what_was_known_and_is_gone_says_gone(provider: Provider, spec: LaunchSpec) -> None:
    with _rented(provider, spec) as (_, made):
        machine = _until(provider, lambda: _asked(provider, list(made.values())[-1]))
        provider.remove(machine)
        gone = _until(provider, lambda: [seen for seen in [provider.observe(machine)] if seen.phase is Phase.GONE])
        assert gone[0].state


def test_removal_in_any_order_ends_in_nothing(provider: Provider, spec: LaunchSpec) -> None:
    with _rented(provider, spec) as (lease, made):
        _clear(provider, lease, made, backwards=True)
        assert _alive(provider.inventory(lease)) == []


def test_settings_reach_the_same_account_from_another_process(provider: Provider, spec: LaunchSpec) -> None:
    from provisioner.providers import connect

    settings = json.loads(json.dumps(provider.settings()))
    with _rented(provider, spec) as (lease, made):
        other = connect(provider.name, settings)
        machine = list(made.values())[-1]
        assert _until(provider, lambda: [r for r in other.inventory(lease).resources if r.id == machine.id])
    assert other.settings() == settings


def test_nothing_holds_a_float_or_anything_json_cannot_write(provider: Provider, spec: LaunchSpec) -> None:
    def floats(value: Any) -> bool:
        if isinstance(value, dict):
            return any(floats(v) for v in value.values())
        return any(map(floats, value)) if isinstance(value, list) else isinstance(value, float)

    with _rented(provider, spec) as (lease, made):
        answers = [dict(r.facts) for r in (*made.values(), *provider.inventory(lease).resources)]
        answers.append(dict(provider.remove(_until(provider, lambda: _asked(provider, list(made.values())[-1])))))
        assert not floats(json.loads(json.dumps([provider.settings(), answers])))


@contextmanager
def _rented(provider: Provider, spec: LaunchSpec) -> Iterator[tuple[str, dict[str, Resource]]]:
    """All steps of one lease, given back whatever happens."""
    lease = _lease_id()
    made: dict[str, Resource] = {}
    try:
        for number, kind in enumerate(provider.steps(spec)):
            made[kind] = provider.create(kind, spec, lease=lease, token=f"{lease[-8:]}-{number}-{secrets.token_hex(8)}", made=dict(made))
        yield lease, made
    finally:
        _clear(provider, lease, made)


def _clear(provider: Provider, lease: str, made: Mapping[str, Resource], *, backwards: bool = False) -> None:
    def left() -> list[Resource]:
        """Ask everything to go; what is in use refuses and is asked again."""
        listed = provider.inventory(lease).resources
        remaining = [r for r in listed if r.phase is not Phase.GONE]
        # What was made and is not listed may only be listed late.
        for known in made.values():
            if known.id not in {r.id for r in listed}:
                seen = _asked(provider, known) or known
                remaining += [seen] if seen.phase is not Phase.GONE else []
        for resource in reversed(remaining) if backwards else remaining:
            if resource.phase is not Phase.LEAVING:
                try:
                    provider.remove(resource)
                except ProviderError:
                    continue
        return remaining

    _until(provider, lambda: not left())


def _until(provider: Provider, look: Any) -> Any:
    """Look until there is something to see. A provider may list late; it may not list never."""
    clock = getattr(provider, "clock", None)
    now, sleep = (clock.now, clock.sleep) if clock is not None else (time.monotonic, time.sleep)
    patience = max(PATIENCE_S, 2 * provider.traits.settle_s) if clock is not None else PATIENCE_S
    give_up = now() + patience
    while not (seen := look()):
        assert now() < give_up, f"nothing after {patience:.0f} s"
        sleep(PAUSE_S)
    return seen


def _asked(provider: Provider, resource: Resource) -> Resource | None:
    """One observation; a machine too new to be found by id is asked for again."""
    try:
        return provider.observe(resource)
    except ProviderError:
        return None


def _alive(inventory: Inventory) -> list[Resource]:
    return [r for r in inventory.resources if r.phase is not Phase.GONE]


def _lease_id() -> str:
    return f"r-20260101t000000z-{''.join(secrets.choice('0123456789abcdefghjkmnpqrstvwxyz') for _ in range(8))}"
