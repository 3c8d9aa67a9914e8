"""What could be rented, and for how much. Prices are never guessed."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from conftest import Wire

from cost import age_days
from provisioner.errors import RefusedError
from provisioner.model import Requirements
from provisioner.providers.aws import AwsProvider
from provisioner.providers.aws_offers import Place, Survey, survey
from provisioner.providers.aws_prices import Unknown, snapshot, snapshot_beside
from provisioner.providers.aws_types import catalog, known, misfit, same_gpu

TODAY = date(2026, 11, 25)


def place(need: Requirements, region: str = "us-east-1", today: date = TODAY) -> Place:
    """What is known of a region where nobody can be asked."""
    fits = [name for name, type in known().items() if misfit(type, need) is None]
    prices = {name: snapshot(region, name, today) for name in fits}
    return Place(region, known(), None, prices, snapshot_beside(region, today), None, {}, today=today)


def seen(need: Requirements, **how: Any) -> Survey:
    return survey([place(need, **how)], need)


def types(need: Requirements) -> list[str]:
    return [line.offer.type for line in seen(need).lines]


@pytest.mark.parametrize(
    ("wanted", "offered", "same"),
    [
        ("L4", "NVIDIA L4", True),
        ("nvidia l4", "NVIDIA L4", True),
        ("l4", "NVIDIA L40S", False),
        ("L40", "NVIDIA L40S", False),
        ("T4", "NVIDIA T4G (arm64 host)", False),
        ("Tesla T4", "NVIDIA T4", True),
        ("A10", "NVIDIA A10G", False),
        ("A100", "NVIDIA A100 40GB", True),
        ("a100-80gb", "NVIDIA A100 80GB", True),
        ("A100-80GB", "NVIDIA A100 40GB", False),
        ("RTX-PRO-6000", "NVIDIA RTX PRO 6000 Blackwell SE", True),
        ("rtxpro6000", "NVIDIA RTX PRO 6000 Blackwell SE", True),
        ("RTX PRO", "NVIDIA RTX PRO 4500 Blackwell SE", True),
        ("", "NVIDIA L4", False),
    ],
)
def test_a_gpu_has_many_spellings_and_is_still_one(wanted: str, offered: str, same: bool) -> None:
    assert same_gpu(wanted, offered) is same


def test_the_cheapest_that_fits_comes_first() -> None:
    assert types(Requirements(gpu="L4"))[:2] == ["g6.xlarge", "g6.2xlarge"]
    assert types(Requirements(gpu="L4", gpus=4))[0] == "g6.12xlarge"
    assert types(Requirements(vram_mib=40 * 1024))[0] == "g6e.xlarge"
    assert types(Requirements(gpus=8, gpu="h100")) == ["p5.48xlarge"]


def test_memory_is_what_the_driver_shows_with_two_percent_of_tolerance() -> None:
    assert "g6.xlarge" in types(Requirements(gpu="L4", vram_mib=23034 * 100 // 98))
    assert types(Requirements(gpu="L4", vram_mib=24 * 1024)) == []
    # Nobody has written down what this one shows, so it meets no need for memory.
    assert "g7.2xlarge" in types(Requirements()) and "g7.2xlarge" not in types(Requirements(vram_mib=1024))


def test_types_named_limit_the_offers_and_admit_other_architectures() -> None:
    assert types(Requirements(types=("g5.xlarge", "g6.xlarge"))) == ["g6.xlarge", "g5.xlarge"]
    assert "g5g.xlarge" not in types(Requirements(gpu="T4G")) and types(Requirements(types=("g5g.xlarge",))) == ["g5g.xlarge"]


def test_a_fraction_of_a_gpu_is_no_gpu() -> None:
    assert not [name for name in types(Requirements()) + types(Requirements(gpus=0)) if name.startswith(("g6f", "gr6f"))]


def test_machines_without_a_gpu_have_their_own_dated_price() -> None:
    assert types(Requirements(gpus=0)) == ["t3.medium", "t3.large", "t3.xlarge"]


def test_an_unknown_price_is_out_and_not_zero() -> None:
    need = Requirements(gpus=8, types=("p5e.48xlarge",))
    assert types(need) == [] and "no price is known for p5e.48xlarge" in seen(need).out[0].why
    assert "p5e.48xlarge" not in types(Requirements(gpus=8, gpu="H200"))
    elsewhere = seen(Requirements(gpu="L4"), region="eu-west-1")
    assert elsewhere.lines == () and {out.kind for out in elsewhere.out} >= {"price"}
    assert any("eu-west-1" in out.why for out in elsewhere.out)
    # Also where what stands beside the machine is known there.
    assert isinstance(snapshot("eu-west-1", "g6.xlarge", TODAY), Unknown)


def test_a_snapshot_says_its_age_and_is_none_after_a_year() -> None:
    need = Requirements(types=("g6.xlarge",))
    assert any(
        "SNAPSHOT of 2026-07-20, 10 days old" in note and "WARNING" not in note for note in seen(need, today=date(2026, 7, 30)).notes
    )
    assert any(note.startswith("WARNING") and "128 days old (more than 90" in note for note in seen(need).notes)
    assert types_at(need, date(2027, 7, 20)) == ["g6.xlarge"] and types_at(need, date(2027, 7, 21)) == []
    assert "366 days old" in seen(need, today=date(2027, 7, 21)).out[0].why


def types_at(need: Requirements, today: date) -> list[str]:
    return [line.offer.type for line in seen(need, today=today).lines]


def test_offers_name_the_zones_that_have_the_type(provider: AwsProvider, wire: Wire) -> None:
    found = provider.offers(Requirements(types=("g6.xlarge", "g5.xlarge")))
    assert [o.type for o in found] == sorted((o.type for o in found), reverse=True)  # g6 is cheaper than g5
    assert {o.zone for o in found if o.type == "g6.xlarge"} >= {"us-east-1a", "us-east-1b"}
    first = found[0]
    assert (first.gpu, first.gpus, first.vram_mib, first.vcpus, first.region) == ("NVIDIA L4", 1, 23034, 4, "us-east-1")
    assert first.price.micro_usd_per_hour == 804_800 and first.price.as_of == "2026-07-20" and "us-east-1" in first.price.source
    assert {r.action for r in wire.requests} >= {"DescribeInstanceTypes", "DescribeInstanceTypeOfferings", "GetProducts", "GetServiceQuota"}


@pytest.mark.parametrize("answer", ["403 UnauthorizedOperation", "400 InvalidAction"])
def test_without_an_answer_about_zones_offers_name_none(provider: AwsProvider, wire: Wire, answer: str) -> None:
    wire.fault("DescribeInstanceTypeOfferings", answer)
    assert [(o.type, o.zone) for o in provider.offers(Requirements(types=("g6.xlarge",)))] == [("g6.xlarge", None)]


def test_a_type_that_no_zone_has_is_refused_by_its_name(provider: AwsProvider) -> None:
    with pytest.raises(RefusedError, match=r"p3\.2xlarge in us-east-1: us-east-1 has no such type"):
        provider.offers(Requirements(types=("p3.2xlarge",)))  # moto's EC2 does not know it


def test_every_row_is_whole_and_dated() -> None:
    rows = catalog()["types"]
    assert len({row["type"] for row in rows}) == len(rows) > 60
    for row in rows:
        assert row["vcpus"] > 0 and row["gpus"] >= 0 and row["arch"] in ("amd64", "arm64"), row
        if row["microUsdPerHour"] is not None:
            assert row["microUsdPerHour"] > 0 and age_days(row["priceAsOf"], "2026-11-21") >= 0


def test_the_catalog_is_made_by_its_tool_from_a_table(tmp_path: Path) -> None:
    header = (
        "instance_type,gpu,gpu_count,gpu_fraction,nvidia_smi_total_mib_each,compute_capability,vcpus,ram_mib,local_nvme_gb,arch,"
        "price_usd_hr_us_east_1_ondemand,price_generated_at,quota_code_ondemand,vllm_pypi_cu13_supported"
    )
    table = tmp_path / "table.csv"
    rows = ["x9.large,NVIDIA X9,1,,,9.9,4,16384,,amd64,0.1234567,2026-01-01,L-1 (X),yes", "x9.huge,NVIDIA X9,8,,8,9.9,4,1,,amd64,,,L-1,no"]
    table.write_text("\n".join([header, *rows, ""]))
    tool = Path(__file__).parents[2] / "tools" / "refresh_catalog.py"
    made = json.loads(subprocess.run([sys.executable, tool, table], check=True, capture_output=True, text=True, timeout=30).stdout)
    found = {row["type"]: row for row in made["types"]}
    assert found["x9.large"]["microUsdPerHour"] == 123_457 and found["x9.large"]["smiMib"] is None
    assert found["x9.huge"]["microUsdPerHour"] is None
