"""Make provisioner/providers/aws_catalog.json from a table of EC2 GPU types and their prices.

    python tools/refresh_catalog.py TABLE.csv > new.json                        from a table
    python tools/refresh_catalog.py --from-account [PROFILE] > new.json         from AWS itself, with your credentials
    mv new.json provisioner/providers/aws_catalog.json                          a commit of its own

From an account: what types there are, their vCPUs, memory and GPUs are EC2's (DescribeInstanceTypes), prices are those
of AWS's price list today. What the driver shows is nobody's to ask: it stays as it is, a new type has none, and a
figure that nobody verified stays marked. A type that is no longer sold in the region keeps its row and its date.

The table has one row per instance type with the columns named in `_row`; a cell that is empty is not known and
stays `null`, never zero. The few machines without a GPU, for drills, are listed here with their own source. Money
becomes whole micro-dollars on the way in. The result is sorted, so that a refresh shows as a readable diff.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

PRICES = (
    "karpenter-provider-aws pkg/providers/pricing/zz_generated.pricing_aws.go (made from the AWS price list; us-east-1, Linux, on-demand)"
)
SIZES = "karpenter-provider-aws instance-types reference; nvidia-smi totals as printed by real machines"

# Without a GPU: for drills of the guards, and for profiles that need none. Same price table, an earlier edition.
PLAIN = [
    {"type": "t3.nano", "vcpus": 2, "ramMib": 512, "microUsdPerHour": 5_200},
    {"type": "t3.medium", "vcpus": 2, "ramMib": 4096, "microUsdPerHour": 41_600},
    {"type": "t3.large", "vcpus": 2, "ramMib": 8192, "microUsdPerHour": 83_200},
    {"type": "t3.xlarge", "vcpus": 4, "ramMib": 16384, "microUsdPerHour": 166_400},
]
PLAIN_AS_OF = "2026-02-09"


def main(path: str) -> str:
    with open(path, newline="", encoding="utf-8") as table:
        rows = [_row(row) for row in csv.DictReader(table)]
    without_gpu = {"gpu": "", "gpus": 0, "smiMib": None, "ec2Mib": None, "smiVerified": False, "arch": "amd64"}
    rows += [{**row, **without_gpu, "priceAsOf": PLAIN_AS_OF, "quotaCode": "L-1216C47A"} for row in PLAIN]
    catalog = {
        "about": "EC2 types gpulease may offer. null means that nobody has written it down. Made by tools/refresh_catalog.py.",
        "region": "us-east-1",
        "priceSource": PRICES,
        "sizeSource": SIZES,
        "types": sorted(rows, key=lambda row: str(row["type"])),
    }
    return json.dumps(catalog, indent=1, sort_keys=True, ensure_ascii=True)


def from_account(profile: str | None, endpoint: str | None = None) -> str:
    """The catalog as it is, with what AWS says today. `endpoint` is a rehearsal's, for the test of this tool."""
    from datetime import UTC, datetime

    from cost import Price
    from provisioner.providers import aws_prices, aws_quotas, aws_types
    from provisioner.providers.aws_client import Account

    old = aws_types.catalog()
    region, today = old["region"], datetime.now(UTC).date()
    account = Account(region, profile, endpoint)
    served = aws_prices.served_in(region)
    assert served is not None, f"{region} has no price list"
    pricing = Account(served, profile, endpoint)
    rows = {row["type"]: dict(row) for row in old["types"]}
    plain = [row["type"] for row in old["types"] if not row["gpu"]]
    wanted = [{"Name": "instance-type", "Values": [*aws_types.FAMILIES, *plain]}]
    for page in account.pages("DescribeInstanceTypes", 100, Filters=wanted):
        types = aws_types.described(page.data)
        for said in page.data["InstanceTypes"]:
            type = types.get(said["InstanceType"])
            if type is None or not (type.gpu or type.name in plain):
                continue
            price = aws_prices.machine(pricing, region, type.name, today)
            row = rows.setdefault(type.name, {"smiMib": None, "smiVerified": False, "computeCapability": None, "nvmeGb": None})
            row |= {
                "type": type.name,
                "gpu": type.gpu,
                "gpus": type.gpus,
                "ec2Mib": type.ec2_mib,
                "vcpus": type.vcpus,
                "ramMib": said["MemoryInfo"]["SizeInMiB"],
                "arch": type.arch,
                "microUsdPerHour": price.micro_usd_per_hour if isinstance(price, Price) else None,
                "priceAsOf": price.as_of if isinstance(price, Price) else None,
                "quotaCode": aws_quotas.code_of(type.name, spot=False),
            }
            if type.part is not None:
                row["gpuFraction"] = str(type.part)
    source = f"AWS Pricing API, on-demand Linux, {region}, {today}; rows of an older date: {old['priceSource']}"
    catalog = {**old, "priceSource": source, "types": sorted(rows.values(), key=lambda row: str(row["type"]))}
    return json.dumps(catalog, indent=1, sort_keys=True, ensure_ascii=True)


def _row(row: dict[str, str]) -> dict[str, Any]:
    price = row["price_usd_hr_us_east_1_ondemand"]
    result: dict[str, Any] = {
        "type": row["instance_type"],
        "gpu": row["gpu"],
        "gpus": int(row["gpu_count"]),
        "smiMib": int(row["nvidia_smi_total_mib_each"]) if row["nvidia_smi_total_mib_each"] else None,
        "ec2Mib": int(row["ec2_gpu_memory_mib_each"]) if row.get("ec2_gpu_memory_mib_each") else None,
        "smiVerified": _verified(row),
        "computeCapability": row["compute_capability"],
        "vcpus": int(row["vcpus"]),
        "ramMib": int(row["ram_mib"]),
        "nvmeGb": int(row["local_nvme_gb"]) if row["local_nvme_gb"] else None,
        "arch": row["arch"],
        "microUsdPerHour": math.ceil(Decimal(price) * 1_000_000) if price else None,  # up: never too cheap
        "priceAsOf": row["price_generated_at"] or None,
        "quotaCode": row["quota_code_ondemand"].split()[0],
    }
    if row["gpu_fraction"]:
        result["gpuFraction"] = row["gpu_fraction"]
    if row["vllm_pypi_cu13_supported"] == "no":
        result["note"] = "too old for current CUDA 13 builds"
    return result


def _verified(row: dict[str, str]) -> bool:
    """Was the driver's figure read off a real machine's output, by the word of the table's own column?"""
    source = row.get("gpu_facts_source") or "not verified"
    doubts = ("not verified", "not re-verified", "general knowledge", "ec2 reports", "not known")
    of_the_memory = source.split(";")[0].lower()  # what stands behind it is about torch
    return bool(row["nvidia_smi_total_mib_each"]) and not any(doubt in of_the_memory for doubt in doubts)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--from-account"] and len(sys.argv) <= 3:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        print(from_account(sys.argv[2] if len(sys.argv) == 3 else None))
    elif len(sys.argv) == 2 and not sys.argv[1].startswith("-"):
        print(main(sys.argv[1]))
    else:
        sys.exit(__doc__)
