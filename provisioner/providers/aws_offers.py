"""From what AWS said to offers: what fits, at what price, in which order, and why the rest is out. Pure.

*The order.* The way to buy that the need prefers comes first (`needs.purchase`), and within it the cheapest by what is
expected to be paid: the market's price on the spot market where it is known, else the most an hour can cost. Then
type, region in the order they were given, and zone, so that the next offer is most often the same machine next door.

*What is out, and says why*: too little memory, a part of a GPU, another architecture, no zone, no price, a price that
is too old, a market above the ceiling, a quota that is too small. A quota or a market that nobody could ask for is
unknown: it is shown as such, and never taken for "ok" or for cheap.
This file must not send anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import cost
from cost import Beside, Price
from provisioner.model import Offer, Requirements
from provisioner.providers.aws_prices import Unknown, is_snapshot
from provisioner.providers.aws_quotas import Quota, code_of
from provisioner.providers.aws_spot import History
from provisioner.providers.aws_types import Type, misfit

ON_DEMAND, SPOT = "on-demand", "spot"


@dataclass(frozen=True)
class Place:
    """One region, as far as AWS or the snapshot told us about it."""

    region: str
    types: Mapping[str, Type]
    zones: Mapping[str, tuple[str, ...]] | None  # by type; None: nobody could be asked
    prices: Mapping[str, Price | Unknown]
    beside: Beside | Unknown
    spot: Mapping[tuple[str, str], History] | None  # by type and zone; None: nobody could be asked
    quotas: Mapping[tuple[bool, str | None], Quota]  # by spot and code
    notes: tuple[str, ...] = ()  # what was not answered
    asked: bool = True  # False: catalog and snapshot alone
    today: date = date.min


@dataclass(frozen=True)
class Line:
    """An offer, and what a person wants to know before taking it."""

    offer: Offer
    type: Type
    quota: Quota
    history: History | None = None

    @property
    def expected(self) -> int:
        """Micro-dollars per hour that will most likely be paid."""
        return (self.offer.market or self.offer.price).micro_usd_per_hour


@dataclass(frozen=True)
class Out:
    """Something that was looked at and is no offer."""

    kind: str  # "vram", "part", "arch", "zone", "price", "spot", "quota" …
    type: str
    region: str
    why: str
    zone: str | None = None
    spot: bool = False
    next: str = ""
    market: int | None = None  # what the spot market asks, where that is why

    @property
    def fits(self) -> bool:
        """Would the machine itself do?"""
        return self.kind in ("zone", "price", "spot", "quota")


@dataclass(frozen=True)
class Survey:
    lines: tuple[Line, ...]
    out: tuple[Out, ...]
    notes: tuple[str, ...]
    asked: bool  # was AWS asked at all?
    unasked: tuple[str, ...] = ()  # why not, of each region where it was not


def survey(places: Sequence[Place], need: Requirements) -> Survey:
    lines: list[Line] = []
    out: list[Out] = []
    for place in places:
        for name in sorted(place.types):
            for found in _of_type(place, place.types[name], need):
                (lines if isinstance(found, Line) else out).append(found)  # type: ignore[arg-type]
        for name in need.types:
            if name not in place.types:
                out.append(Out("zone", name, place.region, f"{place.region} has no such type"))
    regions = [place.region for place in places]

    def order(line: Line) -> tuple[int, int, str, int, str]:
        way = need.purchase.index(SPOT if line.offer.spot else ON_DEMAND)
        return way, line.expected, line.offer.type, regions.index(line.offer.region), line.offer.zone or ""

    notes = dict.fromkeys(note for place in places for note in (*place.notes, *_ages(place)))
    unasked = tuple(dict.fromkeys(note for place in places if not place.asked for note in place.notes))
    return Survey(tuple(sorted(lines, key=order)), tuple(out), tuple(notes), all(place.asked for place in places), unasked)


def _of_type(place: Place, type: Type, need: Requirements) -> Iterator[Line | Out]:
    misfitting = misfit(type, need)
    if misfitting is not None:
        if misfitting.near:
            yield Out(misfitting.kind, type.name, place.region, misfitting.why)
        return
    if isinstance(place.beside, Unknown):
        yield Out("price", type.name, place.region, place.beside.why)
        return
    zones: tuple[str | None, ...] = (None,) if place.zones is None else place.zones.get(type.name, ())
    if not zones:
        yield Out("zone", type.name, place.region, f"no zone of {place.region} has it")
    for zone in zones:
        for way in need.purchase:
            yield _one(place, type, zone, way, need, place.beside)


def _one(place: Place, type: Type, zone: str | None, way: str, need: Requirements, beside: Beside) -> Line | Out:
    spot = way == SPOT

    def out(kind: str, why: str, next: str = "") -> Out:
        return Out(kind, type.name, place.region, why, zone, spot, next)

    if way not in type.ways:
        return out("zone", f"EC2 does not sell it {'on the spot market' if spot else 'on demand'}")
    listed = place.prices.get(type.name, Unknown(f"no price is known for {type.name} in {place.region}"))
    price = _ceiling(listed, need, place.today) if spot else listed
    if isinstance(price, Unknown):
        return out("price", price.why)
    history = place.spot.get((type.name, zone)) if spot and place.spot is not None and zone is not None else None
    if spot and place.spot is not None and zone is not None and history is None:
        return out("spot", "there is no spot market for it in that zone: EC2's price history has nothing")
    if history is not None and history.now > price.micro_usd_per_hour:
        asked, most = cost.show_per_hour(history.now), cost.show_per_hour(price.micro_usd_per_hour)
        above = out("spot", f"the spot market asks {asked}, above the ceiling of {most}", "a higher needs.spot_max_usd_per_hour")
        return replace(above, market=history.now)
    code = code_of(type.name, spot)
    quota = place.quotas.get((spot, code), Quota(code, place.region, spot, why="not asked"))
    if quota.allows(type.vcpus) is False:
        return out("quota", quota.refusal(type.name, type.vcpus), quota.ask_for(type.vcpus))
    offer = Offer(
        provider="aws",
        region=place.region,
        type=type.name,
        gpu=type.gpu,
        gpus=type.gpus,
        vram_mib=type.vram_mib,
        vcpus=type.vcpus,
        price=price,
        zone=zone,
        spot=spot,
        market=None if history is None else Price(history.now, "EC2 spot price history", place.today.isoformat()),
        beside=beside,
    )
    return Line(offer, type, quota, history)


def _ceiling(listed: Price | Unknown, need: Requirements, today: date) -> Price | Unknown:
    """The most that an hour on the spot market may cost: what the profile says, else the on-demand price."""
    if need.spot_max_micro_usd is not None:
        return Price(need.spot_max_micro_usd, f"{cost.SPOT_CEILING}needs.spot_max_usd_per_hour", today.isoformat())
    if isinstance(listed, Unknown):
        return Unknown(f"{listed.why}, so a spot request has no ceiling; needs.spot_max_usd_per_hour would be one")
    return replace(listed, source=f"{cost.SPOT_CEILING}the on-demand price, {listed.source}")


def _ages(place: Place) -> Iterator[str]:
    """What must be said aloud about prices that were not asked for today."""
    days = {price.as_of for price in place.prices.values() if isinstance(price, Price) and is_snapshot(price)}
    if not days:
        return
    oldest = min(days)
    age = cost.age_days(oldest, place.today)
    old = f" (more than {cost.STALE_DAYS}; p5.48xlarge once fell by 44 % in one update of the list)" if age > cost.STALE_DAYS else ""
    loud = "WARNING: " if old else ""
    of = oldest if len(days) == 1 else f"{oldest} to {max(days)}"
    yield f"{loud}prices of {place.region} are a SNAPSHOT of {of}, {age} days old{old}"
