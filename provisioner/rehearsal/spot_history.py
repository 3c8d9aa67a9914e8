"""DescribeSpotPriceHistory: what the rehearsal's spot market asks now, and a made-up past that leads there. SIMULATED.

The newest entry of a type and zone is the price that a launch meets (`market.py`), so that a knob shows in both. Before it
stand entries twelve hours apart, up to a fifth above and below today's, the same ones every time; the oldest is the one
that stood when the asked-for time began, as EC2 has it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from provisioner.rehearsal.market import Market, usd
from provisioner.rehearsal.wire import Call, Refusal, Reply, ec2_answer

_STEP = timedelta(hours=12)
_PRODUCTS = ("Linux/UNIX", "Linux/UNIX (Amazon VPC)")


def answer(call: Call, market: Market, offered: Sequence[tuple[str, str]]) -> Reply:
    """`offered`: every (type, zone) of the region that is sold at all."""
    entries = list(_entries(call, market, offered))
    size = int(call.params.get("MaxResults", "1000"))
    begin = call.params.get("NextToken", "0")
    if not begin.isdigit() or int(begin) > len(entries):
        raise Refusal("InvalidNextToken", "The token is invalid.")
    end = int(begin) + max(1, min(size, 1000))
    items = "".join(f"<item>{entry}</item>" for entry in entries[int(begin) : end])
    token = f"<nextToken>{end}</nextToken>" if end < len(entries) else "<nextToken/>"
    return ec2_answer(call, f"<spotPriceHistorySet>{items}</spotPriceHistorySet>{token}")


def _entries(call: Call, market: Market, offered: Sequence[tuple[str, str]]) -> Iterator[str]:
    types, products = set(call.many("InstanceType")), call.many("ProductDescription") or [_PRODUCTS[0]]
    zone_only = call.params.get("AvailabilityZone", "")
    now = datetime.fromtimestamp(call.at, UTC)
    begin, end = _time(call, "StartTime", now), min(_time(call, "EndTime", now), now)
    for type, zone in offered:
        if (types and type not in types) or (zone_only and zone != zone_only):
            continue
        for product in (one for one in products if one in _PRODUCTS):
            for at, micro in _past(market.spot_price(zone, type), f"{zone}/{type}", begin, end):
                yield (
                    f"<instanceType>{type}</instanceType><productDescription>{product}</productDescription><spotPrice>{usd(micro)}"
                    f"</spotPrice><timestamp>{at:%Y-%m-%dT%H:%M:%S.000Z}</timestamp><availabilityZone>{zone}</availabilityZone>"
                )


def _past(now_price: int, place: str, begin: datetime, end: datetime) -> Iterator[tuple[datetime, int]]:
    """Newest first."""
    bytes = hashlib.sha256(place.encode()).digest()
    at, number = end - timedelta(hours=1 + bytes[0] % 6), 0
    price = now_price
    while at > begin and number < 200:
        yield at, price
        number += 1
        price = now_price * (80 + bytes[number % 32] % 41) // 100 // 100 * 100 or now_price
        at -= _STEP
    yield at, price  # what stood when the asked-for time began


def _time(call: Call, name: str, default: datetime) -> datetime:
    text = call.params.get(name)
    if text is None:
        return default
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise Refusal("InvalidParameterValue", f"{name} is {text!r}, and must be a time") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
