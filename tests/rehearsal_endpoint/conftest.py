"""One quick cloud for most tests of a file, asked with real boto3 over HTTP; tests of processes start their own."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from provisioner.rehearsal import client
from provisioner.rehearsal.client import Rehearsal
from provisioner.rehearsal.knobs import Timing

# All of them: to disarm the faults leaves the timing, and what one test set would hold for the next.
QUICK = asdict(Timing()) | {"pending_s": 0.05, "stopping_s": 0.06, "kill_grace_s": 0.03, "vanish_s": 3600.0, "listing_s": 0.0}
STANDIN = f"{sys.executable} -I -S {Path(__file__).with_name('standin_host.py')}"
_numbers = itertools.count(1)


class Cloud:
    def __init__(self, rehearsal: Rehearsal, state: Path) -> None:
        self.rehearsal, self.state = rehearsal, state
        self.ec2 = self.service("ec2")
        self.image = self.ec2.describe_images(Owners=["898082745236"])["Images"][0]["ImageId"]

    @cache  # noqa: B019  lives as long as its cloud
    def service(self, name: str, region: str = "us-east-1", read_timeout: float = 60) -> Any:
        import boto3
        from botocore.config import Config

        settings: Any = Config
        config = settings(retries={"total_max_attempts": 1}, read_timeout=read_timeout, ignore_configured_endpoint_urls=True)
        session: Any = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name=region)
        return session.client(name, endpoint_url=self.rehearsal.endpoint, config=config)

    def group(self, ingress: bool = True) -> str:
        group: str = self.ec2.create_security_group(GroupName=f"g{next(_numbers)}", Description="d")["GroupId"]
        if ingress:
            rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "203.0.113.7/32"}]}
            self.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
        return group

    def params(self, guest: dict[str, Any] | None = None, lease: str = "", **more: Any) -> dict[str, Any]:
        tags = [{"Key": "gpulease:lease", "Value": lease or f"r-{next(_numbers)}"}]
        return {
            "ImageId": self.image,
            "InstanceType": "g6.xlarge",
            "MinCount": 1,
            "MaxCount": 1,
            "UserData": json.dumps(guest or {}),
            "InstanceInitiatedShutdownBehavior": "terminate",
            "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume", "network-interface")],
            **more,
        }

    def launch(self, guest: dict[str, Any] | None = None, **more: Any) -> str:
        return str(self.ec2.run_instances(**self.params(guest, **more))["Instances"][0]["InstanceId"])

    def describe(self, instance: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
        return found

    def until(self, instance: str, state: str) -> dict[str, Any]:
        found: dict[str, Any] = wait_for(lambda: seen if (seen := self.describe(instance))["State"]["Name"] == state else None)
        return found

    def truth(self, id: str) -> dict[str, Any]:
        return next(entry for entry in self.rehearsal.truth() if entry["id"] == id)

    def found(self, lease: str) -> list[dict[str, Any]]:
        pages = self.ec2.describe_instances(Filters=[{"Name": "tag:gpulease:lease", "Values": [lease]}])["Reservations"]
        return [instance for page in pages for instance in page["Instances"]]


def wait_for(look: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return seen


def code_of(call: Callable[..., Any], **params: Any) -> str:
    """The error code the call is refused with."""
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as refused:
        call(**params)
    response: Any = refused.value.response
    assert response["ResponseMetadata"]["RequestId"]
    return str(response["Error"]["Code"])


@pytest.fixture(scope="module")
def one_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    state = tmp_path_factory.mktemp("cloud")
    # One for each file: whatever a test leaves stays listed, and to list 150 machines takes a fifth of a second.
    rehearsal = client.start(state, host_command=STANDIN, idle_exit=900, faults=[{"timing": QUICK}])
    yield Cloud(rehearsal, state)
    rehearsal.stop()


@pytest.fixture
def cloud(one_cloud: Cloud) -> Iterator[Cloud]:
    yield one_cloud
    one_cloud.rehearsal.faults(None)
    one_cloud.rehearsal.faults([{"timing": QUICK}])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Rehearsal]]:
    started: list[Rehearsal] = []

    def one(**options: Any) -> Rehearsal:
        options.setdefault("host_command", STANDIN)
        options.setdefault("faults", [{"timing": QUICK}])
        started.append(client.start(tmp_path / f"state{len(started)}", **options))
        return started[-1]

    yield one
    for rehearsal in started:
        rehearsal.stop()
