"""Holds the prices that a journal reckons with against lists that its maker did not write.

A price that was made up before the launch is in the journal like a true one, and every sum follows from it. Two lists can
contradict it: what ships with gpulease, which is old and of one region, so that only a price far off is worth a word; and AWS's
own, which whoever verifies asks with a login of theirs. AWS gives today's price and since when it holds. So a difference is a
contradiction only where that was before the day that the price is said to be of; else it is said and not judged.

Only what is bought on demand has a list price. This file must not ask anybody: it is given the lists.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from cost import UnitPrice, line_of, up
from cost.quote import SHORT_MONTH_HOURS
from provisioner.evidence.history import LAUNCHES, History
from provisioner.evidence.messages import Problem, problem

FACTOR = 2
"""Offline. Regions differ by less; the largest cut known here, p5.48xlarge from 98.32 to 55.04 dollars, was a factor of 1.8."""


@dataclass(frozen=True)
class Lists:
    """What prices are held against, each for an hour of a machine or an address, or a GiB of disk kept for a month. Both are asked by
    component, type and region. `shipped` is the snapshot, as of its day; a machine it knows by its type alone. `asked` is AWS's own
    list, as of the day since which it says so; where it has no answer it says why. None: it was not to be asked."""

    shipped: Callable[[str, str, str], UnitPrice | None]
    asked: Callable[[str, str, str], UnitPrice | str] | None = None


@dataclass(frozen=True)
class Claim:
    """One price of the journal: what an hour of it is said to cost on the list of that day."""

    component: str
    type: str
    region: str
    micro_usd_per_hour: int
    day: str
    gib: int = 0

    @property
    def name(self) -> str:
        of = self.type if self.component == "instance" else f"{self.component} of {self.gib} GiB" if self.gib else self.component
        return f"{of} in {self.region}"

    def an_hour(self, micro_usd: int) -> int:
        """What an hour costs at that list price, as a quote reckons it."""
        return up(micro_usd * self.gib, SHORT_MONTH_HOURS) if self.component == "disk" else micro_usd


def judged(history: History, lists: Lists, *, simulated: bool) -> tuple[list[Problem], list[Problem]]:
    """The contradictions, and what is only said."""
    wrong: list[Problem] = []
    said: list[Problem] = []
    if history.genesis["provider"] != "aws":
        return wrong, said
    for claim in claims(history):
        if simulated:  # the price list of a rehearsal is no list of AWS's
            said += [problem("W401", p=usd(claim), sku=claim.name, why="it is SIMULATED")] if lists.asked is not None else []
        elif lists.asked is None:
            said += _offline(claim, lists)
        else:
            listed = lists.asked(claim.component, claim.type, claim.region)
            if isinstance(listed, str):
                said.append(problem("W401", p=usd(claim), sku=claim.name, why=listed))
            elif claim.micro_usd_per_hour != (q := claim.an_hour(listed.micro_usd)):
                # Of the list before that one nothing is known here; and what ships with gpulease was a price, of its own day.
                older = listed.as_of > claim.day or _as_shipped(claim, lists)
                (said if older else wrong).append(
                    problem("W403" if older else "E402", p=usd(claim), sku=claim.name, date=claim.day, q=dollars(q), since=listed.as_of)
                )
    return wrong, said


def claims(history: History) -> list[Claim]:
    """Each price under which a machine was asked for on demand, once."""
    return list(dict.fromkeys(_claims(history)))


def _claims(history: History) -> Iterator[Claim]:
    begun = str(history.entries[0]["at"]["wall"])[:10]
    for ask in history.asks:
        params: Any = ask.body.get("params", {})
        type, region, gib = params.get("type"), params.get("region"), params.get("diskGib")
        if ask.body["class"] not in LAUNCHES or params.get("spot") or not isinstance(type, str) or not isinstance(region, str):
            continue
        quote = params.get("quote") or history.genesis.get("quote", {})
        for line in map(line_of, quote.get("lines", [])):
            day = min(begun, as_of) if (as_of := _day(line.as_of)) else begun
            if line.name == "instance" or (line.name == "public-ipv4" and line.micro_usd_per_hour):
                yield Claim(line.name, type if line.name == "instance" else "", region, line.micro_usd_per_hour, day)
            elif line.name == "disk" and isinstance(gib, int) and gib > 0:
                yield Claim("disk", "", region, line.micro_usd_per_hour, day, gib)


def _offline(claim: Claim, lists: Lists) -> list[Problem]:
    if claim.component != "instance":
        return []
    known = lists.shipped("instance", claim.type, claim.region)
    if known is None:
        return [problem("W401", p=usd(claim), sku=claim.name, why="the type is not in the snapshot that ships")]
    if claim.micro_usd_per_hour * FACTOR < known.micro_usd or claim.micro_usd_per_hour > known.micro_usd * FACTOR:
        return [problem("W402", p=usd(claim), sku=claim.name, n=FACTOR, q=dollars(known.micro_usd), date=known.as_of)]
    return []


def _as_shipped(claim: Claim, lists: Lists) -> bool:
    known = lists.shipped(claim.component, claim.type, claim.region)
    return known is not None and (claim.an_hour(known.micro_usd), known.as_of) == (claim.micro_usd_per_hour, claim.day)


def _day(text: str) -> str:
    with contextlib.suppress(ValueError):
        return date.fromisoformat(text[:10]).isoformat()
    return ""


def usd(claim: Claim) -> str:
    return dollars(claim.micro_usd_per_hour)


def dollars(micro: int) -> str:
    """`0.8048 USD/h`, to the last digit: what is compared is shown."""
    whole, rest = divmod(micro, 1_000_000)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".") + " USD/h"
