"""Time: the states in their order, what goes with a machine and what stays, and what a guest's power-off does."""

from __future__ import annotations

import ipaddress
import time
from typing import Any

import pytest

from .conftest import Cloud, code_of, wait_for


def _reasons(seen: dict[str, Any]) -> tuple[str, str]:
    return seen.get("StateReason", {}).get("Code", ""), seen["StateTransitionReason"]


def test_the_states_come_in_their_order(cloud: Cloud) -> None:
    seen: list[str] = []

    def note(instance: str, last: str) -> bool:
        state = cloud.describe(instance)["State"]["Name"]
        if not seen or seen[-1] != state:
            seen.append(state)
        return bool(state == last)

    cloud.rehearsal.faults([{"timing": {"pending_s": 0.25, "stopping_s": 0.25}}])
    instance = cloud.launch()
    wait_for(lambda: note(instance, "running"))
    answer = cloud.ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"][0]
    assert (answer["PreviousState"]["Name"], answer["CurrentState"]["Name"]) == ("running", "shutting-down")
    wait_for(lambda: note(instance, "terminated"))
    assert seen == ["pending", "running", "shutting-down", "terminated"]
    code, transition = _reasons(cloud.describe(instance))
    assert code == "Client.UserInitiatedShutdown" and transition.startswith("User initiated (") and transition.endswith("GMT)")


def test_a_machine_terminated_while_pending_never_runs(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"timing": {"pending_s": 0.3}}])
    instance = cloud.launch()
    answer = cloud.ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"][0]
    assert answer["PreviousState"]["Name"] == "pending"
    cloud.until(instance, "terminated")
    time.sleep(0.3)
    assert cloud.describe(instance)["State"]["Name"] == "terminated"


def test_asking_again_is_answered_and_changes_nothing(cloud: Cloud) -> None:
    instance = cloud.launch()
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    asked = cloud.truth(instance)["asked"]
    cloud.until(instance, "terminated")
    answer = cloud.ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"][0]
    assert answer["PreviousState"]["Name"] == answer["CurrentState"]["Name"] == "terminated"
    assert cloud.truth(instance)["asked"] == asked


def test_it_has_an_address_only_while_it_runs_and_never_a_real_one(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"timing": {"pending_s": 1.0}}])
    instance = cloud.launch()
    assert "PublicIpAddress" not in cloud.describe(instance)
    address = ipaddress.ip_address(cloud.until(instance, "running")["PublicIpAddress"])
    assert any(address in ipaddress.ip_network(net) for net in ("203.0.113.0/24", "198.51.100.0/24"))
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    gone = cloud.until(instance, "terminated")
    assert "PublicIpAddress" not in gone and "PrivateIpAddress" not in gone
    assert gone["NetworkInterfaces"] == gone["BlockDeviceMappings"] == gone["SecurityGroups"] == []


def test_disk_and_interface_go_with_the_machine(cloud: Cloud) -> None:
    instance = cloud.launch(lease="r-gone")
    by_tag = [{"Name": "tag:gpulease:lease", "Values": ["r-gone"]}]
    volume = cloud.ec2.describe_volumes(Filters=by_tag)["Volumes"][0]["VolumeId"]
    interface = cloud.ec2.describe_network_interfaces(Filters=by_tag)["NetworkInterfaces"][0]["NetworkInterfaceId"]
    cloud.rehearsal.faults([{"timing": {"stopping_s": 0.25}}])
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    assert cloud.ec2.describe_volumes(Filters=by_tag)["Volumes"]  # not before it is terminated
    cloud.until(instance, "terminated")
    assert cloud.ec2.describe_volumes(Filters=by_tag)["Volumes"] == []
    assert cloud.ec2.describe_network_interfaces(Filters=by_tag)["NetworkInterfaces"] == []
    assert code_of(cloud.ec2.describe_volumes, VolumeIds=[volume]) == "InvalidVolume.NotFound"
    assert code_of(cloud.ec2.describe_network_interfaces, NetworkInterfaceIds=[interface]) == "InvalidNetworkInterfaceID.NotFound"


def test_what_is_not_to_go_with_the_machine_stays_and_can_be_deleted(cloud: Cloud) -> None:
    disk = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 50, "DeleteOnTermination": False}}
    interface = {"DeviceIndex": 0, "DeleteOnTermination": False}
    instance = cloud.launch(lease="r-stays", BlockDeviceMappings=[disk], NetworkInterfaces=[interface])
    by_tag = [{"Name": "tag:gpulease:lease", "Values": ["r-stays"]}]
    volume = cloud.ec2.describe_volumes(Filters=by_tag)["Volumes"][0]["VolumeId"]
    nic = cloud.ec2.describe_network_interfaces(Filters=by_tag)["NetworkInterfaces"][0]["NetworkInterfaceId"]
    assert code_of(cloud.ec2.delete_volume, VolumeId=volume) == "VolumeInUse"
    assert code_of(cloud.ec2.delete_network_interface, NetworkInterfaceId=nic) == "InvalidParameterValue"
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    cloud.until(instance, "terminated")
    assert cloud.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available"
    cloud.ec2.delete_volume(VolumeId=volume)
    cloud.ec2.delete_network_interface(NetworkInterfaceId=nic)
    assert cloud.truth(volume)["gone"] and cloud.truth(nic)["asked"]


