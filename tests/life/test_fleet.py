"""A machine that is asked for through a fleet: the whole life of one, and every way in which the fleet could leave a second one behind."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from provisioner.errors import Exit
from tests.life.conftest import Bench

QUICK = {"timing": {"fleet_s": 0.2}}
FLEETS = {"launch": {"fleet": True}}


def truth(bench: Bench, kind: str) -> list[dict[str, Any]]:
    return [thing for thing in bench.cloud.truth() if thing["class"] == kind and thing["lease"]]


def sent(bench: Bench, action: str) -> list[dict[str, Any]]:
    return [entry for entry in bench.cloud.log() if entry["action"] == action]


def test_a_run_through_a_fleet_ends_released_with_a_proof_that_holds(bench: Bench) -> None:
    ended = bench.run(profile=bench.profile(**FLEETS), faults=[QUICK])
    assert ended.code == Exit.OK, ended.story
    assert not sent(bench, "RunInstances") and len(sent(bench, "CreateFleet")) == 1
    (fleet,), (machine,) = truth(bench, "fleet"), truth(bench, "instance")
    assert f"aws itself ends {fleet['id']} and its machine at " in ended.story and ", on demand, through a fleet" in ended.story
    assert fleet["asked"] <= machine["asked"] and (fleet["state"], machine["state"]) == ("deleted", "terminated")
    assert {thing["state"] for thing in truth(bench, "launch-template")} == {"gone"} and not bench.left()
    states = [body["state"] for body in bench.entries("guard") if body["guard"] == "fleet"]
    assert states == ["armed", "read-back"]
    assert bench.verify() == 0
    statement = bench.statement()
    assert statement["verdict"] == "released" and statement["clean"], statement["limits"]
    (instance,) = statement["instances"]
    assert instance["id"] == machine["id"] and instance["stopCause"] == "client" and instance["answer"] == "done"
    (guard,) = [one for one in statement["guards"] if one["kind"] == "fleet"]
    assert {"armedAt", "readBackAt", "removedAt", "firesAt"} <= set(guard)
    assert statement["cost"]["totalHiMicroUsd"] > 0 and [c for c in statement["cost"]["components"] if c["resource"] == machine["id"]]


@pytest.mark.slow
def test_a_fleet_without_room_is_seen_leaving_before_the_next_zone_is_asked_for(bench: Bench) -> None:
    """Fleets that try again for ever: one that was left behind would make a machine as soon as there is room."""
    full = {"g6.xlarge": 0}
    faults = [QUICK, {"capacity": {"us-east-1a": full, "us-east-1b": full}, "fleets_persist": True}]
    ended = bench.run(profile=bench.profile(**FLEETS), faults=faults)
    assert ended.code == Exit.OK, ended.story
    assert "no capacity: g6.xlarge in us-east-1a: InsufficientInstanceCapacity" in ended.story
    asked, deleted = sent(bench, "CreateFleet"), sent(bench, "DeleteFleets")
    assert len(asked) == 3 and len({one["params"]["ClientToken"] for one in asked}) == 3
    templates = [one["params"]["LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateId"] for one in asked]
    assert len(set(templates)) == 3, "each launch has a template of its own"
    assert all(gone["at"] <= next_["at"] for gone, next_ in zip(deleted, asked[1:], strict=False))
    bench.cloud.faults([{"capacity": {"us-east-1a": {"g6.xlarge": None}, "us-east-1b": {"g6.xlarge": None}}}])
    time.sleep(0.6)
    assert len(truth(bench, "instance")) == 1 and not bench.left() and bench.verify() == 0


@pytest.mark.slow
def test_no_room_anywhere_is_a_refusal_and_no_machine_was_made(bench: Bench) -> None:
    ended = bench.run(profile=bench.profile(**FLEETS, needs={"types": ["g6.xlarge"]}), faults=[QUICK, {"capacity": {"*": {"*": 0}}}])
    assert ended.code == Exit.REFUSED and "none of" in ended.answer["error"]["what"], ended.story
    assert bench.entries("outcome")[-1]["outcome"] == "never-launched" and not bench.left() and bench.verify() == 0
    assert bench.statement()["cost"]["totalHiMicroUsd"] == 0


def test_what_a_fleet_makes_in_place_of_a_machine_that_went_is_let_go_of_too(bench: Bench) -> None:
    """Somebody ends the machine; the fleet makes another. Nothing of either may stay, and both are paid for."""
    bench.cloud.faults([QUICK, {"fleets_persist": True}, {"host": {"start_delay_s": 600.0}}])
    process = bench.start(*bench.run_words(bench.profile(**FLEETS)))
    assert bench.until(lambda: bench.stage("verify", "done"))
    (first,) = truth(bench, "instance")
    os.kill(process.pid, signal.SIGSTOP)  # it would let go of the fleet as soon as it noticed
    bench.ec2().terminate_instances(InstanceIds=[first["id"]])
    assert bench.until(lambda: len(truth(bench, "instance")) == 2, 10)
    os.kill(process.pid, signal.SIGCONT)
    ended = bench.end(process)
    assert ended.code == Exit.FAILED, ended.story
    time.sleep(0.5)
    assert len(truth(bench, "instance")) == 2 and not bench.left() and bench.verify() == 0
    said = bench.statement()
    assert said["verdict"] == "released" and len([one for one in said["instances"] if "id" in one]) == 2
    assert len([c for c in said["cost"]["components"] if c["component"] == "instance"]) == 2, "asked for once, paid for twice"


@pytest.mark.slow
def test_after_an_interruption_the_fleet_goes_before_the_next_machine_is_asked_for(bench: Bench) -> None:
    spot = {"needs": {"purchase": ["spot", "on-demand"]}, "on_interruption": "continue"}
    taken = {"spot": {"interrupt_after_requests": 8, "notice_s": 20.0, "times": 1}}
    slow = {"host": {"first_token_ms": 150, "token_ms": 5}}
    ended = bench.run(profile=bench.profile(**FLEETS, **spot), faults=[QUICK, {"fleets_persist": True}, taken, slow])
    assert ended.code == Exit.OK, ended.story
    asked, deleted = sent(bench, "CreateFleet"), sent(bench, "DeleteFleets")
    assert len(asked) == 2 and deleted[0]["at"] <= asked[1]["at"]
    assert asked[0]["params"]["LaunchTemplateConfigs.1.Overrides.1.MaxPrice"] == "0.804800"
    assert len(truth(bench, "instance")) == 2 and not bench.left() and bench.verify() == 0


def test_a_run_killed_before_the_fleets_answer_leaves_nothing(bench: Bench) -> None:
    """The intent is on disk, its answer is not: the watchdog finds fleet, machine and template by tag and token."""
    bench.cloud.faults([QUICK, {"action": "CreateFleet", "kind": "slow", "seconds": 3.0}])
    process = bench.start(*bench.run_words(bench.profile(**FLEETS)))
    assert bench.until(lambda: bool(truth(bench, "instance")))
    os.kill(process.pid, signal.SIGKILL)
    assert bench.released(), bench.left()
    assert len(truth(bench, "instance")) == 1 and bench.verify() == 0
    (ask,) = [body for body in bench.entries("intent") if body["op"] == "create" and body["class"] == "fleet"]
    (machine, *_) = [body for body in bench.entries("observe") if body["class"] == "instance"]
    assert machine["token"] == ask["token"], "it answers the fleet's intent, whose answer was lost"
    said = bench.statement()
    assert said["cost"]["totalHiMicroUsd"] > 0 and said["instances"][0]["stopCause"] == "recovery"


@pytest.mark.slow
def test_a_fleet_that_does_not_end_as_asked_is_let_go_of_before_anything_is_downloaded(bench: Bench) -> None:
    """An account policy, or somebody, takes the end away: DescribeFleets shows another one than was asked for."""
    bench.cloud.faults([QUICK, {"timing": {"fleet_late_s": 3600.0}}])
    ended = bench.run(profile=bench.profile(**FLEETS))
    assert ended.code == Exit.FAILED and "guard fleet is not armed at the provider: ValidUntil is" in ended.answer["error"]["what"]
    assert not any(body["stage"] == "serve" for body in bench.entries("stage")) and not bench.left()


def test_without_the_role_for_fleets_nothing_is_rented_and_it_says_who_makes_it(bench: Bench) -> None:
    ended = bench.run(profile=bench.profile(**FLEETS), faults=[{"fleet_role": False}])
    assert ended.code == Exit.REFUSED and "AWSServiceRoleForEC2Fleet" in ended.answer["what"], ended.answer
    assert "aws iam create-service-linked-role --aws-service-name ec2fleet.amazonaws.com" in ended.answer["next"]
    assert not sent(bench, "CreateFleet") and not sent(bench, "CreateSecurityGroup")
