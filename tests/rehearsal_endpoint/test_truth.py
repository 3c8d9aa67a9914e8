"""The account of what really happened, and the record of what was asked."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable
from typing import Any
from urllib.request import Request, urlopen

from .conftest import Cloud, wait_for

_LISTS: dict[str, tuple[str, Callable[[Any], dict[str, str]]]] = {
    "instance": ("describe_instances", lambda a: {i["InstanceId"]: i["State"]["Name"] for r in a["Reservations"] for i in r["Instances"]}),
    "volume": ("describe_volumes", lambda a: {v["VolumeId"]: v["State"] for v in a["Volumes"]}),
    "network-interface": ("describe_network_interfaces", lambda a: {n["NetworkInterfaceId"]: n["Status"] for n in a["NetworkInterfaces"]}),
}


def test_the_truth_agrees_with_what_is_described(cloud: Cloud) -> None:
    running, stopped, over = cloud.launch(), cloud.launch(), cloud.launch()
    cloud.until(stopped, "running")
    cloud.ec2.stop_instances(InstanceIds=[stopped])
    cloud.ec2.terminate_instances(InstanceIds=[over])
    cloud.until(over, "terminated")
    cloud.until(stopped, "stopped")
    cloud.until(running, "running")
    for kind, (call, read) in _LISTS.items():

        def agree(kind: str = kind, call: str = call, read: Callable[[Any], dict[str, str]] = read) -> bool:
            told = {
                e["id"]: e["state"]
                for e in cloud.rehearsal.truth()
                if e["class"] == kind and e["region"] == "us-east-1" and e["state"] != "gone"
            }
            described = read(getattr(cloud.ec2, call)())
            here = {id: state for id, state in told.items() if id in described or kind != "instance"}
            return here == described and all(state == "terminated" for id, state in told.items() if id not in described)  # vanished

        wait_for(agree)  # what another test left behind may change between the two questions


def test_everything_that_ever_existed_stays_in_the_truth_with_its_times(cloud: Cloud) -> None:
    instance = cloud.launch(lease="r-told")
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    cloud.until(instance, "terminated")
    ours = [entry for entry in cloud.rehearsal.truth() if entry["lease"] == "r-told"]
    assert sorted(entry["class"] for entry in ours) == ["instance", "network-interface", "volume"]
    machine = next(entry for entry in ours if entry["class"] == "instance")
    assert machine["born"] <= machine["asked"] <= machine["gone"] and machine["by"] == "api"
    assert all(entry["gone"] for entry in ours)


def test_the_log_has_who_asked_for_what_and_never_the_user_data(cloud: Cloud) -> None:
    client = cloud.service("ec2")
    client.meta.events.register("before-send", lambda request, **_: request.headers.__setitem__("User-Agent", "gpulease/1 head/abc"))
    answer = client.run_instances(**cloud.params({"secret": "s3cr3t"}, ClientToken="logged"))
    entry = next(one for one in cloud.rehearsal.log() if one["requestId"] == answer["ResponseMetadata"]["RequestId"])
    assert entry["action"] == "RunInstances" and entry["userAgent"] == "gpulease/1 head/abc" and entry["status"] == 200
    assert entry["params"]["ClientToken"] == "logged" and "UserData" not in entry["params"]
    client.describe_volumes(Filters=[{"Name": "size", "Values": ["1"]}])
    assert "params" not in cloud.rehearsal.log()[-1]


def test_every_answer_is_dated_numbered_and_marked_simulated(cloud: Cloud) -> None:
    answer = cloud.ec2.describe_regions()["ResponseMetadata"]
    headers = answer["HTTPHeaders"]
    assert abs(email.utils.parsedate_to_datetime(headers["date"]).timestamp() - time.time()) < 2
    assert headers["x-amzn-requestid"] == answer["RequestId"]
    assert headers["x-simulated"] == "gpulease-rehearsal"


def test_a_question_in_the_query_string_is_answered_and_the_namespace_is_ec2s_to_the_slash(cloud: Cloud) -> None:
    scope = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=0"
    for action in ("DescribeInstances", "DescribeImages", "DescribeVolumes", "DescribeFleets"):
        request = Request(f"{cloud.rehearsal.endpoint}/?Action={action}&Version=2016-11-15", headers={"Authorization": scope})
        with urlopen(request) as answer:
            assert f'<{action}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'.encode() in answer.read()


def test_only_enabled_regions_are_listed_and_each_can_be_looked_into(cloud: Cloud) -> None:
    regions = [region["RegionName"] for region in cloud.ec2.describe_regions()["Regions"]]
    assert "us-east-1" in regions and "me-south-1" not in regions
    assert cloud.service("ec2", regions[-1]).describe_instances()["Reservations"] == []


def test_regions_do_not_see_each_other(cloud: Cloud) -> None:
    west = cloud.service("ec2", "us-west-2")
    group = west.create_security_group(GroupName="only-west", Description="d")["GroupId"]
    assert group in {one["GroupId"] for one in west.describe_security_groups()["SecurityGroups"]}
    assert group not in {one["GroupId"] for one in cloud.ec2.describe_security_groups()["SecurityGroups"]}
    assert cloud.truth(group)["region"] == "us-west-2"
    west.delete_security_group(GroupId=group)
