"""Hundreds of real processes, killed: afterwards a client that is not ours is asked what is left, and nothing may be.

The batch is run once; the tests look at it in their order. What a failure names can be seen again:
`python -m tests.kills.batch ENDPOINT FOLDER SEED ORDER` against `gpulease rehearse serve`.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.kills.conftest import ROOT, SEED, Batch, Killed
from tests.real.test_awscli import Aws

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def kept(aws: Aws) -> dict[str, list[str]]:
    """By lease, everything that still exists and carries one of our tags, as the AWS command line lists it."""
    tagged = ("--filters", "Name=tag-key,Values=gpulease:lease")
    found: dict[str, list[str]] = defaultdict(list)

    def note(id: str, tags: list[dict[str, str]]) -> None:
        found[next(tag["Value"] for tag in tags if tag["Key"] == "gpulease:lease")].append(id)

    for group in aws.ask("ec2", "describe-instances", *tagged)["Reservations"]:
        for one in group["Instances"]:
            if one["State"]["Name"] != "terminated":
                note(one["InstanceId"], one["Tags"])
    for volume in aws.ask("ec2", "describe-volumes", *tagged)["Volumes"]:
        note(volume["VolumeId"], volume["Tags"])
    for interface in aws.ask("ec2", "describe-network-interfaces", *tagged)["NetworkInterfaces"]:
        note(interface["NetworkInterfaceId"], interface["TagSet"])
    for group in aws.ask("ec2", "describe-security-groups", *tagged)["SecurityGroups"]:
        note(group["GroupId"], group["Tags"])
    for schedule in aws.ask("scheduler", "list-schedules")["Schedules"]:
        found[schedule["Name"][:27]].append(schedule["Name"])
    return found


def everywhere(aws: list[Aws]) -> list[dict[str, list[str]]]:
    """The same, cloud by cloud."""
    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(kept, aws))


@pytest.fixture(scope="module")
def left(aws: list[Aws]) -> list[dict[str, list[str]]]:
    """What is there once everybody who could let go is dead or done, and until reap comes."""
    return everywhere(aws)


def test_three_hundred_and_more_were_killed_and_nobody_hangs(batch: Batch) -> None:
    hit = [run for run in batch.runs if run.hit]
    assert len(hit) >= 300, Counter(run.order.how for run in hit)
    assert {run.order.how for run in hit} == {run.order.how for run in batch.runs}, "a class in which nothing was ever hit tests nothing"
    assert [str(run) for run in batch.runs if run.alive or any("not over" in what for what in run.done)] == []


def test_what_a_guard_was_left_for_is_gone_and_released_is_never_false(
    batch: Batch, left: list[dict[str, list[str]]], record_property: Callable[[str, object], None]
) -> None:
    there = sorted(lease for found in left for lease in found)
    runs = {run.lease: run for run in batch.runs}
    assert set(there) <= set(runs)
    assert [str(runs[lease]) for lease in there if runs[lease].released] == [], "released, and it is still there"
    assert [str(runs[lease]) for lease in there if not runs[lease].orphaned] == [], "a guard was left, and did not end it"
    starved = [run.orphaned for run in batch.runs if run.order.how == "out of memory"]
    assert starved.count(False) > len(starved) / 2, "where the kernel takes both each time, no watchdog is tested"
    assert there, "of those whose run and watchdog died something must be there, or this look sees nothing"
    for line in table(batch.runs, there):
        record_property("measured", line)
    record_property("measured", f"kills: {len(batch.runs)} runs in {batch.took_s:.0f} s, seed {SEED}; falsely released: 0")


def table(runs: list[Killed], left: list[str]) -> list[str]:
    """One line a class: how many, how many in time to be hit, and who let go."""
    lines = []
    for how in sorted({run.order.how for run in runs}):
        of = [run for run in runs if run.order.how == how]
        by = Counter(run.by for run in of)
        said = ", ".join(f"{name} {count}" for name, count in sorted(by.items()))
        hit, still = sum(run.hit for run in of), sum(run.lease in left for run in of)
        lines.append(f"kills: {how:<26} {len(of):>3} runs, {hit:>3} hit; let go by {said}; left for reap: {still}")
    return lines


def test_every_machine_that_was_ever_made_had_its_intent_on_disk(batch: Batch) -> None:
    intents = {run.lease: {e["body"].get("token") for e in run.entries if e["kind"] == "intent"} for run in batch.runs}
    truth = [thing for cloud in batch.clouds for thing in cloud.truth()]
    made = [thing for thing in truth if thing["class"] == "instance" and thing["lease"] in intents]
    assert [thing for thing in made if thing["token"] not in intents[thing["lease"]]] == []
    assert len({thing["token"] for thing in made}) == len(made), "one intent made two machines"
    assert len(made) > 150


def test_reap_ends_what_both_left_behind(
    batch: Batch, aws: list[Aws], left: list[dict[str, list[str]]], record_property: Callable[[str, object], None]
) -> None:
    """From the same computer where the journals are, and from another one for every second lease."""
    due = [sorted(found) for found in left]

    def reap(number: int) -> subprocess.CompletedProcess[str]:
        state = batch.folder / ("state" if number % 2 else "elsewhere")
        words = [sys.executable, "-P", "-m", "provisioner", "reap", "--endpoint", batch.clouds[number].endpoint, "--region", "us-east-1"]
        env = {"PATH": "/usr/bin:/bin", "HOME": str(batch.folder), "XDG_STATE_HOME": str(state)}
        return subprocess.run([*words, "--go", *due[number]], cwd=ROOT, env=env, capture_output=True, text=True)

    with ThreadPoolExecutor(2) as threads:
        ended = list(threads.map(reap, range(len(aws))))
    assert [done.returncode for done in ended] == [0] * len(aws), [done.stdout + done.stderr for done in ended]
    assert everywhere(aws) == [{}] * len(aws)
    assert [one for each in aws for one in each.instances() if one["State"]["Name"] != "terminated"] == []
    assert [one for each in aws for one in each.untagged()] == []
    many = sum(len(leases) for leases in due)
    record_property("measured", f"kills: reap ended {many} leases that both had left; then the AWS command line finds nothing")
