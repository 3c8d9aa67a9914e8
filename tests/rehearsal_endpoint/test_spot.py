"""Spot machines that EC2 wants back: notice, wait, end, and what the request says at each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import paramiko
import pytest

from provisioner.rehearsal.client import Rehearsal
from provisioner.rehearsal.host_ssh import new_host_key

from ..rehearsal_host.conftest import key_of
from .conftest import QUICK, Cloud, code_of, wait_for

SPOT = {"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time", "MaxPrice": "0.8"}}}


@pytest.fixture(autouse=True)
def _no_other_spot_machine(cloud: Cloud) -> None:
    """An interruption takes whichever spot machine runs: none may be left by another test."""
    alive = [{"Name": "instance-state-name", "Values": ["pending", "running"]}, {"Name": "instance-lifecycle", "Values": ["spot"]}]
    for region in {entry["region"] for entry in cloud.rehearsal.truth() if entry["class"] == "spot-instance-request"}:
        ec2 = cloud.service("ec2", region)
        found = [one["InstanceId"] for page in ec2.describe_instances(Filters=alive)["Reservations"] for one in page["Instances"]]
        if found:
            ec2.terminate_instances(InstanceIds=found)


def request_of(cloud: Cloud, instance: str) -> dict[str, Any]:
    id = cloud.describe(instance)["SpotInstanceRequestId"]
    found: dict[str, Any] = cloud.ec2.describe_spot_instance_requests(SpotInstanceRequestIds=[id])["SpotInstanceRequests"][0]
    return found


def heard(cloud: Cloud, instance: str) -> list[dict[str, Any]]:
    lines = (cloud.state / "hosts" / instance / "heard").read_text().splitlines()
    return [document["notice"] for line in lines if "notice" in (document := json.loads(line))]


def test_a_spot_machine_and_its_request_name_each_other(cloud: Cloud) -> None:
    tags = [{"ResourceType": "spot-instances-request", "Tags": [{"Key": "gpulease:lease", "Value": "r-sir"}]}]
    instance = cloud.ec2.run_instances(**(cloud.params(**SPOT) | {"TagSpecifications": tags}))["Instances"][0]
    assert instance["InstanceLifecycle"] == "spot"
    request = request_of(cloud, instance["InstanceId"])
    assert request["SpotInstanceRequestId"] == instance["SpotInstanceRequestId"] and request["InstanceId"] == instance["InstanceId"]
    assert (request["State"], request["Status"]["Code"], request["Type"]) == ("active", "fulfilled", "one-time")
    assert request["SpotPrice"] == "0.800000" and request["LaunchedAvailabilityZone"] == instance["Placement"]["AvailabilityZone"]
    assert abs((datetime.now(UTC) - request["Status"]["UpdateTime"]).total_seconds()) < 60
    by_tag = cloud.ec2.describe_spot_instance_requests(Filters=[{"Name": "tag:gpulease:lease", "Values": ["r-sir"]}])
    assert [one["SpotInstanceRequestId"] for one in by_tag["SpotInstanceRequests"]] == [request["SpotInstanceRequestId"]]
    assert "SpotInstanceRequestId" not in cloud.describe(cloud.launch())


@pytest.mark.parametrize(
    ("reason", "status"), [("price", "instance-terminated-by-price"), ("no-capacity", "instance-terminated-no-capacity")]
)
def test_first_comes_the_notice_and_then_the_end_with_its_reason(cloud: Cloud, reason: str, status: str) -> None:
    cloud.rehearsal.faults([{"spot": {"interrupt_after_s": 0.1, "notice_s": 2, "reason": reason}}])
    instance = cloud.launch(**SPOT)
    (told,) = wait_for(lambda: heard(cloud, instance) if (cloud.state / "hosts" / instance / "heard").exists() else None)
    assert told["action"] == "terminate" and told["time"].endswith("Z")
    request = request_of(cloud, instance)
    assert (request["State"], request["Status"]["Code"]) == ("active", "marked-for-termination")
    assert cloud.describe(instance)["State"]["Name"] == "running"
    gone = cloud.until(instance, "terminated")
    assert gone["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    request = request_of(cloud, instance)
    assert (request["State"], request["Status"]["Code"]) == ("closed", status)
    assert cloud.truth(instance)["by"] == "spot"


def test_one_interruption_takes_one_machine_and_never_an_on_demand_one(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"spot": {"interrupt_after_s": 0.1, "notice_s": 0}}])
    kept, first = cloud.launch(), cloud.launch(**SPOT)
    cloud.until(first, "terminated")
    second = cloud.launch(**SPOT)
    cloud.until(second, "running")
    time.sleep(0.4)
    assert {cloud.describe(id)["State"]["Name"] for id in (kept, second)} == {"running"}
    cloud.rehearsal.faults([{"spot": {"interrupt_after_s": 0, "notice_s": 0, "type": "g5.*"}}])
    time.sleep(0.2)
    assert cloud.describe(second)["State"]["Name"] == "running"
    cloud.rehearsal.faults([{"spot": {"interrupt_after_s": 0, "notice_s": 0, "times": None}}])  # armed while it runs
    cloud.until(second, "terminated")


def test_an_interruption_can_wait_for_so_many_answers_of_the_machines_server(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"spot": {"interrupt_after_requests": 7, "notice_s": 0}}])
    quiet = cloud.launch({"say": [{"other": 1}, []]}, **SPOT)
    busy = cloud.launch({"slow": 0.3, "say": [{"requests": 7}]}, **SPOT)
    on_demand = cloud.launch({"slow": 0.3, "say": [{"requests": 7}]})
    assert cloud.until(busy, "terminated")["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    assert {cloud.describe(id)["State"]["Name"] for id in (quiet, on_demand)} == {"running"}
    first = json.loads((cloud.state / "hosts" / busy / "heard").read_text().splitlines()[0])
    assert first["faults"] == {"spot_notice_after_requests": 7}


def test_a_machine_that_is_let_go_of_before_its_time_ends_as_it_was_asked_to(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"spot": {"interrupt_after_s": 0, "notice_s": 1.5}}])
    instance = cloud.launch(**SPOT)
    wait_for(lambda: request_of(cloud, instance)["Status"]["Code"] == "marked-for-termination")
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    time.sleep(1.7)
    assert cloud.until(instance, "terminated")["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert request_of(cloud, instance)["Status"]["Code"] == "instance-terminated-by-user"
    assert cloud.truth(instance)["by"] == "api"


def test_disarming_takes_an_interruption_back_that_is_not_due_yet(cloud: Cloud) -> None:
    cloud.rehearsal.faults([{"spot": {"interrupt_after_s": 0.3, "notice_s": 0}}])
    instance = cloud.launch(**SPOT)
    cloud.until(instance, "running")
    cloud.rehearsal.faults([{"spot": None}])
    time.sleep(0.5)
    assert cloud.describe(instance)["State"]["Name"] == "running"


def test_cancelling_a_request_leaves_its_machine(cloud: Cloud) -> None:
    instance = cloud.launch(**SPOT)
    request = cloud.describe(instance)["SpotInstanceRequestId"]
    answer = cloud.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request])["CancelledSpotInstanceRequests"]
    assert answer == [{"SpotInstanceRequestId": request, "State": "cancelled"}]
    assert request_of(cloud, instance)["Status"]["Code"] == "request-canceled-and-instance-running"
    assert cloud.until(instance, "running")
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    cloud.until(instance, "terminated")
    assert request_of(cloud, instance)["State"] == "cancelled"
    unknown = code_of(cloud.ec2.cancel_spot_instance_requests, SpotInstanceRequestIds=["sir-00000000"])
    assert unknown == "InvalidSpotInstanceRequestID.NotFound"


def test_the_metadata_service_is_as_the_launch_asked_for_it(cloud: Cloud) -> None:
    optional = cloud.launch(MetadataOptions={"HttpTokens": "optional"})
    assert cloud.describe(optional)["MetadataOptions"]["HttpTokens"] == "optional"
    plain = cloud.launch(**SPOT)
    assert cloud.describe(plain)["MetadataOptions"]["HttpTokens"] == "required", "the image's ImdsSupport is v2.0"
    file = cloud.state / "hosts" / plain / "heard"
    told = json.loads(wait_for(lambda: file.exists() and file.read_text()).splitlines()[0])["metadata"]
    assert told["tokens"] == "required" and told["lifecycle"] == "spot" and told["region"] == "us-east-1"
    assert told["zone"] == cloud.describe(plain)["Placement"]["AvailabilityZone"] and told["image"] == cloud.image


def test_on_a_real_machine_the_notice_is_read_with_curl_and_the_machine_then_goes(start: Callable[..., Rehearsal], tmp_path: Path) -> None:
    cloud = Cloud(start(host_command="", faults=[{"timing": QUICK}]), tmp_path / "state0")
    key, host_key = key_of(new_host_key()), new_host_key()
    config = {"ssh_authorized_keys": [f"ssh-ed25519 {key.get_base64()} x"], "ssh_keys": {"ed25519_private": host_key}}
    data = f"#cloud-config\n{json.dumps(config)}"
    params = cloud.params(SecurityGroupIds=[cloud.group()], **SPOT) | {"UserData": data}
    instance = cloud.ec2.run_instances(**params)["Instances"][0]["InstanceId"]
    address = cloud.until(instance, "running")["PublicIpAddress"]
    wait_for(lambda: (cloud.truth(instance)["host"] or {}).get("port"))
    client = paramiko.SSHClient()
    host, port = cloud.rehearsal.route(address, 22)
    name, given = key_of(host_key).get_name(), key_of(host_key)
    client.get_host_keys().add(f"[{host}]:{port}", name, given)
    client.connect(host, port, username="ubuntu", pkey=key, allow_agent=False, look_for_keys=False)
    ask = (
        "token=$(curl -sf -X PUT http://169.254.169.254/latest/api/token -H 'X-aws-ec2-metadata-token-ttl-seconds: 60'); "
        'curl -sf -H "X-aws-ec2-metadata-token: $token" http://169.254.169.254/latest/meta-data/spot/instance-action; echo " $?"'
    )

    def said() -> str:
        return client.exec_command(ask)[1].read().decode()

    assert said().strip() == "22"
    cloud.rehearsal.faults([{"spot": {"interrupt_after_s": 0, "notice_s": 1.5}}])
    notice = wait_for(lambda: text if '"terminate"' in (text := said()) else "")
    assert json.loads(notice.rsplit(" ", 1)[0])["action"] == "terminate"
    client.close()
    assert cloud.until(instance, "terminated")["StateReason"]["Code"] == "Server.SpotInstanceTermination"
