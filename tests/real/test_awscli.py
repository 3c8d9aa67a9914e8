"""The AWS command line as a second pair of eyes: it shares no code and no belief with the provider, and sees the same.

It looks at the rehearsal's endpoint, during runs and after them, and after endings that left something to be found.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from provisioner.errors import Exit
from tests.life.conftest import Bench
from tests.life.conftest import bench as bench

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Aws:
    """`aws ec2 …` against one endpoint, knowing nothing of this machine's own configuration."""

    def __init__(self, command: Path, endpoint: str, home: Path) -> None:
        self.command = command
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "dummy",
            "AWS_SECRET_ACCESS_KEY": "dummy",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_PAGER": "",
        }

    def ask(self, *words: str) -> Any:
        done = subprocess.run([str(self.command), *words, "--output", "json"], capture_output=True, text=True, env=self.env, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def instances(self) -> list[dict[str, Any]]:
        return [one for group in self.ask("ec2", "describe-instances")["Reservations"] for one in group["Instances"]]

    def kept(self, lease: str) -> dict[str, list[str]]:
        """What still exists of a lease, by its tag; an instance that is terminated does not."""
        tag = ("--filters", f"Name=tag:gpulease:lease,Values={lease}")
        found = {
            "instances": [
                one["InstanceId"]
                for group in self.ask("ec2", "describe-instances", *tag)["Reservations"]
                for one in group["Instances"]
                if one["State"]["Name"] != "terminated"
            ],
            "volumes": [one["VolumeId"] for one in self.ask("ec2", "describe-volumes", *tag)["Volumes"]],
            "interfaces": [one["NetworkInterfaceId"] for one in self.ask("ec2", "describe-network-interfaces", *tag)["NetworkInterfaces"]],
            "groups": [one["GroupId"] for one in self.ask("ec2", "describe-security-groups", *tag)["SecurityGroups"]],
        }
        return {kind: ids for kind, ids in found.items() if ids}

    def untagged(self) -> list[str]:
        """Volumes and interfaces of anybody: in this account nobody else has any."""
        return [one["VolumeId"] for one in self.ask("ec2", "describe-volumes")["Volumes"]] + [
            one["NetworkInterfaceId"] for one in self.ask("ec2", "describe-network-interfaces")["NetworkInterfaces"]
        ]


@pytest.fixture
def aws(bench: Bench, awscli: Path, tmp_path: Path) -> Aws:
    return Aws(awscli, bench.cloud.endpoint, tmp_path)


def started(bench: Bench, stage: str = "keep") -> subprocess.Popen[str]:
    process = bench.start(*bench.run_words(), "--keep", "5m")
    assert bench.until(lambda: bench.stage(stage) or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    return process


def orphaned(bench: Bench) -> str:
    """A run whose process and watchdog were both killed. Returns the lease."""
    process = started(bench, "verify")
    os.kill(int(next(b["detail"] for b in bench.entries("guard") if b["guard"] == "watchdog").removeprefix("pid ")), signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return bench.folder.id


def test_it_sees_the_machine_while_we_hold_it_and_nothing_after(bench: Bench, aws: Aws) -> None:
    process = started(bench)
    lease = bench.folder.id
    machine = aws.instances()[0]
    tags = {tag["Key"]: tag["Value"] for tag in machine["Tags"]}
    deadline = bench.entries("genesis")[0]["deadline"]
    assert machine["State"]["Name"] == "running" and len(aws.instances()) == 1
    assert tags == {"gpulease:lease": lease, "gpulease:managed": "true", "gpulease:deadline": deadline, "Name": f"gpulease {lease}"}
    held = aws.kept(lease)
    assert set(held) == {"instances", "volumes", "interfaces", "groups"} and all(len(ids) == 1 for ids in held.values())
    assert aws.ask("sts", "get-caller-identity")["Account"]

    process.send_signal(signal.SIGINT)
    assert bench.end(process).code == Exit.SIGINT
    assert [one["State"]["Name"] for one in aws.instances()] == ["terminated"]
    assert aws.kept(lease) == {} and aws.untagged() == []


@pytest.mark.parametrize("by", ["release", "reap", "reap from elsewhere"])
def test_what_a_killed_run_and_watchdog_left_is_seen_and_then_removed(by: str, bench: Bench, aws: Aws, tmp_path: Path) -> None:
    lease = orphaned(bench)
    left = aws.kept(lease)
    assert set(left) == {"instances", "volumes", "interfaces", "groups"}
    words, expected = ["release", lease], Exit.OK
    if by != "release":
        words = ["reap", "--endpoint", bench.cloud.endpoint, "--region", "us-east-1", "--go", lease]
    if by == "reap from elsewhere":
        # With none of our files the tags are all there is to go by: released speaks of what they show, after the settle time.
        bench.env["XDG_STATE_HOME"] = str(tmp_path / "elsewhere")
        seen = bench.end(bench.start(*words[:-2], "--json"))
        assert [(one["lease"], one["state"], one["due"]) for one in seen.answer["leases"]] == [(lease, "in time", False)]
        assert aws.kept(lease) == left, "looking must not touch"
    ended = bench.end(bench.start(*words, "--json"))
    assert ended.code == expected, (ended.answer, ended.story)
    assert aws.kept(lease) == {} and aws.untagged() == []
    assert [one["State"]["Name"] for one in aws.instances()] == ["terminated"]
