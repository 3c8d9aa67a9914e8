"""Prices, where each was read, and how old it is.

Every price here is a number somebody published, with a source and a day. There is no default and no zero: a price
that is not in the snapshot raises `UnknownPrice`, because a missing price once shown as $0.00 is how money is lost.
`prices.json` holds what is billed beside the machine itself (disk, public address, transfer), per region; what a
machine costs comes with the offer. Prices are whole micro-dollars, so that sums are exact and can be signed.
This file must not know about instances, offers or leases.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any

STALE_DAYS = 90
"""A price older than this deserves a warning: p5.48xlarge fell from $98.32/h to $55.04/h within one table update."""

TOO_OLD_DAYS = 365
"""A price older than this is no price any more: nothing is rented on it."""


class UnknownPrice(LookupError):
    """Nobody has written this price down. Unknown is never zero."""


SPOT_CEILING = "spot ceiling: "
"""How the source of a price begins that is the most to pay on the spot market, and not what is paid."""

OWN_WORD = "the user's own word for a machine of theirs"
"""The source of a price that nobody lists."""


@dataclass(frozen=True)
class Price:
    """Money per hour as published: where it was read, and on what day (YYYY-MM-DD)."""

    micro_usd_per_hour: int
    source: str
    as_of: str


@dataclass(frozen=True)
class UnitPrice:
    """Money per some other unit: a GiB kept for a month, an address for an hour, a GiB sent."""

    micro_usd: int
    unit: str
    source: str
    as_of: str


@dataclass(frozen=True)
class Beside:
    """What is billed beside a machine in one region."""

    disk: UnitPrice
    public_ipv4: UnitPrice
    egress: UnitPrice

    @property
    def oldest(self) -> str:
        return min(self.disk.as_of, self.public_ipv4.as_of, self.egress.as_of)


def beside(region: str) -> Beside:
    """What the snapshot knows of a region, or UnknownPrice."""
    return Beside(unit_price("disk", region), unit_price("public-ipv4", region), unit_price("egress", region))


def unit_price(name: str, region: str) -> UnitPrice:
    """The price of "disk", "public-ipv4" or "egress" in a region, or UnknownPrice."""
    here = _snapshot()["regions"].get(region)
    if here is None:
        known = ", ".join(sorted(_snapshot()["regions"]))
        raise UnknownPrice(f"no prices are known for the region {region!r}; the snapshot has {known}")
    if name not in here:
        raise UnknownPrice(f"no price is known for {name!r} in {region}; the snapshot has {', '.join(sorted(here))}")
    row = here[name]
    return UnitPrice(row["microUsd"], row["unit"], row["source"], row["asOf"])


def age_days(as_of: str, today: str | date) -> int:
    """How many days old a price is. A date that cannot be read is an error: an undated price is an unknown one."""
    now = today if isinstance(today, date) else date.fromisoformat(today)
    return (now - date.fromisoformat(as_of)).days


def is_stale(as_of: str, today: str | date) -> bool:
    return age_days(as_of, today) > STALE_DAYS


def is_too_old(as_of: str, today: str | date) -> bool:
    return age_days(as_of, today) > TOO_OLD_DAYS


@cache
def _snapshot() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((files("cost") / "prices.json").read_text(encoding="utf-8"))
    return data
