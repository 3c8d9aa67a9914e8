"""Every attribute that a launch asks for is read back, and each difference alone is enough to be told."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cost import Price
from provisioner.model import LaunchSpec, Offer
from provisioner.providers.aws_launch import Image, ingress, run_parameters
from provisioner.providers.aws_read_back import Shown, differences
from provisioner.secret import Secret

LEASE = "r-20261121t140000z-abcdefgh"
OFFER = Offer("aws", "us-east-1", "g6.xlarge", "NVIDIA L4", 1, 23034, 4, Price(804_800, "test", "2026-07-20"), zone="us-east-1b")
SPEC = LaunchSpec(OFFER, 116, "2026-11-21T15:00:00Z", Secret("#cloud-config\nssh_keys: a secret\n"), ingress_cidr="203.0.113.7/32")
IMAGE = Image("ami-0123456789abcdef0", "/dev/sda1", 45, architecture="x86_64")
Change = Callable[[dict[str, Any]], object]
RULES = [ingress(SPEC.ingress_cidr)]


def asked_for(spec: LaunchSpec = SPEC) -> dict[str, Any]:
    return run_parameters(spec, LEASE, "token-1", IMAGE, subnet="subnet-1", group="sg-1")


def made(spec: LaunchSpec = SPEC) -> dict[str, Any]:
    """What AWS describes of a machine that was made as asked, in its own words."""
    shown: dict[str, Any] = {
        "instance": {
            "InstanceId": "i-1",
            "InstanceType": "g6.xlarge",
            "ImageId": IMAGE.id,
            "ClientToken": "token-1",
            "Placement": {"AvailabilityZone": "us-east-1b"},
            "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1, "State": "applied"},
            "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeId": "vol-1", "DeleteOnTermination": True}}],
            "NetworkInterfaces": [
                {
                    "NetworkInterfaceId": "eni-1",
                    "SubnetId": "subnet-1",
                    "Attachment": {"DeleteOnTermination": True},
                    "Groups": [{"GroupId": "sg-1"}],
                }
            ],
            "PublicIpAddress": "203.0.113.9",
            "Tags": tags(spec),
        },
        "volumes": [{"VolumeId": "vol-1", "Encrypted": True, "Size": 116, "VolumeType": "gp3", "Tags": tags(spec)}],
        "interfaces": [{"NetworkInterfaceId": "eni-1", "TagSet": tags(spec)}],
        "attributes": {
            "instanceInitiatedShutdownBehavior": "terminate",
            "disableApiTermination": False,
            "userData": base64.b64encode(spec.user_data.reveal_bytes()).decode(),
        },
        "group": {"GroupId": "sg-1", "IpPermissions": list(RULES)},
    }
    if spec.reach != "address":
        del shown["instance"]["PublicIpAddress"]
    if spec.offer.spot:
        shown["instance"] |= {"InstanceLifecycle": "spot", "SpotInstanceRequestId": "sir-1"}
        shown["spot_request"] = {
            "Type": "one-time",
            "InstanceInterruptionBehavior": "terminate",
            "SpotPrice": "0.804800",
            "Tags": tags(spec),
        }
    return shown


def tags(spec: LaunchSpec) -> list[dict[str, str]]:
    return list(asked_for(spec)["TagSpecifications"][0]["Tags"])


def another(*path: Any, **thing: Any) -> Change:
    def change(shown: dict[str, Any]) -> None:
        at: Any = shown
        for part in path:
            at = at[part]
        at.append(thing)

    return change


SPOT = replace(SPEC, offer=replace(OFFER, spot=True))


def check(shown: dict[str, Any], spec: LaunchSpec = SPEC, rules: list[dict[str, Any]] | None = RULES) -> list[str]:
    return differences(asked_for(spec), Shown(**shown), zone=spec.offer.zone, rules=rules)


def put(*path: Any) -> Change:
    *where, key, value = path

    def change(shown: dict[str, Any]) -> None:
        at: Any = shown
        for part in where:
            at = at[part]
        at[key] = value

    return change


def untag(*path: Any) -> Change:
    def change(shown: dict[str, Any]) -> None:
        at: Any = shown
        for part in path:
            at = at[part]
        del at[1]

    return change


@pytest.mark.parametrize("spec", [SPEC, SPOT, replace(SPEC, reach="endpoint"), replace(SPEC, user_data=Secret(""))])
def test_a_machine_that_was_made_as_asked_has_no_difference(spec: LaunchSpec) -> None:
    assert check(made(spec), spec) == []


OPEN = {"IpProtocol": "tcp", "FromPort": 8000, "ToPort": 8000}
INSTANCE, EBS = ("instance",), ("instance", "BlockDeviceMappings", 0, "Ebs")
NIC = ("instance", "NetworkInterfaces", 0)


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("type is 'g6.2xlarge', asked for 'g6.xlarge'", put(*INSTANCE, "InstanceType", "g6.2xlarge")),
        ("image is 'ami-other'", put(*INSTANCE, "ImageId", "ami-other")),
        ("client token is 'x'", put(*INSTANCE, "ClientToken", "x")),
        ("zone is 'us-east-1a'", put(*INSTANCE, "Placement", {"AvailabilityZone": "us-east-1a"})),
        ("on shutdown is 'stop', asked for 'terminate'", put("attributes", "instanceInitiatedShutdownBehavior", "stop")),
        ("on shutdown is None", put("attributes", "instanceInitiatedShutdownBehavior", None)),
        ("termination protection is True", put("attributes", "disableApiTermination", True)),
        ("user-data is 'sha256:", put("attributes", "userData", base64.b64encode(b"#!/bin/sh").decode())),
        ("user-data is 'none'", put("attributes", "userData", None)),
        ("user-data is 'not base64'", put("attributes", "userData", "#cloud-config")),
        ("instance metadata endpoint is 'disabled'", put(*INSTANCE, "MetadataOptions", "HttpEndpoint", "disabled")),
        ("instance metadata tokens is 'optional'", put(*INSTANCE, "MetadataOptions", "HttpTokens", "optional")),
        ("instance metadata hop limit is 2", put(*INSTANCE, "MetadataOptions", "HttpPutResponseHopLimit", 2)),
        ("instance profile is {'Arn': 'x'}", put(*INSTANCE, "IamInstanceProfile", {"Arn": "x"})),
        ("key pair is 'somebodys'", put(*INSTANCE, "KeyName", "somebodys")),
        ("tag gpulease:deadline of the instance is None", untag(*INSTANCE, "Tags")),
        ("disk /dev/sda1 dies with the instance is False", put(*EBS, "DeleteOnTermination", False)),
        ("encryption of vol-1 is False", put("volumes", 0, "Encrypted", False)),
        ("size of vol-1 in GiB is 500, asked for 116", put("volumes", 0, "Size", 500)),
        ("kind of vol-1 is 'io2'", put("volumes", 0, "VolumeType", "io2")),
        ("tag gpulease:deadline of vol-1 is None", untag("volumes", 0, "Tags")),
        ("disks attached is ['vol-1', 'vol-2']", another("volumes", **{**made()["volumes"][0], "VolumeId": "vol-2"})),
        ("interface eni-1 dies with the instance is False", put(*NIC, "Attachment", {"DeleteOnTermination": False})),
        ("groups of interface eni-1 is ['sg-1', 'sg-2']", another(*NIC, "Groups", GroupId="sg-2")),
        ("subnet of interface eni-1 is 'subnet-2'", put(*NIC, "SubnetId", "subnet-2")),
        ("tag gpulease:deadline of eni-1 is None", untag("interfaces", 0, "TagSet")),
        ("interfaces attached is []", put("interfaces", [])),
        ("a public address is False, asked for True", put(*INSTANCE, "PublicIpAddress", None)),
        ("bought as is 'spot', asked for None", put(*INSTANCE, "InstanceLifecycle", "spot")),
        ("tcp 22-22 from 0.0.0.0/0", put("group", "IpPermissions", [{**RULES[0], "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}])),
        ("tcp 8000-8000 from ::/0", put("group", "IpPermissions", [*RULES, {**OPEN, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}])),
        ("ingress is []", put("group", None)),
    ],
)  # fmt: skip
def test_each_difference_alone_is_told(words: str, change: Change) -> None:
    shown = made()
    change(shown)
    (found,) = check(shown)
    assert words in found


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("bought as is None, asked for 'spot'", put(*INSTANCE, "InstanceLifecycle", None)),
        ("kind of the spot request is 'persistent', asked for 'one-time'", put("spot_request", "Type", "persistent")),
        ("what an interruption does is 'stop', asked for 'terminate'", put("spot_request", "InstanceInterruptionBehavior", "stop")),
        ("ceiling of the spot request is Decimal('1.6')", put("spot_request", "SpotPrice", "1.6")),
        ("ceiling of the spot request is None", put("spot_request", "SpotPrice", "")),
        ("tag gpulease:deadline of the spot request is None", untag("spot_request", "Tags")),
    ],
)
def test_each_difference_of_a_spot_request_alone_is_told(words: str, change: Change) -> None:
    shown = made(SPOT)
    change(shown)
    (found,) = check(shown, SPOT)
    assert words in found


def test_without_ingress_a_public_address_is_a_difference() -> None:
    spec = replace(SPEC, reach="ssm")
    assert check(made(SPEC), spec, rules=[]) == [
        "a public address is True, asked for False",
        "ingress is ['tcp 22-22 from 203.0.113.7/32'], asked for []",
    ]


def test_what_is_not_shown_at_all_counts_as_different() -> None:
    found = differences(asked_for(), Shown({}), rules=RULES)
    assert "no disk is shown yet" in found and "no network interface is shown yet" in found
    assert len(found) == 17


def test_no_difference_quotes_what_is_in_the_user_data() -> None:
    shown = made()
    shown["attributes"]["userData"] = base64.b64encode(b"another secret").decode()
    assert "secret" not in " ".join(check(shown))
