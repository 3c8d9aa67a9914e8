"""What the rehearsal says about prices, quotas and the spot market, asked by boto3 and by the provider itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from provisioner.errors import RefusedError
from provisioner.model import Requirements
from provisioner.providers import aws_types
from provisioner.providers.aws import AwsProvider
from provisioner.rehearsal import price_list
from tests.rehearsal_endpoint.conftest import Cloud, code_of

LINUX = {"operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used"}
G, G_SPOT = "L-DB2E81BA", "L-3819A6DF"


def products(cloud: Cloud, service: str = "AmazonEC2", **wanted: str) -> list[dict[str, Any]]:
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
    pages = cloud.service("pricing").get_paginator("get_products").paginate(ServiceCode=service, Filters=filters)
    return [json.loads(text) for page in pages for text in page["PriceList"]]


def dollars(product: dict[str, Any]) -> str:
    (term,) = product["terms"]["OnDemand"].values()
    (rate,) = term["priceDimensions"].values()
    return str(rate["pricePerUnit"]["USD"])


def provider(cloud: Cloud, *regions: str) -> AwsProvider:
    return AwsProvider("us-east-1", endpoint=cloud.rehearsal.endpoint, regions=regions)


def actions(cloud: Cloud) -> list[str]:
    return [entry["action"] for entry in cloud.rehearsal._ask("GET", "log")]


def test_the_price_list_has_the_snapshots_price_among_those_that_a_careless_filter_catches(cloud: Cloud) -> None:
    (one,) = products(cloud, instanceType="g6.xlarge", regionCode="us-east-1", **LINUX)
    assert dollars(one) == "0.8048000000" and "SIMULATED" in one["product"]["attributes"]["note"]
    every = products(cloud, instanceType="g6.xlarge", regionCode="us-east-1")
    assert len(every) == 4 and "0.0000000000" in {dollars(product) for product in every}
    assert products(cloud, instanceType="p5e.48xlarge", regionCode="us-east-1") == []


def test_the_price_list_comes_in_pages_and_is_served_in_three_regions(cloud: Cloud) -> None:
    assert len(products(cloud, regionCode="us-east-1")) > 200
    assert code_of(cloud.service("pricing", "us-west-2").get_products, ServiceCode="AmazonEC2") == "UnrecognizedClientException"
    with pytest.raises(Exception, match="regionCode"):
        products(cloud)


def test_other_regions_have_prices_of_their_own_and_the_same_every_time(cloud: Cloud) -> None:
    (there,) = products(cloud, instanceType="g6.xlarge", regionCode="eu-west-1", **LINUX)
    assert dollars(there) > "0.8048" and price_list._there(804_800, "eu-west-1") == price_list._there(804_800, "eu-west-1")


def test_what_the_quotas_tell_is_what_launches_are_held_to(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"limits": {"us-east-1": {G: 3}}}])
    told = cloud.service("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=G)["Quota"]
    assert told["Value"] == 3 and "G and VT" in told["QuotaName"]
    assert code_of(cloud.ec2.run_instances, **cloud.params()) == "VcpuLimitExceeded"
    with pytest.raises(RefusedError, match=f"takes 4 vCPUs on demand; the quota {G} in us-east-1 is 3") as refused:
        provider(cloud).offers(Requirements(types=("g6.xlarge",)))
    assert "request-service-quota-increase" in refused.value.next
    unknown = cloud.service("service-quotas").get_service_quota
    assert code_of(unknown, ServiceCode="ec2", QuotaCode="L-0") == "NoSuchResourceException"


def test_what_runs_counts_against_the_quota(cloud: Cloud) -> None:
    before = provider(cloud).survey(Requirements(types=("g6.xlarge",))).lines[0].quota.used
    cloud.launch()
    after = provider(cloud).survey(Requirements(types=("g6.xlarge",))).lines[0].quota.used
    assert before is not None and after == before + 4


def test_the_spot_market_asks_the_same_of_its_history_and_of_a_launch(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"spot_price_usd": {"us-east-1b": {"g6.xlarge": "0.5"}}}])
    need = Requirements(types=("g6.xlarge",), purchase=("spot",), spot_max_micro_usd=450_000)
    seen = provider(cloud).survey(need)
    assert "us-east-1b" not in {line.offer.zone for line in seen.lines} and len(seen.lines) == 4
    (out,) = seen.out
    assert out.zone == "us-east-1b" and "asks $0.50/h, above the ceiling of $0.45/h" in out.why
    assert all(line.history and line.history.low <= line.history.now <= line.history.high for line in seen.lines)
    spot = {"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.45"}}
    placed = {"Placement": {"AvailabilityZone": "us-east-1b"}, "InstanceMarketOptions": spot}
    assert code_of(cloud.ec2.run_instances, **cloud.params(**placed)) == "SpotMaxPriceTooLow"


def test_the_history_is_paged_and_begins_with_what_stood_then(cloud: Cloud) -> None:
    now = datetime.now(UTC)
    asked: dict[str, Any] = {
        "InstanceTypes": ["g6.xlarge"],
        "ProductDescriptions": ["Linux/UNIX"],
        "StartTime": now - timedelta(days=2),
        "EndTime": now,
    }
    pages = list(cloud.ec2.get_paginator("describe_spot_price_history").paginate(**asked, PaginationConfig={"PageSize": 3}))
    every = [entry for page in pages for entry in page["SpotPriceHistory"]]
    assert len(pages) > 3 and {entry["ProductDescription"] for entry in every} == {"Linux/UNIX"}
    in_a = [entry["Timestamp"] for entry in every if entry["AvailabilityZone"] == "us-east-1a"]
    assert in_a == sorted(in_a, reverse=True) and in_a[-1] <= asked["StartTime"] < in_a[-2]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0.0)
    yield


BROKEN = [
    {"kind": "error", "code": "AccessDeniedException"},
    {"kind": "error", "code": "ThrottlingException"},
    {"kind": "error", "code": "InternalError"},
    {"kind": "reset"},
    {"kind": "garbled"},
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.get("code", broken["kind"]))
def test_without_the_price_list_the_snapshot_stands_in_and_says_so(cloud: Cloud, quick: None, broken: dict[str, Any]) -> None:
    cloud.rehearsal.faults([{"action": "GetProducts", "times": None, **broken}])
    seen = provider(cloud, "us-west-2").survey(Requirements(types=("g6.xlarge",)))
    assert {line.offer.region for line in seen.lines} == {"us-east-1"}
    assert {line.offer.price.as_of for line in seen.lines} == {"2026-07-20"}
    assert any("SNAPSHOT" in note for note in seen.notes) and any("price list was not read" in note for note in seen.notes)
    assert any(out.region == "us-west-2" and out.kind == "price" for out in seen.out)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.get("code", broken["kind"]))
def test_a_quota_that_nobody_tells_is_unknown_and_never_ok(cloud: Cloud, quick: None, broken: dict[str, Any]) -> None:
    cloud.rehearsal.faults([{"action": "GetServiceQuota", "times": None, **broken}])
    lines = provider(cloud).survey(Requirements(types=("g6.xlarge",))).lines
    assert lines and {line.quota.allows(4) for line in lines} == {None} and all(line.quota.why for line in lines)


def test_a_use_that_nobody_tells_is_unknown_and_never_nothing(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"action": "DescribeInstances", "kind": "error", "code": "UnauthorizedOperation", "times": None}])
    lines = provider(cloud).survey(Requirements(types=("g6.xlarge",))).lines
    assert lines and {(line.quota.used, line.quota.allows(4)) for line in lines} == {(None, None)}


def test_a_market_that_nobody_tells_is_no_cheap_one(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"action": "DescribeSpotPriceHistory", "kind": "error", "code": "UnauthorizedOperation", "times": None}])
    seen = provider(cloud).survey(Requirements(types=("g6.xlarge",), purchase=("spot",)))
    assert {line.offer.market for line in seen.lines} == {None} and {line.expected for line in seen.lines} == {804_800}
    assert any("what the spot market asks" in note for note in seen.notes)


def test_without_types_from_ec2_the_catalogs_do(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"action": "DescribeInstanceTypes", "kind": "error", "code": "UnauthorizedOperation"}])
    seen = provider(cloud).survey(Requirements(gpu="L4", vram_mib=20480))
    assert seen.asked and seen.lines and any("so the catalog does" in note for note in seen.notes)


def test_where_nobody_can_be_asked_nothing_more_is_sent(cloud: Cloud) -> None:
    before = len(actions(cloud))
    cloud.rehearsal.faults([{"action": "*", "kind": "error", "code": "ExpiredToken", "times": None}])
    seen = provider(cloud, "us-west-2").survey(Requirements(types=("g6.xlarge",)))
    assert not seen.asked and [line.offer.zone for line in seen.lines] == [None] and "AWS was not asked" in seen.notes[0]
    assert actions(cloud)[before:] == ["DescribeInstanceTypes"]


@pytest.mark.parametrize("closed", ["us-east-1", "us-west-2"])
def test_a_region_that_is_closed_to_the_account_says_nothing_about_the_others(cloud: Cloud, closed: str) -> None:
    cloud.rehearsal.faults([{"action": "Describe*", "kind": "error", "code": "AuthFailure", "region": closed, "times": None}])
    seen = provider(cloud, "us-west-2", "us-east-2").survey(Requirements(types=("g6.xlarge",)))
    assert {line.offer.region for line in seen.lines if line.offer.zone} == {"us-east-1", "us-west-2", "us-east-2"} - {closed}
    assert any(f"AWS did not answer about {closed}" in note and "botocore" not in note for note in seen.notes)
    assert not [line for line in seen.lines if line.offer.region == closed and line.quota.allows(4)]


def test_a_region_that_is_misspelt_is_named_with_those_it_may_mean(cloud: Cloud) -> None:
    seen = provider(cloud, "us-esat-1").survey(Requirements(types=("g6.xlarge",)))
    assert [note for note in seen.notes if "botocore knows no region us-esat-1" in note and "us-east-1" in note.split("no region")[-1]]


def test_two_regions_are_offered_each_with_what_stands_beside_the_machine_there(cloud: Cloud) -> None:
    lines = provider(cloud, "us-west-2").survey(Requirements(types=("g6.xlarge",))).lines
    by_region = {line.offer.region: line.offer for line in lines}
    assert set(by_region) == {"us-east-1", "us-west-2"}
    here, there = by_region["us-east-1"].beside, by_region["us-west-2"].beside
    assert here and there and here.disk.micro_usd == 80_000 < there.disk.micro_usd
    assert by_region["us-west-2"].price.micro_usd_per_hour > 804_800


def test_parts_of_an_l4_are_told_by_ec2_and_never_offered(cloud: Cloud) -> None:
    seen = provider(cloud).survey(Requirements(gpu="L4"))
    assert not [line for line in seen.lines if line.offer.type.startswith(("g6f", "gr6f"))]
    assert {out.type: out.why[:10] for out in seen.out if out.kind == "part"}["g6f.large"] == "it has 1/8"


def test_the_catalog_is_refreshed_from_an_account_and_keeps_what_only_a_machine_can_say(cloud: Cloud) -> None:
    import importlib.util
    from pathlib import Path

    path = Path(__file__).parents[2] / "tools" / "refresh_catalog.py"
    found = importlib.util.spec_from_file_location("refresh_catalog", path)
    assert found is not None and found.loader is not None
    tool = importlib.util.module_from_spec(found)
    found.loader.exec_module(tool)
    made = json.loads(tool.from_account(None, cloud.rehearsal.endpoint))
    old = {row["type"]: row for row in aws_types.catalog()["types"]}
    new = {row["type"]: row for row in made["types"]}
    assert set(new) >= set(old) and new["p3.2xlarge"] == old["p3.2xlarge"]  # EC2 here does not have it any more
    today = datetime.now(UTC).date().isoformat()
    assert new["g6.xlarge"]["priceAsOf"] == new["t3.medium"]["priceAsOf"] == today
    assert new["p5e.48xlarge"]["microUsdPerHour"] is None
    for name, row in new.items():
        if name in old:
            assert (row["smiMib"], row["smiVerified"]) == (old[name]["smiMib"], old[name]["smiVerified"])
            # The same machine, by EC2's word and by the table it was made from.
            for key in ("gpu", "gpus", "vcpus", "arch", "ec2Mib", "quotaCode", "gpuFraction"):
                assert row.get(key) == old[name].get(key) or key == "gpuFraction", (name, key)
