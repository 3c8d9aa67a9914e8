"""Lists: none of what cannot be made here, and any list in pages."""

from __future__ import annotations

from typing import Any

import pytest

from provisioner.rehearsal.listings import NONE_OF, items_of

from .conftest import Cloud, code_of


def test_there_is_none_of_what_cannot_be_made_here_in_the_grammar_of_ec2(cloud: Cloud) -> None:
    import botocore.loaders
    from botocore import xform_name
    from botocore.model import ServiceModel

    def upper(name: str) -> str:
        return name[:1].upper() + name[1:]  # as the protocol sends it

    model = ServiceModel(botocore.loaders.Loader().load_service_model("ec2", "service-2"))
    for action, (element, ids) in NONE_OF.items():
        shape: Any = model.operation_model(action)
        lists = {member.serialization["name"]: name for name, member in shape.output_shape.members.items() if member.type_name == "list"}
        assert element in lists, action
        call = getattr(cloud.ec2, xform_name(action))
        assert call()[lists[element]] == [], action
        members = shape.input_shape.members
        named = {
            upper(m.serialization.get("name", n)): n for n, m in members.items() if m.type_name == "list" and n not in ("Filters", "Filter")
        }
        assert not ids or ids in named, action
        if ids and "Id" in ids:
            assert code_of(call, **{named[ids]: ["x-1"]}).startswith("Invalid"), action


def test_the_kinds_that_moto_has_are_empty_lists_too(cloud: Cloud) -> None:
    there = {
        "describe_hosts": "Hosts",
        "describe_nat_gateways": "NatGateways",
        "describe_vpc_endpoints": "VpcEndpoints",
        "describe_spot_fleet_requests": "SpotFleetRequestConfigs",
        "describe_fleets": "Fleets",
        "describe_instance_connect_endpoints": "InstanceConnectEndpoints",
        "describe_transit_gateways": "TransitGateways",
        "describe_vpn_connections": "VpnConnections",
    }
    west = cloud.service("ec2", "ap-northeast-1")
    assert {call: getattr(west, call)()[key] for call, key in there.items()} == {call: [] for call in there}
    for call, key in (("describe_snapshots", "Snapshots"), ("describe_images", "Images")):
        owner = {"OwnerIds": ["self"]} if call == "describe_snapshots" else {"Owners": ["self"]}
        assert getattr(west, call)(**owner)[key] == []


def test_pages_together_are_the_whole_list_and_each_has_no_more_than_was_asked_for(cloud: Cloud) -> None:
    south = cloud.service("ec2", "sa-east-1")
    made = {south.create_security_group(GroupName=f"page {n}", Description="d")["GroupId"] for n in range(12)}
    whole = {one["GroupId"] for one in south.describe_security_groups()["SecurityGroups"]}
    first = south.describe_security_groups(MaxResults=5)
    assert len(first["SecurityGroups"]) == 5 and first["NextToken"]
    gone = next(iter(made))
    south.delete_security_group(GroupId=gone)
    second = south.describe_security_groups(MaxResults=5, NextToken=first["NextToken"])
    third = south.describe_security_groups(MaxResults=1000, NextToken=second["NextToken"])
    pages = [one["GroupId"] for page in (first, second, third) for one in page["SecurityGroups"]]
    assert "NextToken" not in third and len(pages) == len(set(pages)) and set(pages) == whole >= made


def test_a_list_can_come_in_pages_that_nobody_asked_for_and_a_paginator_gets_it_all(cloud: Cloud) -> None:
    ids = {cloud.launch(lease="r-pages") for _ in range(5)}
    tag = [{"Name": "tag:gpulease:lease", "Values": ["r-pages"]}]
    cloud.rehearsal.faults([{"page_size": 2}])
    one = cloud.ec2.describe_instances(Filters=tag)
    assert len(one["Reservations"]) == 2 and one["NextToken"]
    pages = list(cloud.ec2.get_paginator("describe_instances").paginate(Filters=tag))
    found = [instance for page in pages for reservation in page["Reservations"] for instance in reservation["Instances"]]
    assert len(pages) == 3 and {instance["InstanceId"] for instance in found} == ids
    assert found[0]["Tags"] == [{"Key": "gpulease:lease", "Value": "r-pages"}] and found[0]["State"]["Code"] in (0, 16)
    for name, key in (("volumes", "Volumes"), ("network_interfaces", "NetworkInterfaces"), ("regions", "Regions"), ("tags", "Tags")):
        page = getattr(cloud.ec2, f"describe_{name}")()
        assert len(page[key]) == 2, name


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"MaxResults": 4}, "InvalidParameterValue"),
        ({"NextToken": "made up"}, "InvalidParameterValue"),
        ({"MaxResults": 5, "InstanceIds": ["i-0123456789abcdef0"]}, "InvalidParameterCombination"),
    ],
)
def test_pages_that_ec2_would_refuse_are_refused(cloud: Cloud, params: dict[str, Any], code: str) -> None:
    assert code_of(cloud.ec2.describe_instances, **params) == code


def test_a_token_is_good_for_its_own_list_and_once(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"page_size": 1}])
    cloud.launch()
    cloud.launch()
    token = cloud.ec2.describe_instances()["NextToken"]
    assert code_of(cloud.ec2.describe_volumes, NextToken=token) == "InvalidParameterValue"
    assert code_of(cloud.ec2.describe_instances, NextToken=token) == "InvalidParameterValue"


def test_an_answer_without_a_list_is_left_as_it_is() -> None:
    assert (
        items_of(b"<DescribeXResponse xmlns='http://ec2.amazonaws.com/doc/2016-11-15/'><requestId>1</requestId></DescribeXResponse>")
        is None
    )


def test_connect_endpoints_are_those_that_were_said(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"connect_endpoints": {"us-east-1": "create-complete"}}])
    (found,) = cloud.ec2.describe_instance_connect_endpoints()["InstanceConnectEndpoints"]
    assert found["State"] == "create-complete" and found["InstanceConnectEndpointId"].startswith("eice-")
    assert found["VpcId"] == cloud.ec2.describe_vpcs()["Vpcs"][0]["VpcId"] and found["SecurityGroupIds"]
    ask = cloud.ec2.describe_instance_connect_endpoints
    assert ask(Filters=[{"Name": "vpc-id", "Values": ["vpc-elsewhere"]}])["InstanceConnectEndpoints"] == []
    assert ask(Filters=[{"Name": "state", "Values": ["create-complete"]}])["InstanceConnectEndpoints"] == [found]
    assert code_of(ask, InstanceConnectEndpointIds=["eice-0"]) == "InvalidInstanceConnectEndpointId.NotFound"
    assert cloud.service("ec2", "us-west-2").describe_instance_connect_endpoints()["InstanceConnectEndpoints"] == []
    with pytest.raises(ValueError):
        cloud.rehearsal.faults([{"connect_endpoints": {"us-east-1": "fine"}}])
