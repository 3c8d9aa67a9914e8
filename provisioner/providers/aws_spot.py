"""What the spot market asks, per type and zone: now, and the lowest and highest of the last days.

The history that EC2 keeps begins, for each type and zone, with the price that stood when the asked-for time began. The
newest entry is the price now. A price that cannot be read makes the whole answer unreadable: half a history would show
a calm market. This file must not know ceilings or offers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from provisioner.clean import clean
from provisioner.errors import ProviderError
from provisioner.providers.aws_client import Account
from provisioner.providers.aws_prices import micro_usd

DAYS = 7
PRODUCT = "Linux/UNIX"


@dataclass(frozen=True)
class History:
    now: int  # micro-dollars per hour
    low: int
    high: int
    days: int = DAYS


def history(account: Account, types: Sequence[str], now: datetime) -> dict[tuple[str, str], History]:
    """By type and zone. Raises ProviderError where EC2 does not answer, or not readably."""
    entries: list[Mapping[str, Any]] = []
    for page in account.pages(
        "DescribeSpotPriceHistory",
        1000,
        InstanceTypes=list(types),
        ProductDescriptions=[PRODUCT],
        StartTime=now - timedelta(days=DAYS),
        EndTime=now,
    ):
        entries += page.data.get("SpotPriceHistory", [])
    return by_place(entries)


def by_place(entries: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], History]:
    seen: dict[tuple[str, str], list[tuple[datetime, int]]] = {}
    for entry in entries:
        price, at = micro_usd(entry.get("SpotPrice")), entry.get("Timestamp")
        if not price or not isinstance(at, datetime):
            raise ProviderError(f"DescribeSpotPriceHistory: an entry that cannot be read: {clean(str(dict(entry)), limit=120)}")
        seen.setdefault((str(entry.get("InstanceType")), str(entry.get("AvailabilityZone"))), []).append((at, price))
    found = {}
    for place, points in seen.items():
        prices = [price for _, price in points]
        found[place] = History(max(points)[1], min(prices), max(prices))
    return found
