"""Which EC2 types fit a need, and what each costs per hour.

The catalog is a dated file in the package (made by tools/refresh_catalog.py), so that offers can be shown without an
account; EC2 is asked only which zones have a type. A price that the catalog does not hold is not guessed: the type
is left out, and if nothing else fits, the refusal says that a price was missing. The prices are those of one region.

Memory is what nvidia-smi shows on real machines, not what the type's page says (an L4 is sold as 24 GB and shows
23034 MiB); a need is met with 2 % of tolerance, and a type whose figure nobody wrote down meets no need for memory.
Fractions of a GPU are never offered. This file must not send anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from cost import Price
from provisioner.errors import RefusedError
from provisioner.model import Offer, Requirements

TOLERANCE_PERCENT = 2


@cache
def catalog() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((files("provisioner.providers") / "aws_catalog.json").read_text(encoding="utf-8"))
    return data


def row_of(type: str) -> Mapping[str, Any] | None:
    """What the catalog says about one instance type."""
    return next((row for row in catalog()["types"] if row["type"] == type), None)


def fitting(need: Requirements, region: str) -> list[Mapping[str, Any]]:
    """The rows that fit, cheapest first. Empty: nothing fits. RefusedError: something fits, and its price is unknown."""
    if "on-demand" not in need.purchase:
        raise RefusedError("this provider rents on-demand machines only; the profile asks for spot", next="add on-demand to needs.purchase")
    if need.regions and region not in need.regions:
        return []
    if region != catalog()["region"]:
        raise RefusedError(
            f"no prices are known for EC2 in {region}",
            why=f"the price table of {newest()} is for {catalog()['region']}; a price is never guessed",
            next=f"use --region {catalog()['region']}",
        )
    rows = [row for row in catalog()["types"] if _fits(row, need)]
    priced = [row for row in rows if row["microUsdPerHour"] is not None and row["priceAsOf"]]
    if rows and not priced:
        names = ", ".join(row["type"] for row in rows)
        raise RefusedError(f"no price is known for {names} in {region}", why=f"the price table of {newest()} does not list it")
    return sorted(priced, key=lambda row: (row["microUsdPerHour"], row["type"]))


def offers(rows: Iterable[Mapping[str, Any]], region: str, zones: Mapping[str, list[str]] | None) -> list[Offer]:
    """One offer per row and zone; with `zones` not known, one per row and no zone named."""
    result = []
    for row in rows:
        price = Price(row["microUsdPerHour"], f"{catalog()['priceSource']}", row["priceAsOf"])
        for zone in [None] if zones is None else sorted(zones.get(row["type"], [])):
            result.append(
                Offer(
                    provider="aws",
                    region=region,
                    type=row["type"],
                    gpu=row["gpu"],
                    gpus=row["gpus"],
                    vram_mib=row["smiMib"],
                    vcpus=row["vcpus"],
                    price=price,
                    zone=zone,
                )
            )
    return result


def newest() -> str:
    """The day of the newest price in the catalog."""
    return max(str(row["priceAsOf"]) for row in catalog()["types"] if row["priceAsOf"])


def same_gpu(wanted: str, offered: str) -> bool:
    """ "L4", "nvidia l4" and "NVIDIA L4" are one; "L4" is not "L40S"; "A100" is both of its sizes, "A100 80GB" one."""
    have = _words(offered)
    # Whole words from the front, so that a shorter name means the family and never half a word.
    return "".join(_words(wanted)) in {"".join(have[:n]) for n in range(1, len(have) + 1)}


def _words(name: str) -> list[str]:
    return [word for word in re.findall(r"[a-z0-9]+", name.lower()) if word not in ("nvidia", "tesla")]


def _fits(row: Mapping[str, Any], need: Requirements) -> bool:
    named = row["type"] in need.types
    if need.types and not named:
        return False
    if row["gpus"] != need.gpus or row.get("gpuFraction"):
        return False
    if row["arch"] != "amd64" and not named:
        return False  # the default image and most wheels are x86-64
    if need.gpus == 0:
        return True
    if need.gpu is not None and not same_gpu(need.gpu, row["gpu"]):
        return False
    return need.vram_mib == 0 or (row["smiMib"] is not None and row["smiMib"] * 100 >= need.vram_mib * (100 - TOLERANCE_PERCENT))
