"""Make provisioner/providers/aws_catalog.json from a table of EC2 GPU types and their prices.

    python tools/refresh_catalog.py TABLE.csv > provisioner/providers/aws_catalog.json

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
from typing import Any

PRICES = (
    "karpenter-provider-aws pkg/providers/pricing/zz_generated.pricing_aws.go (made from the AWS price list; us-east-1, Linux, on-demand)"
)
SIZES = "karpenter-provider-aws instance-types reference; nvidia-smi totals as printed by real machines"

# Without a GPU: for drills of the guards, and for profiles that need none. Same price table, an earlier edition.
PLAIN = [
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
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(main(sys.argv[1]))