def test_a_group_in_use_cannot_go_and_then_it_can(cloud: Cloud) -> None:
    group = cloud.group()
    instance = cloud.launch(SecurityGroupIds=[group])
    assert code_of(cloud.ec2.delete_security_group, GroupId=group) == "DependencyViolation"
    cloud.rehearsal.faults([{"timing": {"stopping_s": 0.25}}])
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    assert code_of(cloud.ec2.delete_security_group, GroupId=group) == "DependencyViolation"
    cloud.until(instance, "terminated")
    cloud.ec2.delete_security_group(GroupId=group)
    assert code_of(cloud.ec2.delete_security_group, GroupId=group) == "InvalidGroup.NotFound"


def test_a_group_that_another_group_names_cannot_go(cloud: Cloud) -> None:
    named, naming = cloud.group(), cloud.group()
    pair = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 2, "UserIdGroupPairs": [{"GroupId": named}]}
    cloud.ec2.authorize_security_group_ingress(GroupId=naming, IpPermissions=[pair])
    assert code_of(cloud.ec2.delete_security_group, GroupId=named) == "DependencyViolation"
    cloud.ec2.delete_security_group(GroupId=naming)
    cloud.ec2.delete_security_group(GroupId=named)


def test_a_guest_that_powers_itself_off_is_terminated(cloud: Cloud) -> None:
    instance = cloud.launch({"exit": 0, "after": 0.1}, lease="r-guest")
    assert _reasons(cloud.until(instance, "terminated")) == ("Client.InstanceInitiatedShutdown", "")
    assert cloud.ec2.describe_volumes(Filters=[{"Name": "tag:gpulease:lease", "Values": ["r-guest"]}])["Volumes"] == []
    assert cloud.truth(instance)["by"] == "guest"


def test_with_shutdown_behaviour_stop_it_is_stopped_and_keeps_its_disk(cloud: Cloud) -> None:
    instance = cloud.launch({"exit": 0, "after": 0.1}, lease="r-stop", InstanceInitiatedShutdownBehavior="stop")
    assert _reasons(cloud.until(instance, "stopped"))[0] == "Client.InstanceInitiatedShutdown"
    assert cloud.ec2.describe_volumes(Filters=[{"Name": "tag:gpulease:lease", "Values": ["r-stop"]}])["Volumes"]
    assert cloud.truth(instance)["gone"] is None
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    cloud.until(instance, "terminated")


def test_a_stopped_machine_starts_again_with_a_new_host(cloud: Cloud) -> None:
    instance = cloud.launch()
    cloud.until(instance, "running")
    first = wait_for(lambda: cloud.truth(instance)["host"])["pid"]
    cloud.ec2.stop_instances(InstanceIds=[instance])
    assert "PublicIpAddress" not in cloud.until(instance, "stopped")
    cloud.ec2.start_instances(InstanceIds=[instance])
    assert cloud.until(instance, "running")["PublicIpAddress"]
    assert cloud.truth(instance)["host"]["pid"] != first


def test_a_guest_that_ends_because_it_was_stopped_has_not_powered_itself_off(cloud: Cloud) -> None:
    instance = cloud.launch({"polite": True})
    cloud.until(instance, "running")
    wait_for(lambda: cloud.truth(instance)["host"]["port"])
    cloud.ec2.stop_instances(InstanceIds=[instance])
    assert _reasons(cloud.until(instance, "stopped"))[0] == "Client.UserInitiatedShutdown"


def test_a_host_that_breaks_leaves_the_machine_running_and_impaired(cloud: Cloud) -> None:
    instance = cloud.launch({"exit": 1, "after": 0.1}, SecurityGroupIds=[cloud.group()])

    def impaired() -> bool:
        found = cloud.ec2.describe_instance_status(InstanceIds=[instance])["InstanceStatuses"]
        return bool(found) and found[0]["InstanceStatus"]["Status"] == "impaired"

    wait_for(impaired)
    with pytest.raises(ConnectionRefusedError):
        cloud.rehearsal.route(cloud.describe(instance)["PublicIpAddress"], 22)


def test_a_terminated_machine_is_listed_for_a_while_and_then_unknown(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"timing": {"vanish_s": 0.2}}])
    instance = cloud.launch(lease="r-vanish")
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    cloud.until(instance, "terminated")
    wait_for(lambda: not cloud.found("r-vanish"))
    assert code_of(cloud.ec2.describe_instances, InstanceIds=[instance]) == "InvalidInstanceID.NotFound"
    assert code_of(cloud.ec2.terminate_instances, InstanceIds=[instance]) == "InvalidInstanceID.NotFound"
    assert cloud.truth(instance)["state"] == "terminated"


