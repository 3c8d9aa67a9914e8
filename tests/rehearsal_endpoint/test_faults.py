"""Faults of each kind, as an SDK sees them, and what exists afterwards."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError
from botocore.parsers import ResponseParserError

from provisioner.rehearsal.faults import Fault, Plan

from .conftest import Cloud, code_of, wait_for

_LISTINGS = ["instances", "instance_status", "volumes", "network_interfaces", "security_groups", "images", "addresses"]
_LISTINGS += ["spot_instance_requests", "key_pairs", "launch_templates", "snapshots", "instance_type_offerings"]
_LISTINGS += ["availability_zones", "subnets", "capacity_reservations", "placement_groups", "fleets", "instance_connect_endpoints"]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("RequestLimitExceeded", 503),
        ("InternalError", 500),
        ("ServiceUnavailable", 503),
        ("InsufficientInstanceCapacity", 500),
        ("VcpuLimitExceeded", 400),
        ("UnauthorizedOperation", 403),
        ("ExpiredToken", 403),
        ("RequestExpired", 400),
    ],
)
def test_a_refusal_has_ec2s_code_and_status_and_makes_nothing(cloud: Cloud, code: str, status: int) -> None:
    cloud.rehearsal.faults([{"action": "RunInstances", "kind": "error", "code": code}])
    with pytest.raises(ClientError) as refused:
        cloud.launch(lease=f"r-{code}")
    response: Any = refused.value.response
    assert response["Error"]["Code"] == code and response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert response["ResponseMetadata"]["RequestId"] and response["Error"]["Message"]
    assert cloud.found(f"r-{code}") == []


def test_an_error_can_come_after_the_effect(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"action": "RunInstances", "kind": "error", "code": "InternalError", "effect": True}])
    assert code_of(cloud.ec2.run_instances, **cloud.params(lease="r-after")) == "InternalError"
    assert len(cloud.found("r-after")) == 1


def test_a_reset_connection_made_nothing(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"action": "RunInstances", "kind": "reset"}])
    with pytest.raises(ConnectionClosedError):
        cloud.launch(lease="r-reset")
    assert cloud.found("r-reset") == []


def test_a_lost_answer_leaves_a_machine_that_listing_finds(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"action": "RunInstances", "kind": "lost"}])
    params = cloud.params(lease="r-lost", ClientToken="lost")
    with pytest.raises(ConnectionClosedError):
        cloud.ec2.run_instances(**params)
    found = cloud.found("r-lost")
    assert len(found) == 1
    assert cloud.ec2.run_instances(**params)["Instances"][0]["InstanceId"] == found[0]["InstanceId"]


def test_a_lost_answer_to_terminate_still_terminates(cloud: Cloud) -> None:
    instance = cloud.launch()
    cloud.rehearsal.faults([{"action": "TerminateInstances", "kind": "lost"}])
    with pytest.raises(ConnectionClosedError):
        cloud.ec2.terminate_instances(InstanceIds=[instance])
    cloud.until(instance, "terminated")


@pytest.mark.parametrize("effect", [False, True])
def test_a_call_that_hangs_times_out_and_may_or_may_not_have_worked(cloud: Cloud, effect: bool) -> None:
    impatient = cloud.service("ec2", read_timeout=0.2)
    cloud.rehearsal.faults([{"action": "RunInstances", "kind": "hang", "seconds": 0.5, "effect": effect}])
    lease = f"r-hang-{effect}"
    with pytest.raises(ReadTimeoutError):
        impatient.run_instances(**cloud.params(lease=lease))
    assert len(cloud.found(lease)) == int(effect)


def test_a_slow_answer_is_right_and_late(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"action": "Describe*", "kind": "slow", "seconds": 0.2}])
    begun = time.monotonic()
    assert cloud.found("r-nobody") == []
    assert time.monotonic() - begun >= 0.2


def test_a_garbled_answer_cannot_be_read_and_the_machine_exists(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"action": "RunInstances", "kind": "garbled"}])
    with pytest.raises(ResponseParserError):
        cloud.launch(lease="r-garbled")
    assert len(cloud.found("r-garbled")) == 1


def test_a_fault_lets_some_calls_pass_and_happens_so_often(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"action": "DescribeVolumes", "kind": "error", "code": "RequestLimitExceeded", "after": 1, "times": 2}])
    cloud.ec2.describe_volumes()
    for _ in range(2):
        assert code_of(cloud.ec2.describe_volumes) == "RequestLimitExceeded"
    cloud.ec2.describe_volumes()


def test_every_protocol_is_refused_in_its_own_shape(cloud: Cloud) -> None:
    expired = {"kind": "error", "code": "ExpiredTokenException", "status": 400}
    cloud.rehearsal.faults([{"action": "GetParameter", **expired}, {"action": "GetCallerIdentity", **expired, "code": "ExpiredToken"}])
    assert code_of(cloud.service("ssm").get_parameter, Name="/aws/service/x") == "ExpiredTokenException"
    assert code_of(cloud.service("sts").get_caller_identity) == "ExpiredToken"
    assert cloud.service("sts").get_caller_identity()["Account"] == "123456789012"
    for service, call in (("pricing", "describe_services"), ("events", "list_rules"), ("ec2", "describe_volume_status")):
        assert code_of(getattr(cloud.service(service), call)) == "UnsupportedOperation"


@pytest.mark.parametrize(
    "call",
    _LISTINGS,
)
def test_a_filter_nobody_knows_is_refused_even_when_there_is_nothing_to_filter(cloud: Cloud, call: str) -> None:
    describe = getattr(cloud.service("ec2", "eu-west-1"), f"describe_{call}")
    assert code_of(describe, Filters=[{"Name": "bogus", "Values": ["x"]}]) == "InvalidParameterValue"


def test_a_fault_that_is_not_understood_is_refused_and_arms_nothing(cloud: Cloud) -> None:
    for wrong in ({"action": "X", "kind": "explode"}, {"action": "X", "kind": "lost", "often": 2}, {"timing": {"lunch_s": 1}}):
        with pytest.raises(ValueError):
            cloud.rehearsal.faults([{"action": "DescribeVolumes", "kind": "error"}, wrong])
    cloud.ec2.describe_volumes()


def test_host_faults_reach_machines_that_come_and_machines_that_are_there(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"host": {"no_gpu": True}}])
    instance = cloud.launch()
    heard = cloud.state / "hosts" / instance / "heard"
    wait_for(heard.exists)
    assert json.loads(heard.read_text().splitlines()[0])["faults"] == {"no_gpu": True}
    cloud.rehearsal.faults([{"host": {"answers": "garbage"}}])
    wait_for(lambda: len(heard.read_text().splitlines()) > 1)
    assert json.loads(heard.read_text().splitlines()[1])["faults"]["answers"] == "garbage"


def test_a_plan_is_used_up_in_order_and_per_zone() -> None:
    plan = Plan()
    plan.add([{"action": "Run*", "kind": "lost", "zone": "a", "times": None}, {"action": "*", "kind": "reset", "times": 2, "after": 1}])
    assert [plan.match("RunX", "r", "a"), plan.match("RunX", "r", "a")] == [
        Fault.read({"action": "Run*", "kind": "lost", "zone": "a", "times": None})
    ] * 2
    kinds = [fault.kind if (fault := plan.match("RunX", "r", "b")) else None for _ in range(4)]
    assert kinds == [None, "reset", "reset", None]
    assert plan.closed_zones("RunX", "r") == {"a"}
