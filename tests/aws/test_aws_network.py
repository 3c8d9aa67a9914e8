"""Where a machine is put, and who may reach it: the user's own group is read before it is used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from conftest import Wire

from provisioner.errors import NotCreated
from provisioner.model import LaunchSpec
from provisioner.providers.aws import AwsProvider
from provisioner.providers.aws_network import unfit

LEASE = "r-20261121t140000z-abcdefgh"


def rule(*v4: str, v6: tuple[str, ...] = (), ports: tuple[int, int] = (22, 22), protocol: str = "tcp", **more: Any) -> dict[str, Any]:
    found = {"IpProtocol": protocol, "IpRanges": [{"CidrIp": one} for one in v4], "Ipv6Ranges": [{"CidrIpv6": one} for one in v6], **more}
    return found if protocol == "-1" else {**found, "FromPort": ports[0], "ToPort": ports[1]}


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ([rule("203.0.113.7/32")], ""),
        ([rule("203.0.113.0/24")], ""),
        ([rule("10.0.0.0/8"), rule("203.0.112.0/20", ports=(20, 30))], ""),
        ([rule("203.0.113.0/24", protocol="-1")], ""),
        ([rule(PrefixListIds=[{"PrefixListId": "pl-1"}])], ""),
        ([rule("0.0.0.0/0", ports=(443, 443)), rule("203.0.113.7/32")], ""),
        ([], "does not let 203.0.113.7/32 at port 22"),
        ([rule("203.0.113.8/32")], "does not let 203.0.113.7/32 at port 22"),
        ([rule("203.0.113.7/32", ports=(443, 443))], "does not let 203.0.113.7/32 at port 22"),
        ([rule("203.0.113.7/32", protocol="udp")], "does not let 203.0.113.7/32 at port 22"),
        ([rule(v6=("2001:db8::/32",))], "does not let 203.0.113.7/32 at port 22"),
        ([rule(UserIdGroupPairs=[{"GroupId": "sg-2"}])], "does not let 203.0.113.7/32 at port 22"),
        ([rule("0.0.0.0/0")], "lets the whole internet at port 22 (0.0.0.0/0)"),
        ([rule("203.0.113.7/32"), rule(v6=("::/0",))], "lets the whole internet at port 22 (::/0)"),
        ([rule("0.0.0.0/0", protocol="-1")], "lets the whole internet at port 22 (0.0.0.0/0)"),
        ([rule("0.0.0.0/0", ports=(0, 65535))], "lets the whole internet at port 22 (0.0.0.0/0)"),
        ([rule("0.0.0.0/1", "128.0.0.0/1")], "lets the whole internet at port 22 (0.0.0.0/1, 128.0.0.0/1)"),
    ],
)
def test_a_group_of_the_users_lets_us_in_and_not_everybody(rules: list[dict[str, Any]], why: str, spec: LaunchSpec) -> None:
    assert unfit({"IpPermissions": rules}, replace(spec, group="sg-1")) == why


def test_without_ingress_a_group_of_the_users_lets_the_endpoint_in(spec: LaunchSpec) -> None:
    via = replace(spec, group="sg-1", reach="endpoint", ingress_cidr=None)
    pair = rule(UserIdGroupPairs=[{"GroupId": "sg-endpoint"}])
    assert unfit({"IpPermissions": [pair]}, via, ["sg-endpoint"]) == ""
    assert (
        unfit({"IpPermissions": [rule("203.0.113.7/32")]}, via, ["sg-endpoint"])
        == "does not let the endpoint's group sg-endpoint at port 22"
    )
    assert unfit({"IpPermissions": []}, replace(via, reach="ssm")) == ""
    assert unfit({"IpPermissions": [rule("0.0.0.0/0")]}, replace(via, reach="ssm")) != ""


def test_a_group_that_lets_everybody_in_is_refused_before_anything_is_asked(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    theirs = provider.account.create("CreateSecurityGroup", GroupName="wide", Description="x").data["GroupId"]
    provider.account.change("AuthorizeSecurityGroupIngress", GroupId=theirs, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="0.0.0.0/0")
    with pytest.raises(NotCreated, match=r"lets the whole internet at port 22") as e:
        provider.create("instance", replace(spec, group=theirs), lease=LEASE, token="t", made={})
    assert "tcp 22-22 from 0.0.0.0/0" in e.value.why and "leave launch.security_group out" in e.value.next
    assert not wire.sent("RunInstances")


ENDPOINTS = """<DescribeInstanceConnectEndpointsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId>
<instanceConnectEndpointSet>{items}</instanceConnectEndpointSet></DescribeInstanceConnectEndpointsResponse>"""
ENDPOINT = """<item><instanceConnectEndpointId>eice-1</instanceConnectEndpointId><state>create-complete</state><vpcId>{vpc}</vpcId>
<securityGroupIdSet><item>{group}</item></securityGroupIdSet></item>"""


def test_through_an_endpoint_only_its_group_may_reach_the_machine_which_has_no_address(
    provider: AwsProvider, spec: LaunchSpec, wire: Wire
) -> None:
    theirs = provider.account.create("CreateSecurityGroup", GroupName="of the endpoint", Description="x").data["GroupId"]
    wire.answers["DescribeInstanceConnectEndpoints"] = ENDPOINTS.format(items=ENDPOINT.format(vpc="vpc-1", group=theirs))
    via = replace(spec, reach="endpoint", ingress_cidr=None)
    assert provider.steps(via) == ("security-group", "instance")
    group = provider.create("security-group", via, lease=LEASE, token="g", made={})
    made = provider.create("instance", via, lease=LEASE, token="t", made={"security-group": group})
    asked = wire.sent("AuthorizeSecurityGroupIngress")[0].params
    assert asked["IpPermissions.1.Groups.1.GroupId"] == theirs and not any("IpRanges" in key for key in asked)
    assert wire.sent("RunInstances")[0].params["NetworkInterface.1.AssociatePublicIpAddress"] == "false"
    assert [line for line in provider.verify_launch(made, via) if " of eni-" not in line] == []


def test_through_the_session_manager_nobody_may_reach_the_machine(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    via = replace(spec, reach="ssm", ingress_cidr=None)
    group = provider.create("security-group", via, lease=LEASE, token="g", made={})
    made = provider.create("instance", via, lease=LEASE, token="t", made={"security-group": group})
    assert not wire.sent("AuthorizeSecurityGroupIngress")
    assert [line for line in provider.verify_launch(made, via) if " of eni-" not in line] == []


def test_without_an_endpoint_nothing_is_asked_for(provider: AwsProvider, spec: LaunchSpec, wire: Wire) -> None:
    wire.answers["DescribeInstanceConnectEndpoints"] = ENDPOINTS.format(items="")
    with pytest.raises(NotCreated, match="no Instance Connect endpoint in vpc-") as e:
        provider.create("security-group", replace(spec, reach="endpoint"), lease=LEASE, token="g", made={})
    assert "create-instance-connect-endpoint" in e.value.next
    assert not wire.sent("CreateSecurityGroup")
