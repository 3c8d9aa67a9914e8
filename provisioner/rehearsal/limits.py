"""How many vCPUs an account may run at once: the quotas as Service Quotas names them, and which one a type counts against.

EC2 counts vCPUs per region, per group of families and per way to buy, and refuses a launch that would go beyond. The
endpoint's launches and its Service Quotas read the same numbers here, so that what is told is what is enforced. A family
that no quota here is about is not limited.

A value, replaced as a whole; it must not know how many machines there are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

USUAL = 8192
"""Every quota, unless a knob says otherwise: a large account's. A new one's is 0 for GPUs."""

_STANDARD = ("a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z")
_G = ("g", "gr", "vt")


@dataclass(frozen=True)
class Quota:
    code: str
    name: str
    spot: bool
    families: tuple[str, ...]  # what a type of it begins with, before the first digit or the dot; or a whole "p5"


QUOTAS = (
    Quota("L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", False, _STANDARD),
    Quota("L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests", True, _STANDARD),
    Quota("L-DB2E81BA", "Running On-Demand G and VT instances", False, _G),
    Quota("L-3819A6DF", "All G and VT Spot Instance Requests", True, _G),
    Quota("L-417A185B", "Running On-Demand P instances", False, ("p",)),
    Quota("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests", True, ("p2", "p3", "p4")),
    Quota("L-C4BD4855", "All P5 Spot Instance Requests", True, ("p5",)),
)


def quota_of(type: str, spot: bool) -> Quota | None:
    """The quota that a machine of this type counts against; None where none is kept."""
    found = re.match(r"([a-z]+)(\d*)", type)
    names = {found[1], found[1] + found[2]} if found else set()
    return next((quota for quota in QUOTAS if quota.spot == spot and names & set(quota.families)), None)


@dataclass(frozen=True)
class Limits:
    """vCPUs by region ("*": every other) and quota code."""

    values: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def value(self, region: str, code: str) -> int:
        return self.values.get((region, code), self.values.get(("*", code), USUAL))

    def changed(self, given: Mapping[str, Any]) -> Limits:
        """`{"L-DB2E81BA": 8}` for every region, or `{"us-east-1": {"L-DB2E81BA": 8}}`. ValueError when it is neither."""
        values = dict(self.values)
        known = {quota.code for quota in QUOTAS}
        for name, inside in given.items():
            for code, number in inside.items() if isinstance(inside, Mapping) else [(name, inside)]:
                if code not in known:
                    raise ValueError(f"limits has no {code}; it has {', '.join(sorted(known))}")
                if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                    raise ValueError(f"the limit {code} is {number!r}; it must be a whole number of vCPUs")
                values[(name if isinstance(inside, Mapping) else "*", code)] = number
        return Limits(values)
