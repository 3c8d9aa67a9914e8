"""What was spent, as bounds that must contain the bill.

Two ideas. Nobody sees the instant a machine starts or stops being billed; we see answers before and after it. So
an interval has four ends: the earliest and latest start, the earliest and latest end; the least time is from the
latest start to the earliest end, the most from the earliest start to the latest end, and the bounds are summed,
never averaged, because they are bounds and not deviations. And what may exist counts: a create whose answer was
lost adds to the upper bound until somebody has looked long enough to say that nothing came of it.

Times are whole milliseconds since 1970; see from_journal.py for how they are read out of a journal.
This file must not know how a journal looks, or what a provider is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cost.money import EC2_MINIMUM_SECONDS, HOUR, bill
from cost.prices import OWN_WORD, SPOT_CEILING
from cost.quote import Line


@dataclass(frozen=True)
class Interval:
    """When something was billed, in milliseconds since 1970. `certain` is False for what may never have been billed."""

    resource: str
    kind: str
    start_lo: int
    start_hi: int
    end_lo: int
    end_hi: int
    certain: bool = True
    open: bool = False
    machine: str = ""  # the instance type, where the journal says it
    lines: tuple[Line, ...] | None = None  # the prices it was asked for under; None: those of the journal's first line
    priced: str = ""  # the instance type those are for

    @property
    def seconds_lo(self) -> int:
        return max(0, self.end_lo - self.start_hi) // 1000 if self.certain else 0

    @property
    def seconds_hi(self) -> int:
        return -(-max(0, self.end_hi - self.start_lo) // 1000)


@dataclass(frozen=True)
class SpendLine:
    """One price over one interval. `resource` is an id, or the token of a create that was never answered."""

    name: str
    resource: str
    lo: int
    best: int
    hi: int
    seconds_lo: int
    seconds_hi: int
    source: str
    as_of: str


@dataclass(frozen=True)
class Spend:
    """Micro-dollars at public list price. `open`: something is, or may be, still billed, so `hi` grows with the clock."""

    lo: int
    best: int
    hi: int
    open: bool
    lines: tuple[SpendLine, ...] = ()

    def record(self) -> dict[str, Any]:
        """As the journal's seal and the evidence keep it."""
        return {
            "loMicroUsd": self.lo,
            "bestMicroUsd": self.best,
            "hiMicroUsd": self.hi,
            "open": self.open,
            "basis": "public-list-price",
            "notIncluded": ["taxes", "credits and discounts", "requests and log storage"],
            "lines": [
                {
                    "name": line.name,
                    "resource": line.resource,
                    "loMicroUsd": line.lo,
                    "bestMicroUsd": line.best,
                    "hiMicroUsd": line.hi,
                    "secondsLo": line.seconds_lo,
                    "secondsHi": line.seconds_hi,
                    "source": line.source,
                    "asOf": line.as_of,
                }
                for line in self.lines
            ],
        }


def meter(observed: Sequence[Interval], lines: Sequence[Line]) -> Spend:
    """Charge each interval with the lines that apply to it: its own, or `lines` where it has none.

    The instance and public-ipv4 lines follow the machine, the disk line follows the disk (an interval of kind
    "volume", as long as the machine's where no volume was seen to outlive it); any other hourly line follows the
    machine. A fixed line (the egress allowance) is counted for each machine, from nothing to all of it.
    """
    spent: list[SpendLine] = []
    for interval in observed:
        own = tuple(lines) if interval.lines is None else interval.lines
        spent += [_charge(line, interval) for line in own if line.micro_usd_per_hour and _follows(line, interval)]
        spent += [
            SpendLine(line.name, interval.resource, 0, 0, line.fixed_micro_usd, 0, 0, line.source, line.as_of)
            for line in own
            if line.fixed_micro_usd and interval.kind != "volume"
        ]
    return Spend(
        lo=sum(line.lo for line in spent),
        best=sum(line.best for line in spent),
        hi=sum(line.hi for line in spent),
        open=any(interval.open for interval in observed),
        lines=tuple(spent),
    )


def _follows(line: Line, interval: Interval) -> bool:
    return (interval.kind == "volume") == (line.name == "disk")


def _charge(line: Line, interval: Interval) -> SpendLine:
    lo_s, hi_s = interval.seconds_lo, interval.seconds_hi
    # The bracket's middle on both sides, but what still runs runs until now; what may not exist is best guessed at nothing.
    end = interval.end_hi if interval.open else (interval.end_lo + interval.end_hi) // 2
    best_s = max(0, end - (interval.start_lo + interval.start_hi) // 2) // 1000
    low_rate = line.micro_usd_per_hour if line.micro_usd_per_hour_low is None else line.micro_usd_per_hour_low
    lo = low_rate * max(lo_s, EC2_MINIMUM_SECONDS) // HOUR if interval.certain else 0
    hi = bill(line.micro_usd_per_hour, hi_s)
    usual = line.micro_usd_per_hour if line.micro_usd_per_hour_usual is None else line.micro_usd_per_hour_usual
    best = min(max(bill(usual, best_s), lo), hi) if interval.certain else 0
    return SpendLine(line.name, interval.resource, lo, best, hi, lo_s, hi_s, line.source, line.as_of)


def basis(priced: Iterable[tuple[str, str, str]]) -> str:
    """What amounts were reckoned with, out of (name, source, day) of each price: "public list price", and what is not that.

    A spot machine is paid at what the market asks, up to a ceiling; one of the user's own at the user's word. "" without any price.
    """
    said: dict[str, None] = {}
    for name, source, day in priced:
        if name == "instance" and source.startswith(SPOT_CEILING):
            said[f"a spot machine at the market's price, its ceiling is {source.removeprefix(SPOT_CEILING)}, {day}"] = None
        else:
            said[f"{source}, {day}" if source == OWN_WORD else "public list price"] = None
    return "; ".join(sorted(said, key=lambda words: words != "public list price"))
