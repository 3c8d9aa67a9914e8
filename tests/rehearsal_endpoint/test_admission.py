"""Quota, price and room: what a launch meets before there is a machine, as state that stays until it is changed."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from provisioner.rehearsal.knobs import World
from provisioner.rehearsal.limits import USUAL, Limits, quota_of
from provisioner.rehearsal.market import Market, micro_usd, usd

from .conftest import Cloud, code_of

A, B = {"Placement": {"AvailabilityZone": "us-east-1a"}}, {"Placement": {"AvailabilityZone": "us-east-1b"}}


def spot(price: str = "", **more: Any) -> dict[str, Any]:
    options = {"SpotInstanceType": "one-time", **({"MaxPrice": price} if price else {})}
    return {"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": options}, **more}


def refused(cloud: Cloud, **launch: Any) -> tuple[str, int, str]:
    with pytest.raises(ClientError) as no:
        cloud.launch(**launch)
    response: Any = no.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Message"]


def test_a_zone_without_capacity_refuses_each_time_and_another_zone_has_some(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"capacity": {"us-east-1a": {"g6.xlarge": 0}}}])
    for _ in range(2):
        assert refused(cloud, **A)[:2] == ("InsufficientInstanceCapacity", 500)
    cloud.launch(**B)
    assert cloud.describe(cloud.launch())["Placement"]["AvailabilityZone"] != "us-east-1a"
    cloud.launch(**A, InstanceType="g6.2xlarge")
    cloud.rehearsal.faults([{"capacity": {"us-east-1a": {"g6.xlarge": None}}}])
    cloud.launch(**A)


def test_room_is_for_so_many_and_comes_back_when_a_machine_is_gone(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"capacity": {"us-east-1*": {"g6e.x*": 0}, "us-east-1a": {"g6e.2xlarge": 2}}}])
    two = cloud.ec2.run_instances(**cloud.params(**A, InstanceType="g6e.2xlarge", MaxCount=5))["Instances"]
    assert len(two) == 2, "as many as there are, at least MinCount"
    assert refused(cloud, **A, InstanceType="g6e.2xlarge")[0] == "InsufficientInstanceCapacity"
    assert "us-east-1 " in refused(cloud, InstanceType="g6e.xlarge")[2]
    cloud.ec2.terminate_instances(InstanceIds=[two[0]["InstanceId"]])
    cloud.until(two[0]["InstanceId"], "terminated")
    cloud.launch(**A, InstanceType="g6e.2xlarge")


def test_spot_capacity_is_counted_apart(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"spot_capacity": {"*": {"g6.xlarge": 0}}}])
    code, status, words = refused(cloud, **spot())
    assert (code, status) == ("InsufficientInstanceCapacity", 500) and "Spot" in words
    cloud.launch()


def test_vcpus_are_counted_per_family_and_way_to_buy_and_the_limit_is_named(cloud: Cloud) -> None:
    west = cloud.service("ec2", "eu-central-1")
    image = west.describe_images(Owners=["898082745236"])["Images"][0]["ImageId"]
    cloud.rehearsal.faults([{"limits": {"eu-central-1": {"L-DB2E81BA": 12, "L-3819A6DF": 4}}}])
    first = west.run_instances(**cloud.params(ImageId=image))["Instances"][0]["InstanceId"]  # 4 of 12
    west.run_instances(**cloud.params(ImageId=image, InstanceType="g6.2xlarge"))  # 12 of 12
    with pytest.raises(ClientError, match=r"VcpuLimitExceeded.*current vCPU limit of 12 allows"):
        west.run_instances(**cloud.params(ImageId=image))
    west.run_instances(**cloud.params(ImageId=image, **spot()))
    assert code_of(west.run_instances, **cloud.params(ImageId=image, **spot())) == "MaxSpotInstanceCountExceeded"
    west.run_instances(**cloud.params(ImageId=image, InstanceType="t3.micro"))
    cloud.launch()  # another region has its own
    west.terminate_instances(InstanceIds=[first])
    west.get_waiter("instance_terminated").wait(InstanceIds=[first], WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    west.run_instances(**cloud.params(ImageId=image))


def test_a_ceiling_below_the_market_is_refused_and_one_at_it_is_not(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"spot_price_usd": {"us-east-1a": {"g6.*": "0.31"}, "us-east-1b": {"g6.*": "0.29"}}}])
    assert refused(cloud, **spot("0.3099"), **A)[:2] == ("SpotMaxPriceTooLow", 400)
    assert "0.310000" in refused(cloud, **spot("0.01"), **A)[2]
    cloud.launch(**spot("0.31"), **A)
    found = cloud.describe(cloud.launch(**spot("0.295"), Placement={"AvailabilityZone": "us-east-1b"}))
    assert found["Placement"]["AvailabilityZone"] == "us-east-1b"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"MaxPrice": "cheap"}, "InvalidParameterValue"),
        ({"ValidUntil": "2030-01-01T00:00:00Z"}, "InvalidParameterCombination"),
        ({"InstanceInterruptionBehavior": "stop"}, "InvalidParameterCombination"),
    ],
)
def test_a_one_time_request_cannot_have_everything(cloud: Cloud, options: dict[str, str], code: str) -> None:
    market = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time", **options}}
    assert refused(cloud, InstanceMarketOptions=market)[0] == code


def test_a_type_counts_against_the_quota_of_its_family() -> None:
    codes = {type: (quota_of(type, False), quota_of(type, True)) for type in ("g6.xlarge", "gr6f.4xlarge", "p4d.24xlarge", "p5en.48xlarge")}
    assert [tuple(quota.code if quota else "" for quota in pair) for pair in codes.values()] == [
        ("L-DB2E81BA", "L-3819A6DF"),
        ("L-DB2E81BA", "L-3819A6DF"),
        ("L-417A185B", "L-7212CCBC"),
        ("L-417A185B", "L-C4BD4855"),
    ]
    assert quota_of("m7i.large", False).code == "L-1216C47A" and quota_of("u-6tb1.metal", False) is None  # type: ignore[union-attr]


def test_limits_are_per_region_or_for_all() -> None:
    limits = Limits().changed({"L-DB2E81BA": 8}).changed({"us-east-1": {"L-DB2E81BA": 0}})
    assert (limits.value("us-east-1", "L-DB2E81BA"), limits.value("us-west-2", "L-DB2E81BA")) == (0, 8)
    assert limits.value("us-west-2", "L-417A185B") == USUAL


def test_the_market_asks_the_same_each_time_and_less_than_the_list_price() -> None:
    market = Market()
    price = market.spot_price("us-east-1a", "g6.xlarge")
    assert price == Market().spot_price("us-east-1a", "g6.xlarge") and 804_800 // 4 < price < 804_800 // 2
    assert price % 100 == 0
    assert (micro_usd("0.31"), micro_usd("12"), usd(310_000)) == (310_000, 12_000_000, "0.310000")


@pytest.mark.parametrize(
    "wrong",
    [
        {"limits": {"L-0": 1}},
        {"limits": {"L-DB2E81BA": -1}},
        {"limits": {"us-east-1": {"L-DB2E81BA": 1.5}}},
        {"capacity": {"us-east-1a": 0}},
        {"capacity": {"us-east-1a": {"g6.xlarge": "none"}}},
        {"spot_price_usd": {"*": {"*": 0.3}}},
        {"spot": {"notice_s": 2}},
        {"spot": {"interrupt_after_s": 1, "reason": "whim"}},
        {"spot": {"interrupt_after_s": "soon"}},
        {"capacity": {}, "kind": "error"},
    ],
)
def test_a_knob_that_is_not_understood_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        World().changed(wrong)