def test_a_new_machine_is_listed_late_but_can_be_terminated_at_once(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"timing": {"listing_s": 0.3}}])
    instance, young = cloud.launch(lease="r-late"), cloud.launch(lease="r-young")
    assert code_of(cloud.ec2.describe_instances, InstanceIds=[instance]) == "InvalidInstanceID.NotFound"
    assert cloud.found("r-late") == []
    assert cloud.ec2.describe_volumes(Filters=[{"Name": "tag:gpulease:lease", "Values": ["r-late"]}])["Volumes"] == []
    cloud.ec2.terminate_instances(InstanceIds=[young])
    assert cloud.truth(instance)["state"] in ("pending", "running")
    assert wait_for(lambda: cloud.found("r-late"))[0]["InstanceId"] == instance


def test_ids_that_cannot_be_and_ids_that_are_not(cloud: Cloud) -> None:
    for call in (cloud.ec2.describe_instances, cloud.ec2.terminate_instances):
        assert code_of(call, InstanceIds=["i-nonsense"]) == "InvalidInstanceID.Malformed"
        assert code_of(call, InstanceIds=["i-0123456789abcdef0"]) == "InvalidInstanceID.NotFound"


def test_one_unknown_id_among_others_terminates_none(cloud: Cloud) -> None:
    instance = cloud.launch()
    assert code_of(cloud.ec2.terminate_instances, InstanceIds=[instance, "i-0123456789abcdef0"]) == "InvalidInstanceID.NotFound"
    assert cloud.truth(instance)["asked"] is None
    assert cloud.until(instance, "running")


def test_a_machine_can_be_stuck_shutting_down_until_it_is_forced(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"stuck": {}}])
    stuck, other = cloud.launch(), cloud.launch()
    for instance in (stuck, other):
        cloud.ec2.terminate_instances(InstanceIds=[instance])
    cloud.until(other, "terminated")
    time.sleep(0.3)
    assert cloud.describe(stuck)["State"]["Name"] == "shutting-down"
    cloud.ec2.terminate_instances(InstanceIds=[stuck])
    time.sleep(0.2)
    assert cloud.describe(stuck)["State"]["Name"] == "shutting-down", "asking again does not help"
    cloud.ec2.terminate_instances(InstanceIds=[stuck], Force=True)
    cloud.until(stuck, "terminated")


def test_a_stuck_machine_comes_loose_when_its_time_is_over_or_the_knob_is_taken_away(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"stuck": {"times": None, "type": "g6.xlarge", "for_s": 0.5}}])
    first, second = cloud.launch(), cloud.launch(InstanceType="g6.2xlarge")
    for instance in (first, second):
        cloud.ec2.terminate_instances(InstanceIds=[instance])
    cloud.until(second, "terminated")
    cloud.until(first, "terminated")
    cloud.rehearsal.faults([{"stuck": {"times": None}}])
    third = cloud.launch()
    cloud.ec2.terminate_instances(InstanceIds=[third])
    time.sleep(0.3)
    assert cloud.describe(third)["State"]["Name"] == "shutting-down"
    cloud.rehearsal.faults([{"stuck": None}])
    cloud.until(third, "terminated")


def test_tags_can_go_before_the_terminated_machine_does(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"timing": {"tags_s": 0.2}}])
    instance = cloud.launch(lease="r-untagged")
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    gone = cloud.until(instance, "terminated")
    assert gone["Tags"]
    wait_for(lambda: not cloud.found("r-untagged"))
    assert cloud.describe(instance)["State"]["Name"] == "terminated" and not cloud.describe(instance).get("Tags")
    assert cloud.truth(instance)["lease"] == "r-untagged"


def test_a_listing_can_be_behind_while_the_answer_to_the_change_is_not(cloud: Cloud) -> None:
    instance = cloud.launch()
    cloud.until(instance, "running")
    cloud.rehearsal.faults([{"timing": {"stale_s": 0.5, "stopping_s": 1.0}}])
    time.sleep(0.5)
    answer = cloud.ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"][0]
    assert answer["CurrentState"]["Name"] == "shutting-down"
    assert cloud.describe(instance)["State"]["Name"] == "running"
    running = [{"Name": "instance-state-name", "Values": ["running"]}]
    listed = cloud.ec2.describe_instances(Filters=running)["Reservations"]
    assert instance in {one["InstanceId"] for page in listed for one in page["Instances"]}
    assert cloud.truth(instance)["state"] == "shutting-down"
    cloud.until(instance, "shutting-down")
    cloud.until(instance, "terminated")
    cloud.rehearsal.faults([{"timing": {"pending_s": 1.0}}])
    assert cloud.describe(cloud.launch())["State"]["Name"] == "pending"
