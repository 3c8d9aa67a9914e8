"""`gpulease drill --live`, the whole of it but AWS: the same program, pointed at a rehearsal and judged by what EC2's API says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.drill import live
from provisioner.errors import RefusedError
from provisioner.journal import Journal
from provisioner.rehearsal import client
from provisioner.scope import SystemClock

GPULEASE = [sys.executable, "-P", "-m", "provisioner", "drill", "--live"]


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[client.Rehearsal]:
    made = client.start(tmp_path / "cloud", idle_exit=120)
    yield made
    made.stop()


def drill(tmp_path: Path, cloud: client.Rehearsal, *words: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")} | {"XDG_STATE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    command = [*GPULEASE, "--endpoint", cloud.endpoint, *words]
    return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)


def test_nothing_is_rented_before_the_amount_was_typed(tmp_path: Path, cloud: client.Rehearsal) -> None:
    wrong = drill(tmp_path, cloud, "--confirm", "yes", "--json")
    assert wrong.returncode == 4 and re.search(r"spend \$0\.\d\d", json.loads(wrong.stdout)["next"])
    assert drill(tmp_path, cloud).returncode == 2, "nobody can type where there is no terminal"
    assert not [thing for thing in cloud.truth() if thing["lease"]]


def test_a_typed_amount_drills_on_the_smallest_machine_and_notes_the_day(tmp_path: Path, cloud: client.Rehearsal) -> None:
    asked = drill(tmp_path, cloud, "--only", "watchdog", "--only", "way-out", "--confirm", "", "--json")
    words = re.search(r"spend \$0\.\d\d", json.loads(asked.stdout)["next"])
    assert words and "t3.nano" in asked.stderr and words[0][6:] in asked.stderr
    done = drill(tmp_path, cloud, "--only", "watchdog", "--only", "way-out", "--confirm", words[0], "--json")
    assert done.returncode == 0, done.stdout
    assert {row["endedBy"] for row in json.loads(done.stdout)["drills"]} == {"watchdog", "way-out"}
    machines = [thing for thing in cloud.truth() if thing["class"] == "instance"]
    assert [machine["type"] for machine in machines] == ["t3.nano"] * 2 and not [m for m in machines if m["gone"] is None]
    noted = json.loads((tmp_path / "gpulease" / "drills.json").read_text())["drills"]
    assert [(d["guard"], d["simulated"]) for d in noted] == [("watchdog", True)], "a rehearsed drill never counts for an account"


def test_the_amount_is_what_has_to_be_typed() -> None:
    live.confirmed(123_456, None, lambda question: "spend $0.13\n")
    for words in ("yes", "spend $0.12", "$0.13", ""):
        with pytest.raises(RefusedError, match="not started"):
            live.confirmed(123_456, words, lambda question: "")


def test_the_journal_of_a_machine_not_seen_gone_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    said: list[str] = []
    with live.state(said.append) as folder:
        lease = folder / "watchdog" / "state" / "gpulease" / "runs" / "r-20261121t140210z-7f3a9k2m"
        lease.mkdir(parents=True, mode=0o700)
        with Journal(lease / "journal.jsonl", SystemClock()) as journal:
            journal.append("intent", {"op": "create", "class": "instance", "token": "t", "params": {}})
    assert lease.is_dir() and f"XDG_STATE_HOME={folder / 'watchdog' / 'state'} gpulease release {lease.name}" in said[0]


def test_what_was_seen_gone_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with live.state(lambda text: pytest.fail(text)) as folder:
        (folder / "watchdog").mkdir()
    assert not folder.exists()
