"""A spot machine that its provider takes back: the run stops at the notice, or goes on with the next offer where it left off."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

import pytest

from provisioner import report
from provisioner.errors import Exit
from tests.life.conftest import Bench

SPOT = {"needs": {"purchase": ["spot", "on-demand"]}}
SLOW = {"host": {"first_token_ms": 150, "token_ms": 5}}


def taken(after: int, notice_s: float = 20.0, times: int = 1) -> dict[str, Any]:
    return {"spot": {"interrupt_after_requests": after, "notice_s": notice_s, "times": times}}


def results(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bench.folder.path / "results.json").read_text())
    return found


def answers(bench: Bench, vantage: str = "host") -> list[str]:
    lines = [json.loads(line) for line in (bench.folder.path / "samples.jsonl").read_text().splitlines()]
    return [one["case"] for one in lines if one.get("vantage") == vantage and one.get("warmup") is False and "case" in one]


def test_a_spot_machine_is_asked_for_once_with_a_ceiling_and_costs_what_the_market_asks(bench: Bench) -> None:
    ended = bench.run(profile=bench.profile(**SPOT))
    assert ended.code == Exit.OK, ended.story
    (asked,) = [entry["params"] for entry in bench.cloud.log() if entry["action"] == "RunInstances"]
    assert asked["InstanceMarketOptions.MarketType"] == "spot"
    assert asked["InstanceMarketOptions.SpotOptions.SpotInstanceType"] == "one-time"
    assert asked["InstanceMarketOptions.SpotOptions.MaxPrice"] == "0.804800"
    assert ", spot" in ended.story and not bench.left() and bench.verify() == 0


def test_at_the_notice_the_run_stops_and_keeps_what_was_measured(bench: Bench) -> None:
    ended = bench.run(profile=bench.profile(**SPOT), faults=[taken(8), SLOW])
    assert ended.code == Exit.INTERRUPTED, ended.story
    assert "takes the spot machine back: terminate at" in ended.answer["error"]["what"]
    assert not results(bench)["complete"] and 0 < len(answers(bench)) < 32
    over = f"{len(answers(bench))} of 64"  # 32 cases at two vantages
    assert [(one["over"], one["ok"]) for one in results(bench)["thresholds"]] == [(over, False)] * 2
    assert bench.entries("outcome")[-1]["outcome"] == "interrupted"
    assert not bench.left() and bench.verify() == 0


@pytest.mark.slow
def test_a_machine_that_goes_without_a_notice_is_known_by_the_reason_that_the_provider_gives(bench: Bench) -> None:
    ended = bench.run(profile=bench.profile(**SPOT), faults=[taken(8, notice_s=0.0), SLOW])
    assert ended.code == Exit.INTERRUPTED, ended.story
    assert bench.entries("outcome")[-1]["outcome"] == "interrupted" and not bench.left()


@pytest.mark.parametrize("notice_s", [20.0, pytest.param(0.0, marks=pytest.mark.slow)])
def test_it_goes_on_with_the_next_offer_from_the_last_finished_case(bench: Bench, notice_s: float) -> None:
    ended = bench.run(profile=bench.profile(**SPOT, on_interruption="continue"), faults=[taken(8, notice_s), SLOW])
    assert ended.code == Exit.OK, ended.story
    found = results(bench)
    assert found["complete"] and len(found["machines"]) == 2
    right = answers(bench)
    if notice_s:
        assert len(right) == len(set(right)) == 32  # nothing was asked twice
    assert len(set(right)) == 32 and found["stats"]["host"]["sent"] == 32
    machines = {body["id"] for body in bench.entries("done") if body["op"] == "create" and body["class"] == "instance"}
    assert len(machines) == 2 and not bench.left() and bench.verify() == 0
    (told,) = report.load(bench.folder.path).interruptions
    assert re.search(r" UTC: the provider .*; [1-9][0-9]* answers are kept; it went on in us-east-1[a-f], on i-", told), told


@pytest.mark.slow
@pytest.mark.parametrize("alone", [False, True], ids=["watchdog", "release"])
def test_kill_9_between_letting_go_of_a_machine_that_is_taken_back_and_asking_for_the_next(alone: bool, bench: Bench) -> None:
    """The journal then ends with a machine asked to go, and no intent after it."""
    bench.cloud.faults([taken(8), SLOW, {"action": "TerminateInstances", "kind": "slow", "seconds": 2.0, "times": 1}])
    process = bench.start(*bench.run_words(bench.profile(**SPOT, on_interruption="continue")))

    def dropping() -> bool:
        return any(body["op"] == "remove" and body["class"] == "instance" for body in bench.entries("intent"))

    assert bench.until(dropping)
    if alone:
        os.killpg(process.pid, signal.SIGSTOP)  # or it would put another watchdog in the place of the one that goes
        pid = next(body["detail"] for body in bench.entries("guard") if body["guard"] == "watchdog").removeprefix("pid ")
        os.kill(int(pid), signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)
    asked = [body for body in bench.entries("intent") if body["op"] == "create" and body["class"] == "instance"]
    assert len(asked) == 1
    if alone:
        process.wait()
        bench.end(bench.start("release", bench.folder.id, "--json"))
    assert bench.released() and bench.verify() == 0
    assert bench.entries("outcome")[-1]["outcome"] in ("recovered", "interrupted")


@pytest.mark.slow
def test_where_nothing_else_is_to_be_had_it_ends_interrupted(bench: Bench) -> None:
    ended = bench.run(
        profile=bench.profile(**SPOT, on_interruption="continue"),
        faults=[
            taken(8),
            SLOW,
            {"action": "RunInstances", "kind": "error", "code": "InsufficientInstanceCapacity", "after": 1, "times": None},
        ],
    )
    assert ended.code == Exit.INTERRUPTED, ended.story
    assert "it could not go on" in ended.answer["error"]["why"] and not bench.left()
