"""What there is and what it costs: how many machines of a type a zone has left, and what its spot market asks.

Both are state, not faults: a zone that is full stays full until a machine of it goes or a knob says otherwise, and the spot
market asks the same of a launch and of whoever reads its history. Patterns name zones and types (`us-east-1*`, `g6*`); the
first that fits counts. Where nothing is said there is room, and the spot price is a third to a half of the list price,
the same one every time for a zone and type.

Values, replaced as a whole. Money is whole micro-USD. It must not know which machines exist.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any

MICRO = 1_000_000
_UNLISTED = 50_000  # taken for the list price of a type that the catalogue has none of


@dataclass(frozen=True)
class _Said:
    zone: str
    type: str
    value: int

    def about(self, zone: str, type: str) -> bool:
        return fnmatchcase(zone, self.zone) and fnmatchcase(type, self.type)


@dataclass(frozen=True)
class Market:
    """What knobs have said; the newest first."""

    on_demand: tuple[_Said, ...] = ()
    spot: tuple[_Said, ...] = ()
    prices: tuple[_Said, ...] = ()

    def room(self, zone: str, type: str, spot: bool) -> int | None:
        """How many machines of the type the zone can hold at once; None: any number."""
        return next((said.value for said in (self.spot if spot else self.on_demand) if said.about(zone, type)), None)

    def spot_price(self, zone: str, type: str) -> int:
        """What the spot market asks for an hour now, in micro-USD."""
        return next((said.value for said in self.prices if said.about(zone, type)), _usual(zone, type))

    def with_room(self, given: Mapping[str, Any], spot: bool) -> Market:
        """`{ZONE: {TYPE: machines}}`; null: any number again. ValueError when it is not that."""
        told = []
        for zone, type, number in _pairs("spot_capacity" if spot else "capacity", given):
            if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
                raise ValueError(f"the capacity for {type} in {zone} is {number!r}; it must be a whole number of machines, or null")
            told.append(_Said(zone, type, 1 << 30 if number is None else number))
        before = self.spot if spot else self.on_demand
        return Market(self.on_demand, (*told, *before), self.prices) if spot else Market((*told, *before), self.spot, self.prices)

    def with_prices(self, given: Mapping[str, Any]) -> Market:
        """`{ZONE: {TYPE: "0.31"}}`, USD per hour as text. ValueError when it is not that."""
        told = tuple(_Said(zone, type, micro_usd(text)) for zone, type, text in _pairs("spot_price_usd", given))
        return Market(self.on_demand, self.spot, (*told, *self.prices))


def micro_usd(text: object) -> int:
    """`"0.31"` -> 310000. ValueError for anything that is no price."""
    found = re.fullmatch(r"(\d{1,6})(?:\.(\d{1,6})0*)?", str(text)) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f'{text!r} is not a price; write USD per hour as text, such as "0.31"')
    return int(found[1]) * MICRO + int((found[2] or "").ljust(6, "0"))


def usd(micro: int) -> str:
    """310000 -> "0.310000", as EC2 writes spot prices."""
    return f"{micro // MICRO}.{micro % MICRO:06d}"


def _pairs(name: str, given: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    if not all(isinstance(types, Mapping) for types in given.values()):
        raise ValueError(f"{name} is {{ZONE: {{TYPE: value}}}}; both may be patterns")
    return [(zone, type, value) for zone, types in given.items() for type, value in types.items()]


@cache
def _list_prices() -> dict[str, int]:
    table = json.loads((files("provisioner") / "providers" / "aws_catalog.json").read_text())
    return {row["type"]: row["microUsdPerHour"] for row in table["types"] if row.get("microUsdPerHour")}


def _usual(zone: str, type: str) -> int:
    percent = 33 + hashlib.sha256(f"{zone}/{type}".encode()).digest()[0] % 17
    return _list_prices().get(type, _UNLISTED) * percent // 100 // 100 * 100  # four decimals, as the market has
