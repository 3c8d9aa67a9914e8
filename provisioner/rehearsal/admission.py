"""May this launch be had: the account's quota, the spot market's price and the zone's room, in that order, in EC2's words.

The numbers are `limits.py` and `market.py`; what exists is counted here, from the machines themselves, each time anew, so
that no count can drift from what it counts. A machine takes its vCPUs and its place until it is terminated or stopped. Which of
the three EC2 looks at first is not documented; a refusal by quota is definite, so a tool must be able to meet it first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provisioner.rehearsal import machines
from provisioner.rehearsal.knobs import World
from provisioner.rehearsal.limits import quota_of
from provisioner.rehearsal.machines import Machine
from provisioner.rehearsal.market import micro_usd, usd
from provisioner.rehearsal.wire import Refusal

_MARKET = "InstanceMarketOptions."
_SPOT = f"{_MARKET}SpotOptions."


@dataclass(frozen=True)
class Wish:
    type: str
    least: int
    most: int
    spot: bool
    ceiling: int | None  # micro-USD per hour; None: the on-demand price, which no market here is above


def wish(params: Mapping[str, str], least: int, most: int) -> Wish:
    """What a RunInstances request asks for. Refusal when its market options cannot be."""
    spot = params.get(f"{_MARKET}MarketType") == "spot"
    if params.get(f"{_MARKET}MarketType", "spot") != "spot":
        raise Refusal("InvalidParameterValue", f"'{params[f'{_MARKET}MarketType']}' is not a market type of the rehearsal: spot")
    kind = params.get(f"{_SPOT}SpotInstanceType", "one-time")
    if kind not in ("one-time", "persistent"):
        raise Refusal("InvalidParameterValue", f"Invalid value '{kind}' for SpotInstanceType.")
    if kind == "one-time" and (late := [name for name in ("ValidUntil",) if f"{_SPOT}{name}" in params]):
        raise Refusal("InvalidParameterCombination", f"{late[0]} is only supported for persistent Spot Instance requests")
    behaviour = params.get(f"{_SPOT}InstanceInterruptionBehavior", "terminate")
    if behaviour not in ("terminate", "stop", "hibernate"):
        raise Refusal("InvalidParameterValue", f"Invalid value '{behaviour}' for InstanceInterruptionBehavior.")
    if behaviour != "terminate" and kind == "one-time":
        raise Refusal(
            "InvalidParameterCombination", f"a one-time Spot Instance request cannot {behaviour} its instance; a persistent one can"
        )
    ceiling = None
    if text := params.get(f"{_SPOT}MaxPrice", ""):
        try:
            ceiling = micro_usd(text)
        except ValueError:
            raise Refusal("InvalidParameterValue", f"Invalid value '{text}' for MaxPrice.") from None
    return Wish(params.get("InstanceType", ""), least, most, spot, ceiling)


def place(asked: Wish, zones: Sequence[str], region: str, backend: Any, world: World) -> tuple[str, int]:
    """The zone, out of those that would do, and how many machines there are to be. Refusal when there is none."""
    count = _by_quota(asked, region, backend, world)
    if asked.spot and asked.ceiling is not None:
        prices = {zone: world.market.spot_price(zone, asked.type) for zone in zones}
        if asked.ceiling < (cheapest := min(prices.values())):
            raise Refusal(
                "SpotMaxPriceTooLow",
                f"Your Spot request price of {usd(asked.ceiling)} is lower than the minimum required Spot request "
                f"fulfillment price of {usd(cheapest)}.",
            )
        zones = [zone for zone in zones if prices[zone] <= asked.ceiling]
    for zone in zones:
        room = world.market.room(zone, asked.type, asked.spot)
        free = count if room is None else room - sum(_same(machine, asked, zone) for machine in _holding(backend))
        if free >= asked.least:
            return zone, min(count, free)
    if asked.spot:
        raise Refusal("InsufficientInstanceCapacity", "There is no Spot capacity available that matches your request.", 500)
    where = zones[0] if len(zones) == 1 else region
    raise Refusal(
        "InsufficientInstanceCapacity",
        f"There is not enough {asked.type} capacity in {where} now; another zone or type may have some.",
        500,
    )


def _by_quota(asked: Wish, region: str, backend: Any, world: World) -> int:
    quota, each = quota_of(asked.type, asked.spot), vcpus(asked.type)
    if quota is None or each == 0:
        return asked.most
    limit = world.limits.value(region, quota.code)
    used = sum(vcpus(machine.instance_type) for machine in _holding(backend) if quota_of(machine.instance_type, _is_spot(machine)) is quota)
    if used + each * asked.least <= limit:
        return min(asked.most, (limit - used) // each)
    if asked.spot:
        raise Refusal("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
    raise Refusal(
        "VcpuLimitExceeded",
        f"More vCPU capacity was requested than the current vCPU limit of {limit} allows for the instance bucket of {asked.type}.",
    )


def vcpus(type: str) -> int:
    """Of one machine of the type; 0 for a type nobody knows."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    return int(INSTANCE_TYPES.get(type, {}).get("VCpuInfo", {}).get("DefaultVCpus", 0))


def _holding(backend: Any) -> list[Machine]:
    return [machine for machine in machines.machines(backend) if machine.state not in ("terminated", "stopped")]


def _is_spot(machine: Machine) -> bool:
    return machine.spot_request is not None


def _same(machine: Machine, asked: Wish, zone: str) -> bool:
    return machine.instance_type == asked.type and machine.placement.zone == zone and _is_spot(machine) == asked.spot
