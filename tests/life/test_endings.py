"""Ctrl-C and kill -9 at every stage of a run against the embedded cloud: what is left is asked of the cloud, not of us."""

from __future__ import annotations

import os
import signal

import pytest

from provisioner.errors import Exit
from tests.life.conftest import Bench

STAGES = [
    pytest.param(stage, marks=() if stage == "eval" else pytest.mark.slow)
    for stage in ("launch", "connect", "verify", "serve", "tunnel", "eval", "keep")
]


def reach(bench: Bench, stage: str) -> None:
    process = bench.start(*bench.run_words(), "--keep", "5m")
    assert bench.until(lambda: bench.stage(stage) or process.poll() is not None)
    assert process.poll() is None, process.communicate()


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_lets_go_first(stage: str, bench: Bench) -> None:
    reach(bench, stage)
    bench.started[-1].send_signal(signal.SIGINT)
    ended = bench.end(bench.started[-1])
    assert ended.code == Exit.SIGINT, ended.story
    assert not bench.left()
    assert bench.entries("outcome")[-1]["outcome"] in ("interrupted", "never-launched")
    assert bench.verify() == 0


@pytest.mark.parametrize("stage", STAGES)
def test_kill_9_is_answered_by_the_watchdog(stage: str, bench: Bench) -> None:
    reach(bench, stage)
    os.killpg(bench.started[-1].pid, signal.SIGKILL)
    assert bench.released(), bench.left()
    assert [b["by"] for b in bench.entries("recovered")] == ["watchdog"]
    assert bench.verify() == 0


def watchdogs(bench: Bench) -> list[int]:
    told = [body for body in bench.entries("guard") if body["guard"] == "watchdog" and body["state"] == "armed"]
    return [int(body["detail"].removeprefix("pid ")) for body in told]


def test_another_takes_the_place_of_a_watchdog_that_was_killed(bench: Bench) -> None:
    reach(bench, "serve")
    os.kill(watchdogs(bench)[0], signal.SIGKILL)
    assert bench.until(lambda: len(watchdogs(bench)) == 2, within=20)
    os.killpg(bench.started[-1].pid, signal.SIGKILL)
    assert bench.released(), bench.left()
    assert [b["by"] for b in bench.entries("recovered")] == ["watchdog"]
    assert bench.verify() == 0


@pytest.mark.slow
def test_kill_9_of_run_and_watchdog_is_answered_by_release(bench: Bench) -> None:
    reach(bench, "eval")
    os.killpg(bench.started[-1].pid, signal.SIGSTOP)  # or it would put another in the place of the one that goes
    os.kill(watchdogs(bench)[-1], signal.SIGKILL)
    os.killpg(bench.started[-1].pid, signal.SIGKILL)
    bench.started[-1].wait()
    assert bench.left()
    listed = bench.end(bench.start("ls", "--json"))
    assert listed.answer["leases"][0]["state"].startswith("ORPHANED")
    ended = bench.end(bench.start("release", bench.folder.id, "--json"))
    assert ended.code == Exit.OK and not bench.left()
