"""EC2 Fleet as a guard: the machines come later, from the template, and EC2 itself ends them when the time is over."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from .conftest import QUICK, Cloud, code_of, wait_for


@pytest.fixture(autouse=True)
def _quick(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"timing": {**QUICK, "fleet_s": 0.1}}])


def template(cloud: Cloud, lease: str, **more: Any) -> str:
    params = cloud.params(lease=lease, **more)
    for name in ("MinCount", "MaxCount"):
        del params[name]
    params["UserData"] = "e30="
    id: str = cloud.ec2.create_launch_template(LaunchTemplateName=lease, LaunchTemplateData=params)["LaunchTemplate"]["LaunchTemplateId"]
    return id


def ask(cloud: Cloud, template: str, seconds: float = 600, overrides: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    configs: list[dict[str, Any]] = [{"LaunchTemplateSpecification": {"LaunchTemplateId": template, "Version": "$Latest"}}]
    if overrides:
        configs[0]["Overrides"] = overrides
    return {
        "Type": "request",
        "LaunchTemplateConfigs": configs,
        "TargetCapacitySpecification": {"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "on-demand"},
        "ValidUntil": datetime.now(UTC) + timedelta(seconds=seconds),
        "TerminateInstancesWithExpiration": True,
        "TagSpecifications": [{"ResourceType": "fleet", "Tags": [{"Key": "gpulease:lease", "Value": "r-fleet"}]}],
        **more,
    }


def fleet_of(cloud: Cloud, id: str) -> dict[str, Any]:
    found: dict[str, Any] = cloud.ec2.describe_fleets(FleetIds=[id])["Fleets"][0]
    return found


def machines_of(cloud: Cloud, id: str) -> list[str]:
    return [one["InstanceId"] for one in cloud.ec2.describe_fleet_instances(FleetId=id)["ActiveInstances"]]


def test_its_machine_comes_later_and_has_the_templates_tags(cloud: Cloud) -> None:
    answer = cloud.ec2.create_fleet(**ask(cloud, template(cloud, "r-f1")))
    assert answer["FleetId"].startswith("fleet-") and answer["Instances"] == []
    (instance,) = wait_for(lambda: machines_of(cloud, answer["FleetId"]))
    seen = cloud.until(instance, "running")
    tags = {tag["Key"]: tag["Value"] for tag in seen["Tags"]}
    assert tags == {"gpulease:lease": "r-f1", "aws:ec2:fleet-id": answer["FleetId"]}
    assert seen["InstanceType"] == "g6.xlarge" and seen["MetadataOptions"]["HttpTokens"] == "required"
    attribute = cloud.ec2.describe_instance_attribute(InstanceId=instance, Attribute="instanceInitiatedShutdownBehavior")
    assert attribute["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"
    fleet = fleet_of(cloud, answer["FleetId"])
    assert (fleet["FleetState"], fleet["ActivityStatus"], fleet["FulfilledCapacity"]) == ("active", "fulfilled", 1.0)
    assert fleet["TerminateInstancesWithExpiration"] is True and fleet["ValidUntil"] > datetime.now(UTC)
    assert fleet["Tags"] == [{"Key": "gpulease:lease", "Value": "r-fleet"}]
    assert cloud.found("r-f1")[0]["InstanceId"] == instance
    assert cloud.truth(answer["FleetId"])["state"] == "active"


def test_when_its_time_is_over_ec2_terminates_its_machines(cloud: Cloud) -> None:
    id = cloud.ec2.create_fleet(**ask(cloud, template(cloud, "r-f2"), seconds=2))["FleetId"]
    (instance,) = wait_for(lambda: machines_of(cloud, id))
    until = cloud.until(instance, "terminated")
    assert until["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert cloud.truth(instance)["by"] == "fleet"
    wait_for(lambda: fleet_of(cloud, id)["FleetState"] == "deleted")
    assert cloud.truth(id)["gone"] and machines_of(cloud, id) == []


def test_without_the_flag_its_machines_outlive_it(cloud: Cloud) -> None:
    id = cloud.ec2.create_fleet(**ask(cloud, template(cloud, "r-f3"), seconds=2, TerminateInstancesWithExpiration=False))["FleetId"]
    (instance,) = wait_for(lambda: machines_of(cloud, id))
    wait_for(lambda: fleet_of(cloud, id)["FleetState"] == "deleted_running")
    assert cloud.describe(instance)["State"]["Name"] == "running"
    cloud.ec2.delete_fleets(FleetIds=[id], TerminateInstances=True)
    cloud.until(instance, "terminated")


def test_deleting_it_with_its_machines_ends_both(cloud: Cloud) -> None:
    id = cloud.ec2.create_fleet(**ask(cloud, template(cloud, "r-f4")))["FleetId"]
    (instance,) = wait_for(lambda: machines_of(cloud, id))
    answer = cloud.ec2.delete_fleets(FleetIds=[id, "fleet-none"], TerminateInstances=True)
    assert answer["SuccessfulFleetDeletions"] == [
        {"FleetId": id, "CurrentFleetState": "deleted_terminating", "PreviousFleetState": "active"}
    ]
    assert answer["UnsuccessfulFleetDeletions"][0]["Error"]["Code"] == "fleetIdDoesNotExist"
    cloud.until(instance, "terminated")
    wait_for(lambda: fleet_of(cloud, id)["FleetState"] == "deleted")
    active = [{"Name": "fleet-state", "Values": ["active", "submitted"]}]
    assert id not in [fleet["FleetId"] for fleet in cloud.ec2.describe_fleets(Filters=active)["Fleets"]]


def test_one_that_is_deleted_before_it_was_filled_never_launches(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"timing": {"fleet_s": 0.3}}])
    id = cloud.ec2.create_fleet(**ask(cloud, template(cloud, "r-f5")))["FleetId"]
    cloud.ec2.delete_fleets(FleetIds=[id], TerminateInstances=True)
    time.sleep(0.5)
    assert cloud.found("r-f5") == [] and fleet_of(cloud, id)["FleetState"] == "deleted"


def test_overrides_are_tried_in_order_and_what_was_refused_is_kept(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"capacity": {"*": {"g6.xlarge": 0}}}])
    overrides = [{"InstanceType": "g6.xlarge"}, {"InstanceType": "g6.2xlarge", "AvailabilityZone": "us-east-1b"}]
    id = cloud.ec2.create_fleet(**ask(cloud, template(cloud, "r-f6"), overrides=overrides))["FleetId"]
    (instance,) = wait_for(lambda: machines_of(cloud, id))
    seen = cloud.describe(instance)
    assert (seen["InstanceType"], seen["Placement"]["AvailabilityZone"]) == ("g6.2xlarge", "us-east-1b")
    assert fleet_of(cloud, id)["Errors"] == [], "EC2 shows errors there for instant fleets only"
    (event,) = cloud.ec2.describe_fleet_history(FleetId=id, StartTime=datetime(2026, 1, 1, tzinfo=UTC))["HistoryRecords"]
    assert event["EventInformation"]["EventDescription"].startswith("InsufficientInstanceCapacity: ")
    cloud.rehearsal.faults([{"capacity": {"*": {"*": 0}}}])
    none = cloud.ec2.create_fleet(**ask(cloud, template(cloud, "r-f7")))["FleetId"]
    wait_for(lambda: fleet_of(cloud, none)["ActivityStatus"] == "error")
    assert machines_of(cloud, none) == []


def test_a_spot_fleets_machine_is_a_spot_machine(cloud: Cloud) -> None:
    target = {"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "spot"}
    params = ask(cloud, template(cloud, "r-f8"), overrides=[{"MaxPrice": "0.7"}], TargetCapacitySpecification=target)
    id = cloud.ec2.create_fleet(**params)["FleetId"]
    (instance,) = wait_for(lambda: cloud.ec2.describe_fleet_instances(FleetId=id)["ActiveInstances"])
    assert cloud.describe(instance["InstanceId"])["InstanceLifecycle"] == "spot" and instance["SpotInstanceRequestId"]


def test_a_token_makes_one_fleet(cloud: Cloud) -> None:
    params = ask(cloud, template(cloud, "r-f9"), ClientToken="fleet-token")
    assert cloud.ec2.create_fleet(**params)["FleetId"] == cloud.ec2.create_fleet(**params)["FleetId"]
    assert code_of(cloud.ec2.create_fleet, **params | {"TerminateInstancesWithExpiration": False}) == "IdempotentParameterMismatch"


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"Type": "instant"}, "UnsupportedOperation"),
        ({"ValidUntil": datetime(2020, 1, 1, tzinfo=UTC)}, "InvalidFleetConfiguration"),
        ({"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}]}, "InvalidParameterValue"),
        ({"TargetCapacitySpecification": {"TotalTargetCapacity": 0}}, "InvalidParameterValue"),
        (
            {"LaunchTemplateConfigs": [{"LaunchTemplateSpecification": {"LaunchTemplateId": "lt-0123456789abcdef0"}}]},
            "InvalidLaunchTemplateId.NotFound",
        ),
    ],
)
def test_what_ec2_would_refuse_is_refused_and_makes_nothing(cloud: Cloud, wrong: dict[str, Any], code: str) -> None:
    existing = cloud.ec2.describe_launch_templates()["LaunchTemplates"]
    id = existing[0]["LaunchTemplateId"] if existing else template(cloud, "r-wrong")
    before = len(cloud.ec2.describe_fleets()["Fleets"])
    assert code_of(cloud.ec2.create_fleet, **ask(cloud, id) | wrong) == code
    assert len(cloud.ec2.describe_fleets()["Fleets"]) == before


def test_a_template_can_be_deleted_and_a_launch_can_name_one(cloud: Cloud) -> None:
    id = template(cloud, "r-lt")
    spec = {"LaunchTemplateId": id, "Version": "1"}
    instance = cloud.ec2.run_instances(MinCount=1, MaxCount=1, LaunchTemplate=spec, InstanceType="g6.2xlarge")["Instances"][0]
    assert instance["InstanceType"] == "g6.2xlarge" and cloud.found("r-lt")[0]["InstanceId"] == instance["InstanceId"]
    cloud.ec2.delete_launch_template(LaunchTemplateId=id)
    launch = {"MinCount": 1, "MaxCount": 1, "LaunchTemplate": spec}
    assert code_of(cloud.ec2.run_instances, **launch) == "InvalidLaunchTemplateId.NotFound"
    assert cloud.truth(id)["gone"]
