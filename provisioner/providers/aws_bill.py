"""What AWS billed for machines, from Cost Explorer, by the day and by resource. Only questions; each costs a cent.

Cost Explorer has to be switched on for the account, and its resource level for EC2 besides; it shows fourteen days back, and
figures settle within about two days (until then AWS calls them estimated). It is served in one region.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from provisioner.errors import ProviderError
from provisioner.model import Json
from provisioner.providers.aws_client import Account

SERVED_IN = "us-east-1"
REACHES_BACK = timedelta(days=14)
COMPUTE = "Amazon Elastic Compute Cloud - Compute"
MOST_PAGES = 50


def billed(account: Account, machines: Sequence[str], begins: datetime, ends: datetime) -> dict[str, Json]:
    """Cost Explorer's answer about those machines on those days, as it came."""
    first, last = begins.astimezone(UTC).date(), ends.astimezone(UTC).date() + timedelta(days=1)
    period = {"Start": first.isoformat(), "End": last.isoformat()}
    service: dict[str, Any] = {"Dimensions": {"Key": "SERVICE", "Values": [COMPUTE]}}
    resource: dict[str, Any] = {"Dimensions": {"Key": "RESOURCE_ID", "Values": sorted(machines)}}
    asked: dict[str, Any] = {
        "TimePeriod": period,
        "Granularity": "DAILY",
        "Filter": {"And": [service, resource]},
        "Metrics": ["UnblendedCost"],
        "GroupBy": [{"Type": "DIMENSION", "Key": "RESOURCE_ID"}],
    }
    results: list[Json] = []
    requests: list[Json] = []
    date: str | None = None
    for _ in range(MOST_PAGES):
        answer = account.ask("GetCostAndUsageWithResources", service="ce", **asked)
        results += [
            {name: one[name] for name in ("TimePeriod", "Groups", "Estimated") if name in one} for one in answer.data["ResultsByTime"]
        ]
        requests.append(answer.request_id)
        date = answer.date or date
        if not (token := answer.data.get("NextPageToken")):
            break
        asked["NextPageToken"] = token
    else:
        raise ProviderError("Cost Explorer gave more pages than a run can have")
    if date is None:
        raise ProviderError("Cost Explorer's answer has no date")
    return {"period": period, "requestIds": requests, "resources": sorted(machines), "results": results, "retrievedAt": date}
