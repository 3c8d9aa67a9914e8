"""What a lease will cost: line by line, as expected, and at most.

Two ideas. A quote is a list of lines, each a rate or a fixed amount with the price's source and day, so that every
total can be taken apart. And "at most" is not the deadline but the deadline plus the *guard tail*: the time until
the last line of defence (`reap`, fifteen minutes past the deadline) has acted, because that is when a bill that
went wrong in every earlier layer still ends.

A month of disk is reckoned as the shortest one (672 hours) in a quote, so that the rate is never too low; the
meter uses the longest (744) for its lower bound.
This file must not know about providers: it is given a Price and sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cost.money import EC2_MINIMUM_SECONDS, bill, up
from cost.prices import Beside, Price, UnknownPrice
from cost.prices import beside as prices_beside

GUARD_TAIL_SECONDS = 15 * 60 + 60
"""From the deadline until `reap` has acted on it, plus the minute that is billed at least."""

SHORT_MONTH_HOURS, LONG_MONTH_HOURS = 28 * 24, 31 * 24
EGRESS_ALLOWANCE_MIB = 100


@dataclass(frozen=True)
class Line:
    """One thing that is billed.

    `micro_usd_per_hour` is the most it can be. `micro_usd_per_hour_low` is a lower bound where the rate is not fixed (a
    month's length, a spot market), `micro_usd_per_hour_usual` the best guess where that is not the most.
    """

    name: str
    micro_usd_per_hour: int
    source: str
    as_of: str
    fixed_micro_usd: int = 0
    micro_usd_per_hour_low: int | None = None
    micro_usd_per_hour_usual: int | None = None

    def cost(self, seconds: int) -> int:
        return self.fixed_micro_usd + (bill(self.micro_usd_per_hour, seconds) if self.micro_usd_per_hour else 0)

    def usual(self, seconds: int) -> int:
        rate = self.micro_usd_per_hour if self.micro_usd_per_hour_usual is None else self.micro_usd_per_hour_usual
        return self.fixed_micro_usd + (bill(rate, seconds) if rate else 0)


@dataclass(frozen=True)
class Quote:
    """The lines of one machine. Durations are given when asked for, because a budget may yet shorten the deadline."""

    lines: tuple[Line, ...]
    tail_seconds: int = GUARD_TAIL_SECONDS

    @property
    def micro_usd_per_hour(self) -> int:
        return sum(line.micro_usd_per_hour for line in self.lines)

    @property
    def fixed_micro_usd(self) -> int:
        return sum(line.fixed_micro_usd for line in self.lines)

    @property
    def oldest(self) -> str:
        """The day of the oldest price used, for `age_days`."""
        return min(line.as_of for line in self.lines)

    def expected(self, seconds: int) -> int:
        """What a run of that many seconds costs when it ends by itself, at what is asked now."""
        return sum(line.usual(seconds) for line in self.lines)

    def at_most(self, deadline_seconds: int) -> int:
        """What it costs when only the last line of defence ends it."""
        return sum(line.cost(deadline_seconds + self.tail_seconds) for line in self.lines)

    def rates(self) -> dict[str, Any]:
        """The lines alone: what a machine is asked for under, as its intent keeps it."""
        return {"lines": [_record(line) for line in self.lines]}

    def record(self, expected_seconds: int, deadline_seconds: int) -> dict[str, Any]:
        """The quote as the journal and the evidence keep it."""
        return {
            **self.rates(),
            "expectedSeconds": expected_seconds,
            "expectedMicroUsd": self.expected(expected_seconds),
            "deadlineSeconds": deadline_seconds,
            "tailSeconds": self.tail_seconds,
            "atMostMicroUsd": self.at_most(deadline_seconds),
            "basis": "public-list-price",
        }


def quote(
    instance: Price,
    *,
    region: str,
    disk_gib: int,
    public_ipv4: int = 1,
    egress_mib: int = EGRESS_ALLOWANCE_MIB,
    tail_seconds: int = GUARD_TAIL_SECONDS,
    market: Price | None = None,
    beside: Beside | None = None,
) -> Quote:
    """The lines of one EC2 machine: itself, its disk, its public address, and an allowance for what it sends.

    For a spot machine `instance` is the ceiling of the request and `market` what the market asks now. Its lower bound is
    nothing: the market may fall, and what AWS takes back in its first hour is not billed. `beside` is what was asked
    for in that region; without it the snapshot's prices are taken.

    Raises UnknownPrice where a price is not known, or not positive.
    """
    known = beside or prices_beside(region)
    disk, address, egress = known.disk, known.public_ipv4, known.egress
    lines = [
        hourly("instance", instance) if market is None else _spot(instance, market),
        Line(
            "disk",
            up(disk.micro_usd * disk_gib, SHORT_MONTH_HOURS),
            f"{disk.source} ({disk_gib} {disk.unit})",
            disk.as_of,
            micro_usd_per_hour_low=disk.micro_usd * disk_gib // LONG_MONTH_HOURS,
        ),
        Line("public-ipv4", address.micro_usd * public_ipv4, f"{address.source} ({address.unit})", address.as_of),
        Line(
            "egress",
            0,
            f"{egress.source} (an allowance of {egress_mib} MiB)",
            egress.as_of,
            fixed_micro_usd=up(egress.micro_usd * egress_mib, 1024),
        ),
    ]
    return Quote(tuple(lines), tail_seconds)


def own_host(price: Price) -> Quote:
    """The quote for a machine that somebody else rented: the user's word for its rate, and no guard tail of ours."""
    return Quote((hourly("instance", price),), tail_seconds=EC2_MINIMUM_SECONDS)


def hourly(name: str, price: Price) -> Line:
    if price.micro_usd_per_hour < 0 or not price.source or not price.as_of:
        raise UnknownPrice(f"the price of the {name} lacks an amount, a source or a date: {price}")
    return Line(name, price.micro_usd_per_hour, price.source, price.as_of)


def _spot(ceiling: Price, market: Price) -> Line:
    if not 0 <= market.micro_usd_per_hour <= ceiling.micro_usd_per_hour:
        raise UnknownPrice(f"the spot market asks {market.micro_usd_per_hour} micro-dollars, the ceiling is {ceiling.micro_usd_per_hour}")
    most = hourly("instance", ceiling)
    return replace(most, micro_usd_per_hour_low=0, micro_usd_per_hour_usual=market.micro_usd_per_hour)


def line_of(record: Mapping[str, Any]) -> Line:
    """A line from its record in a journal."""
    return Line(
        str(record["name"]),
        int(record["microUsdPerHour"]),
        str(record.get("source") or ""),
        str(record.get("asOf") or ""),
        int(record.get("fixedMicroUsd", 0)),
        record.get("microUsdPerHourLow"),
        record.get("microUsdPerHourUsual"),
    )


def _record(line: Line) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": line.name,
        "microUsdPerHour": line.micro_usd_per_hour,
        "fixedMicroUsd": line.fixed_micro_usd,
        "source": line.source,
        "asOf": line.as_of,
    }
    if line.micro_usd_per_hour_low is not None:
        record["microUsdPerHourLow"] = line.micro_usd_per_hour_low
    if line.micro_usd_per_hour_usual is not None:
        record["microUsdPerHourUsual"] = line.micro_usd_per_hour_usual
    return record
