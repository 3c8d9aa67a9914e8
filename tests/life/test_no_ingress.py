"""A machine that no address may reach: whole runs, through a program in the place of the user's `aws`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.life.conftest import Bench

ENDPOINT = [{"connect_endpoints": {"us-east-1": "create-complete"}}]
MANAGED = [{"session_manager": True}]


def asked(bench: Bench, action: str) -> list[dict[str, Any]]:
    return [entry for entry in bench.cloud.log() if entry["action"] == action]


def programs(bench: Bench) -> list[str]:
    """The programs that carry a connection to this bench's cloud, alive now."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if bench.cloud.endpoint in words and any(word.endswith("rehearsal/aws.py") for word in words):
            found.append(folder.name)
    return found


def no_address(bench: Bench) -> bool:
    """The machine had none, nobody paid for one, and no rule lets one in."""
    rules = [key for entry in asked(bench, "AuthorizeSecurityGroupIngress") for key in entry["params"] if "Cidr" in key]
    paid = [c for c in bench.statement()["cost"]["components"] if c["component"] == "public-ipv4" and c["hiMicroUsd"]]
    seen = [entry["facts"] for entry in bench.entries("observe") if entry["class"] == "instance" and "facts" in entry]
    return bool(seen) and not rules and not paid and not any(facts.get("address") for facts in seen)


def test_a_run_through_an_instance_connect_endpoint_ends_released_and_proven(bench: Bench) -> None:
    ended = bench.run("--no-ingress", faults=ENDPOINT)
    assert (ended.code, ended.answer["verdict"]) == (0, "released"), ended.story
    assert no_address(bench) and not bench.left()
    [rule] = [entry["params"] for entry in asked(bench, "AuthorizeSecurityGroupIngress")]
    assert rule["IpPermissions.1.Groups.1.GroupId"].startswith("sg-"), "the one rule: the endpoint's group"
    tunnels = asked(bench, "OpenTunnel")
    assert sum(entry["status"] == 200 for entry in tunnels) == 3, "for a new host key, for the work, and the tunnel to the model"
    assert bench.verify() == 0 and bench.until(lambda: not programs(bench), 10)


def test_a_run_through_session_manager_has_no_rule_at_all(bench: Bench) -> None:
    ended = bench.run("--no-ingress", profile=bench.profile(launch={"reach": "ssm"}), faults=MANAGED)
    assert (ended.code, ended.answer["verdict"]) == (0, "released"), ended.story
    assert no_address(bench) and not asked(bench, "AuthorizeSecurityGroupIngress")
    assert sum(entry["status"] == 200 for entry in asked(bench, "StartSession")) == 3
    assert bench.verify() == 0 and bench.until(lambda: not programs(bench), 10)


def test_without_an_endpoint_nothing_is_launched(bench: Bench) -> None:
    ended = bench.run("--no-ingress")
    assert ended.code == 4 and "no Instance Connect endpoint" in ended.answer["error"]["what"], ended.story
    assert not asked(bench, "RunInstances") and not bench.left() and ended.answer["verdict"] == "released"


def test_a_right_that_is_missing_for_the_way_in_is_named_and_the_machine_goes(bench: Bench) -> None:
    ended = bench.run(
        "--no-ingress", faults=[*ENDPOINT, {"action": "OpenTunnel", "kind": "error", "code": "AccessDeniedException", "times": None}]
    )
    assert (ended.code, ended.answer["verdict"]) == (5, "released"), ended.story
    assert "carries the connection was refused" in ended.answer["error"]["what"] and "OpenTunnel" in ended.answer["error"]["why"]
    assert len(asked(bench, "OpenTunnel")) == 1 and not bench.left(), "a refusal is not asked again"


def test_a_connection_that_aws_ends_ends_the_run_and_not_the_promise(bench: Bench) -> None:
    # The real limit is an hour, and a plan beyond it is refused; this is what an earlier end does.
    late = {"host": {"start_delay_s": 5.0}}  # so that it ends while the server starts, however quick this computer is
    ended = bench.run("--no-ingress", faults=[*ENDPOINT, {"timing": {"tunnel_s": 1.5}}, late])
    assert (ended.code, ended.answer["verdict"]) == (5, "released"), ended.story
    assert "the tunnel was closed after 1.5 s" in ended.answer["error"]["why"], ended.answer
    assert not bench.left() and bench.verify() == 0 and bench.until(lambda: not programs(bench), 10)


def test_after_a_kill_the_programs_end_and_the_watchdog_lets_go(bench: Bench) -> None:
    bench.cloud.faults(ENDPOINT)
    process = bench.start(*bench.run_words(), "--no-ingress", "--keep", "5m")
    assert bench.until(lambda: bench.stage("keep"), 60) and len(programs(bench)) == 2
    os.kill(process.pid, signal.SIGKILL)
    assert bench.released() and bench.verify() == 0
    assert bench.until(lambda: not programs(bench), 10)


@pytest.mark.parametrize("words", [["plan", "smoke"], ["run", "smoke", "--yes"]], ids=lambda words: words[0])
def test_a_run_that_outlasts_a_connection_is_refused_before_anything_is_made(bench: Bench, words: list[str]) -> None:
    profile = bench.profile(launch={"reach": "endpoint"}, budget={"usd": "5.00", "minutes": 61})
    process = bench.start(words[0], profile, *words[2:], "--rehearse", "--endpoint", bench.cloud.endpoint, "--json")
    ended = bench.end(process)
    assert ended.code == 4 and "61 min" in ended.answer["what"] and "60 min" in ended.answer["what"], ended.answer
    assert "--minutes 60" in ended.answer["next"] and not bench.cloud.truth()
