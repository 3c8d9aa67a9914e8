"""Cost Explorer as the rehearsal has it: what its machines would have cost, by resource. SIMULATED.

A machine is billed from its birth until its end was asked for, at least a minute, at the rehearsal's own price per hour, all of
it on the day it was born. Figures are there at once and never estimated; AWS needs two days. Must not know moto.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from provisioner.rehearsal import price_list
from provisioner.rehearsal.truth import Truth
from provisioner.rehearsal.wire import Call, Refusal, Reply, json_answer


def service(truth: Truth) -> Callable[[Call], Reply]:
    def answer(call: Call) -> Reply:
        if call.action != "GetCostAndUsageWithResources":
            raise Refusal("UnsupportedOperation", f"the rehearsal has no ce:{call.action}")
        wanted = set(_wanted(call.document.get("Filter", {})))
        groups = [
            {"Keys": [id], "Metrics": {"UnblendedCost": {"Amount": str(cost), "Unit": "USD"}}}
            for id, cost in _billed(truth)
            if id in wanted
        ]
        period = call.document.get("TimePeriod", {})
        return json_answer({"ResultsByTime": [{"TimePeriod": period, "Total": {}, "Groups": groups, "Estimated": False}]})

    return answer


def _wanted(filter: Mapping[str, Any]) -> Iterator[str]:
    for one in filter.get("And", [filter]):
        dimension = one.get("Dimensions", {})
        if dimension.get("Key") == "RESOURCE_ID":
            yield from map(str, dimension.get("Values", []))


def _billed(truth: Truth) -> Iterator[tuple[str, Decimal]]:
    for entry in truth.tell():
        if entry["class"] == "instance":
            ended = _seconds(entry["asked"]) or _seconds(entry["gone"]) or time.time()
            seconds = max(60, round(ended - (_seconds(entry["born"]) or ended)))
            yield entry["id"], Decimal(price_list.hourly(str(entry["type"]), str(entry["region"]))) * seconds / 3600 / 1_000_000


def _seconds(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC).timestamp()
