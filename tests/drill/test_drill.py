"""The drills are runs of the real program; what is tested here is that they tell a layer that works from one that does not."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provisioner.drill import answer, layers, rehearsed
from provisioner.drill.layers import LAYERS, Layer
from provisioner.drill.one import Row, drill
from provisioner.drill.witness import Truth
from provisioner.guards import GUEST, NAMES
from provisioner.scope import Cancelled

GPULEASE = [sys.executable, "-P", "-m", "provisioner"]


def drilled(tmp_path: Path, *words: str) -> tuple[int, dict[str, Any]]:
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run([*GPULEASE, "drill", *words, "--json"], env=env, capture_output=True, text=True, timeout=400)
    return done.returncode, json.loads(done.stdout)


def named(name: str) -> Layer:
    return next(layer for layer in LAYERS if layer.name == name)


def rows(tmp_path: Path, *wanted: Layer) -> Sequence[Row]:
    return rehearsed.rehearse(wanted, tmp_path, time.sleep, lambda name, text: None)


def test_a_run_that_is_killed_is_ended_by_its_watchdog_and_one_that_is_stopped_by_itself(tmp_path: Path) -> None:
    code, said = drilled(tmp_path, "--only", "watchdog", "--only", "way-out")
    assert code == 0 and said["simulated"] and said["schema"] == "gpulease/drill/1", said
    ends = {row["layer"]: row for row in said["drills"]}
    assert ends["watchdog"]["endedBy"] == "watchdog" and ends["watchdog"]["proof"]["stopCause"] == "recovery"
    assert ends["way-out"]["endedBy"] == "way-out" and ends["way-out"]["proof"]["stopCause"] == "client"
    assert all(row["good"] and row["proof"] == row["proof"] | {"verdict": "released", "verify": 0} for row in ends.values())


@pytest.mark.slow
def test_every_layer_ends_its_machine_and_every_proof_is_true(tmp_path: Path) -> None:
    code, said = drilled(tmp_path)
    assert code == 0, said
    assert {row["layer"] for row in said["drills"]} >= set(GUEST) | {"watchdog", "reap", "way-out"}
    assert not [row for row in said["drills"] if row["secondsLate"] is None]


def test_a_layer_that_does_not_work_is_seen_as_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the watchdog killed too, nothing is left: the drill must fail, say so, and still leave nothing behind."""
    monkeypatch.setattr(rehearsed, "LATE_S", 3.0)
    dead = replace(named("watchdog"), kill=(layers.WATCHDOG, layers.RUN), waive=("schedule",))
    (row,) = rows(tmp_path, dead)
    assert not row.good and row.ended_by == "" and "nobody ended i-" in row.wrong[0]


def test_a_signal_in_the_middle_of_a_drill_lets_go_of_the_machine_that_nobody_else_would(tmp_path: Path) -> None:
    broken = threading.Event()

    def sleep(seconds: float) -> None:
        if broken.is_set():
            raise Cancelled("SIGINT")
        time.sleep(seconds)

    layer = named("reap")  # everything that would end it is killed, stopped or waived
    budget = rehearsed.budget_for(rehearsed.PROFILE, rehearsed.RUN_S, rehearsed.REGION)
    with rehearsed._ground(layer, tmp_path / layer.name, budget) as ground:
        with pytest.raises(Cancelled):
            drill(layer, ground, sleep, lambda name, text: broken.set(), contextlib.nullcontext())
        (lease,) = [path.name for path in (ground.state / "gpulease" / "runs").glob("r-*") if "." not in path.name]
        assert ground.witness.machines(lease) and not ground.witness.left(lease)


def test_a_machine_that_another_layer_ended_is_no_proof_of_this_one(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, replace(named("watchdog"), name="guest-timer", by="guest", causes=("guard-guest",)))
    assert not row.good and row.ended_by == "a client"
    assert "ended by a client, not by guest-timer" in row.wrong and "the proof says it was ended by recovery" in row.wrong


def test_a_proof_that_the_cloud_contradicts_is_false(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Truth, "left", lambda self, lease: ["volume vol-1"])
    (row,) = rows(tmp_path, named("way-out"))
    assert "the proof says released, and there is volume vol-1" in row.wrong


def test_a_run_that_never_gets_there_is_a_failed_drill_and_says_why(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, replace(named("watchdog"), faults=({"host": {"driver": "535.54"}},)))
    assert not row.good and "the run ended before machine with its guards read back" in row.wrong[0]


def test_a_drill_is_told_in_eighty_columns_and_without_the_ones_before_it() -> None:
    long = {"verdict": "unproven", "stopCause": "guard-schedule"}
    for layer in LAYERS:
        assert "the same" not in layer.failure and "of that" not in layer.failure, "it is shown alone with --only"
        for row in (Row(layer, ended_by=layer.name, late_s=120, proof=long), Row(layer, late_s=120, proof=long, wrong=["nobody ended it"])):
            _, record, text = answer([row], simulated=True, seconds=1)
            assert max(map(len, text.splitlines())) <= 80 and layer.failure in text
            assert ("WRONG, see below" in text) == bool(row.wrong) and record["drills"][0]["failure"] == layer.failure


def test_every_guard_has_a_drill_and_each_switches_all_the_others_off() -> None:
    assert set(NAMES) <= {layer.name for layer in LAYERS}
    timers = dict(zip(GUEST, layers.ALL_TIMERS, strict=True))
    for layer in LAYERS:
        if layer.name in GUEST:
            assert set(layer.stop) == set(layers.ALL_TIMERS) - {timers[layer.name]}
        if layer.name in ("watchdog", "schedule", "fleet", "reap", "way-out"):
            assert set(layer.stop) == set(layers.ALL_TIMERS)
        assert layers.WATCHDOG in layer.kill or "watchdog" in layer.waive or layer.name.startswith("watchdog")
        assert "schedule" in layer.waive or layer.name == "schedule"
        assert layer.fleet == (layer.name == "fleet")


def test_a_layer_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    code, said = drilled(tmp_path, "--only", "nosuch")
    assert code == 2 and "guest-timer" in said["why"]
