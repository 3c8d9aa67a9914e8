"""Offers that are not to be had: the next one is asked for, each with a request of its own, and only where that can help."""

from __future__ import annotations

from typing import Any

from provisioner.errors import Exit
from tests.life.conftest import Bench


def launches(bench: Bench) -> list[dict[str, Any]]:
    return [entry for entry in bench.cloud.log() if entry["action"] == "RunInstances"]


def test_a_zone_without_room_is_left_for_the_next_and_every_try_is_told_and_proven(bench: Bench) -> None:
    full = {"g6.xlarge": 0}
    ended = bench.run(faults=[{"capacity": {"us-east-1a": full, "us-east-1b": full}}])
    assert ended.code == Exit.OK, ended.story
    assert "no capacity: g6.xlarge in us-east-1a: InsufficientInstanceCapacity" in ended.story
    asked = launches(bench)
    assert len(asked) == 3 and len({one["params"]["ClientToken"] for one in asked}) == 3
    assert len({one["params"]["NetworkInterface.1.SubnetId"] for one in asked}) == 3
    intents = [body for body in bench.entries("intent") if body["op"] == "create" and body["class"] == "instance"]
    assert [body["params"]["zone"] for body in intents] == ["us-east-1a", "us-east-1b", "us-east-1c"]
    assert [body["code"] for body in bench.entries("failed") if body["op"] == "create"] == ["InsufficientInstanceCapacity"] * 2
    assert len([body for body in bench.entries("intent") if body.get("class") == "security-group" and body["op"] == "create"]) == 1
    told = bench.statement()
    assert "availabilityZone" not in told["run"], "its first offer was in another one than its machine"
    assert [one["availabilityZone"] for one in told["instances"]] == ["us-east-1a", "us-east-1b", "us-east-1c"]
    assert not bench.left() and bench.verify() == 0


def test_a_quota_is_the_same_in_every_zone_and_is_asked_once(bench: Bench) -> None:
    ended = bench.run(faults=[{"action": "RunInstances", "kind": "error", "code": "VcpuLimitExceeded", "times": None}])
    assert ended.code == Exit.REFUSED and "VcpuLimitExceeded" in ended.answer["error"]["what"]
    assert len(launches(bench)) == 1 and not bench.left()


def test_a_lost_answer_is_not_followed_by_a_second_request(bench: Bench) -> None:
    ended = bench.run(faults=[{"action": "RunInstances", "kind": "lost"}])
    assert ended.code == Exit.FAILED and len(launches(bench)) == 1
    assert not bench.left()
