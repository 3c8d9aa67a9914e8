"""No for other reasons than the machine's: not allowed, too often, too late."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from provisioner.rehearsal.denial import decode, denied, encode
from provisioner.rehearsal.throttle import Buckets, rates
from provisioner.rehearsal.wire import Call, Refusal

from .conftest import Cloud, code_of

_MARK = "Encoded authorization failure message: "


def test_a_denied_launch_carries_an_encoded_message_that_sts_can_read(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"action": "RunInstances", "kind": "error", "code": "UnauthorizedOperation"}])
    with pytest.raises(ClientError) as refused:
        cloud.launch()
    error: Any = refused.value.response
    assert error["Error"]["Code"] == "UnauthorizedOperation" and error["ResponseMetadata"]["HTTPStatusCode"] == 403
    words, _, blob = error["Error"]["Message"].partition(_MARK)
    assert "is not authorized to perform: ec2:RunInstances" in words and len(blob) > 100
    told = json.loads(cloud.service("sts").decode_authorization_message(EncodedMessage=blob)["DecodedMessage"])
    assert told["allowed"] is False and told["context"]["action"] == "ec2:RunInstances"
    broken = cloud.service("sts").decode_authorization_message
    for wrong in ("nonsense!", blob[:-20], "AAAA"):
        assert code_of(broken, EncodedMessage=wrong) == "InvalidAuthorizationMessageException"


def test_each_protocol_denies_in_its_own_words() -> None:
    codes = {
        ("ec2", "ec2"): ("UnauthorizedOperation", 403),
        ("iam", "query"): ("AccessDenied", 403),
        ("scheduler", "json"): ("AccessDeniedException", 400),
    }
    for (service, protocol), expected in codes.items():
        no = denied(Call(service, "us-east-1", "X", {}, protocol, b""), "arn:aws:iam::1:user/a", resource="arn:r")
        assert (no.code, no.status) == expected and f"{service}:X on resource: arn:r" in no.message
        assert (_MARK in no.message) == (service == "ec2")
    assert decode(encode("a", "ec2:X", "*"))["context"]["resource"] == "*"
    with pytest.raises(Refusal):
        decode("ünreadable")


def test_a_burst_is_let_through_and_the_rest_is_throttled_until_time_has_passed(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"throttle": {"DescribeVolumes": {"burst": 3, "per_s": 2}}}])

    def ask(_: int) -> str:
        try:
            cloud.ec2.describe_volumes()
        except ClientError as e:
            code: str = e.response["Error"]["Code"]  # type: ignore[typeddict-item]
            return code
        return "answered"

    with ThreadPoolExecutor(4) as threads:
        got = list(threads.map(ask, range(12)))
    assert 3 <= got.count("answered") <= 6 and set(got) == {"answered", "RequestLimitExceeded"}
    cloud.ec2.describe_network_interfaces()
    cloud.service("ec2", "us-west-2").describe_volumes()  # each region has a bucket of its own
    time.sleep(0.6)
    cloud.ec2.describe_volumes()
    cloud.rehearsal.faults([{"throttle": None}])
    for _ in range(5):
        cloud.ec2.describe_volumes()


def test_other_services_call_it_throttling(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"throttle": {"Get*": {"burst": 0, "per_s": 0}}}])
    assert code_of(cloud.service("ssm").get_parameter, Name="/aws/service/x") == "ThrottlingException"
    assert code_of(cloud.service("sts").get_caller_identity) == "Throttling"


def test_a_bucket_fills_no_higher_than_its_burst() -> None:
    buckets, rules = Buckets(), rates({"Describe*": {"burst": 1, "per_s": 1000}, "*": {"burst": 0, "per_s": 0}})
    assert buckets.take(rules, "DescribeX", "r")
    time.sleep(0.05)
    assert buckets.take(rules, "DescribeX", "r") and not buckets.take(rules, "RunX", "r")
    for wrong in ({"*": 3}, {"*": {"burst": 1}}, {"*": {"burst": -1, "per_s": 1}}, {"*": {"burst": "many", "per_s": 1}}):
        with pytest.raises(ValueError):
            rates(wrong)


def test_a_login_that_has_run_out_refuses_everything_until_it_is_renewed(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"action": "*", "kind": "error", "code": "ExpiredToken", "times": None}])
    for call in (cloud.ec2.describe_instances, cloud.ec2.describe_regions, cloud.service("sts").get_caller_identity):
        assert code_of(call) == "ExpiredToken"
    cloud.rehearsal.faults(None)
    cloud.ec2.describe_instances()


@pytest.mark.parametrize(("effect", "left"), [(False, "running"), (True, "shutting-down")])
def test_a_broken_answer_to_terminate_may_come_before_or_after_the_effect(cloud: Cloud, effect: bool, left: str) -> None:
    cloud.rehearsal.faults([{"timing": {"stopping_s": 2}}])
    instance = cloud.launch()
    cloud.until(instance, "running")
    cloud.rehearsal.faults([{"action": "TerminateInstances", "kind": "error", "code": "InternalError", "effect": effect}])
    assert code_of(cloud.ec2.terminate_instances, InstanceIds=[instance]) == "InternalError"
    assert cloud.truth(instance)["state"] == left
