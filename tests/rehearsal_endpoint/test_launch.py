"""RunInstances: one machine per token, the refusals EC2 gives, and everything born with its tags."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .conftest import Cloud, code_of


def test_the_same_token_twice_is_one_machine(cloud: Cloud) -> None:
    params = cloud.params(lease="r-same", ClientToken="same")
    first, second = cloud.ec2.run_instances(**params), cloud.ec2.run_instances(**params)
    assert first["Instances"][0]["InstanceId"] == second["Instances"][0]["InstanceId"]
    assert first["ReservationId"] == second["ReservationId"]
    assert len(cloud.found("r-same")) == 1


def test_a_repeated_token_tells_the_state_of_now(cloud: Cloud) -> None:
    params = cloud.params(ClientToken="now")
    instance = cloud.ec2.run_instances(**params)["Instances"][0]
    assert instance["State"]["Name"] == "pending"
    cloud.until(instance["InstanceId"], "running")
    assert cloud.ec2.run_instances(**params)["Instances"][0]["State"]["Name"] == "running"


def test_the_same_token_sent_at_once_from_eight_threads_is_one_machine(cloud: Cloud) -> None:
    params = cloud.params(lease="r-race", ClientToken="race")
    with ThreadPoolExecutor(8) as threads:
        ids = {answer["Instances"][0]["InstanceId"] for answer in threads.map(lambda _: cloud.ec2.run_instances(**params), range(8))}
    assert len(ids) == len(cloud.found("r-race")) == 1


def test_the_same_token_with_other_parameters_is_a_mismatch(cloud: Cloud) -> None:
    cloud.launch(lease="r-mismatch", ClientToken="mismatch")
    other = cloud.params(lease="r-mismatch", ClientToken="mismatch", InstanceType="g6.2xlarge")
    assert code_of(cloud.ec2.run_instances, **other) == "IdempotentParameterMismatch"


def test_the_same_token_in_another_zone_is_another_machine(cloud: Cloud) -> None:
    a = cloud.launch(lease="r-zone", ClientToken="zone", Placement={"AvailabilityZone": "us-east-1a"})
    assert a == cloud.launch(lease="r-zone", ClientToken="zone", Placement={"AvailabilityZone": "us-east-1a"})
    b = cloud.launch(lease="r-zone", ClientToken="zone", Placement={"AvailabilityZone": "us-east-1b"})
    assert a != b
    assert cloud.describe(b)["Placement"]["AvailabilityZone"] == "us-east-1b"


def test_the_token_of_a_terminated_machine_is_refused(cloud: Cloud) -> None:
    params = cloud.params(ClientToken="over")
    instance = cloud.ec2.run_instances(**params)["Instances"][0]["InstanceId"]
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    cloud.until(instance, "terminated")
    assert code_of(cloud.ec2.run_instances, **params) == "IdempotentInstanceTerminated"


def test_a_machine_is_found_by_its_token(cloud: Cloud) -> None:
    instance = cloud.launch(ClientToken="find-me")
    found = cloud.ec2.describe_instances(Filters=[{"Name": "client-token", "Values": ["find-me"]}])["Reservations"]
    assert [one["InstanceId"] for page in found for one in page["Instances"]] == [instance]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "ami-nonsense"}, "InvalidAMIID.Malformed"),
        ({"InstanceType": "g99.mega"}, "InvalidParameterValue"),
        ({"InstanceType": "g5g.xlarge"}, "InvalidParameterValue"),  # arm, and the image is not
        ({"Placement": {"AvailabilityZone": "us-east-1z"}}, "InvalidParameterValue"),
        ({"Placement": {"AvailabilityZone": "us-east-1e"}}, "Unsupported"),  # there are no g6 in that zone
        ({"SecurityGroupIds": ["sg-0123456789abcdef0"]}, "InvalidGroup.NotFound"),
        ({"NetworkInterfaces": [{"DeviceIndex": 0, "Groups": ["sg-0123456789abcdef0"]}]}, "InvalidGroup.NotFound"),
        ({"SubnetId": "subnet-0123456789abcdef0"}, "InvalidSubnetID.NotFound"),
        ({"KeyName": "nobody's"}, "InvalidKeyPair.NotFound"),
        ({"ClientToken": "x" * 65}, "InvalidParameterValue"),
        ({"UserData": "x" * 16385}, "InvalidParameterValue"),
        ({"MinCount": 2, "MaxCount": 1}, "InvalidParameterValue"),
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 8}}]}, "InvalidBlockDeviceMapping"),
        ({"TagSpecifications": [{"ResourceType": "vpc", "Tags": [{"Key": "a", "Value": "b"}]}]}, "InvalidParameterValue"),
        ({"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "aws:a", "Value": "b"}]}]}, "InvalidParameterValue"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_a_wrong_launch_is_refused_with_ec2s_code_and_nothing_is_made(cloud: Cloud, wrong: dict[str, Any], code: str) -> None:
    before = len(cloud.rehearsal.truth())
    assert code_of(cloud.ec2.run_instances, **cloud.params(**wrong)) == code
    assert len(cloud.rehearsal.truth()) == before


def test_disks_and_interfaces_are_found_by_their_tag(cloud: Cloud) -> None:
    instance = cloud.launch(lease="r-tags")
    by_tag = [{"Name": "tag:gpulease:lease", "Values": ["r-tags"]}]
    volume = cloud.ec2.describe_volumes(Filters=by_tag)["Volumes"][0]
    interface = cloud.ec2.describe_network_interfaces(Filters=by_tag)["NetworkInterfaces"][0]
    assert volume["Attachments"][0]["InstanceId"] == interface["Attachment"]["InstanceId"] == instance
    assert volume["Attachments"][0]["DeleteOnTermination"] and interface["Attachment"]["DeleteOnTermination"]
    assert (volume["Size"], volume["VolumeType"], volume["Throughput"]) == (45, "gp3", 125)


def test_what_the_machine_was_asked_to_be_can_be_read_back(cloud: Cloud) -> None:
    group = cloud.group()
    disk = {"DeviceName": "/dev/sda1", "Ebs": {"Encrypted": True, "VolumeSize": 60, "VolumeType": "gp3", "DeleteOnTermination": True}}
    interface = {"DeviceIndex": 0, "AssociatePublicIpAddress": True, "DeleteOnTermination": True, "Groups": [group]}
    metadata = {"HttpTokens": "required", "HttpEndpoint": "enabled", "HttpPutResponseHopLimit": 1}
    instance = cloud.launch({"a": 1}, BlockDeviceMappings=[disk], NetworkInterfaces=[interface], MetadataOptions=metadata)
    seen = cloud.describe(instance)
    assert seen["MetadataOptions"]["HttpTokens"] == "required"
    assert (
        [one["GroupId"] for one in seen["SecurityGroups"]] == [one["GroupId"] for one in seen["NetworkInterfaces"][0]["Groups"]] == [group]
    )
    volume = cloud.ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [instance]}])["Volumes"][0]
    assert volume["Encrypted"] and volume["Size"] == 60
    attribute = cloud.ec2.describe_instance_attribute
    assert (
        attribute(InstanceId=instance, Attribute="instanceInitiatedShutdownBehavior")["InstanceInitiatedShutdownBehavior"]["Value"]
        == "terminate"
    )
    assert attribute(InstanceId=instance, Attribute="disableApiTermination")["DisableApiTermination"]["Value"] is False
    user_data = attribute(InstanceId=instance, Attribute="userData")["UserData"]["Value"]
    assert json.loads(base64.b64decode(user_data)) == {"a": 1}


def test_a_launch_that_names_no_zone_goes_round_one_without_capacity(cloud: Cloud) -> None:
    full = {"action": "RunInstances", "kind": "error", "code": "InsufficientInstanceCapacity", "zone": "us-east-1a", "times": None}
    cloud.rehearsal.faults([full])
    assert code_of(cloud.ec2.run_instances, **cloud.params(Placement={"AvailabilityZone": "us-east-1a"})) == "InsufficientInstanceCapacity"
    assert cloud.describe(cloud.launch())["Placement"]["AvailabilityZone"] == "us-east-1b"


def test_a_spot_machine_has_a_request_that_closes_with_it(cloud: Cloud) -> None:
    instance = cloud.launch(InstanceMarketOptions={"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time"}})
    request = cloud.describe(instance)["SpotInstanceRequestId"]
    assert cloud.describe(instance)["InstanceLifecycle"] == "spot"
    ask = cloud.ec2.describe_spot_instance_requests
    assert ask(SpotInstanceRequestIds=[request])["SpotInstanceRequests"][0]["State"] == "active"
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    cloud.until(instance, "terminated")
    assert ask(SpotInstanceRequestIds=[request])["SpotInstanceRequests"][0]["State"] == "closed"
    assert cloud.truth(request)["gone"]


def test_the_image_is_the_one_the_parameter_store_names(cloud: Cloud) -> None:
    name = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
    here = cloud.service("ssm").get_parameter(Name=name)["Parameter"]["Value"]
    west = cloud.service("ssm", "us-west-2").get_parameter(Name=name)["Parameter"]["Value"]
    image = cloud.service("ec2", "us-west-2").describe_images(ImageIds=[west])["Images"][0]
    assert here == cloud.image != west
    assert image["OwnerId"] == "898082745236" and image["Name"].endswith("SIMULATED")
    assert image["BlockDeviceMappings"][0]["DeviceName"] == image["RootDeviceName"]
    assert image["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 45
    assert code_of(cloud.service("ssm").get_parameter, Name="/aws/service/nothing") == "ParameterNotFound"
