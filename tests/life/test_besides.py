"""What somebody else makes while a run goes on, and what a script on the machine leaves behind without a tag: told, and let be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from provisioner import baseline
from provisioner.errors import Exit
from provisioner.evidence import verify
from tests.life.conftest import Bench

DENIED = {"action": "DescribeSnapshots", "kind": "error", "code": "UnauthorizedOperation", "times": None}
SCRIPT = Path(__file__).parents[2] / "auditor" / "verify_shutdown.py"


def rows(bench: Bench) -> dict[str, dict[str, Any]]:
    return {row["class"]: row for row in bench.statement()["unfiltered"]["classes"]}


def test_an_untagged_volume_is_told_of_and_let_be(bench: Bench) -> None:
    run = bench.start(*bench.run_words())
    assert bench.until(lambda: bench.stage("verify"))
    theirs = bench.ec2().create_volume(AvailabilityZone="us-east-1a", Size=8)["VolumeId"]
    ended = bench.end(run)
    assert ended.code == Exit.OK and ended.answer["verdict"] == "released", ended.story
    assert "1 volume in us-east-1. It may be somebody else's; nothing was done to it" in ended.story
    assert bench.ec2().describe_volumes(VolumeIds=[theirs])["Volumes"][0]["State"] == "available"
    assert json.loads((bench.folder.path / baseline.FOUND).read_text())["new"][0]["id"] == theirs

    said, seen = bench.statement(), rows(bench)
    assert said["clean"] and said["verdict"] == "released"
    assert {kind: row["newUnexplained"] for kind, row in seen.items() if row["newUnexplained"]} == {"volume": 1}
    assert "new-unexplained" in said["limits"] and "no-baseline" not in said["limits"]
    report = verify.verify(bench.folder.evidence)
    assert report.exit == 0 and [w.message for w in report.warnings if w.code == "W301"] == [
        "1 new volume in us-east-1, not there before the launch and not known to be of this run: may be somebody else's."
    ]
    for text in (report.text(), *((bench.folder.evidence / name).read_text() for name in ("report.md", "report.html"))):
        assert "1 volume; may be somebody else" in text
    script = subprocess.run([sys.executable, str(SCRIPT), str(bench.folder.evidence)], capture_output=True, text=True)
    assert script.returncode == 0 and "1 volume: new, and not known to be of this run" in script.stdout, script.stdout
    assert not [path for path in bench.folder.evidence.rglob("*") if path.is_file() and theirs.encode() in path.read_bytes()]


def test_where_nobody_else_did_anything_nothing_is_new_and_what_may_not_be_listed_is_not_called_so(bench: Bench) -> None:
    bench.ec2().create_volume(AvailabilityZone="us-east-1a", Size=8)  # it was there before
    ended = bench.run(faults=[DENIED])
    assert ended.code == Exit.OK and "may be somebody else's" not in ended.story, ended.story
    seen, said = rows(bench), bench.statement()
    assert not seen["snapshot"]["checked"] and "newUnexplained" not in seen["snapshot"]
    assert {kind for kind, row in seen.items() if row.get("newUnexplained") == 0} == seen.keys() - {"snapshot"}
    assert said["verdict"] == "released" and "baseline-incomplete" in said["limits"] and "no-baseline" not in said["limits"]
    assert "at " + said["unfiltered"]["at"] + ": nothing (19 of 20 kinds" in verify.verify(bench.folder.evidence).text()


@pytest.mark.parametrize("kept", [True, False])
def test_who_lets_go_of_a_run_that_died_looks_too_and_without_the_first_list_says_that_nobody_did(kept: bool, bench: Bench) -> None:
    run = bench.start(*bench.run_words())
    assert bench.until(lambda: bench.stage("verify"))
    if not kept:
        (bench.folder.path / baseline.FILE).unlink()
    os.kill(run.pid, signal.SIGKILL)
    assert bench.released() and bench.verify() == 0
    said = bench.statement()
    if kept:
        assert {row["newUnexplained"] for row in said["unfiltered"]["classes"]} == {0}
        return
    assert "seq" not in said["unfiltered"] and not any(row["checked"] for row in said["unfiltered"]["classes"])
    assert "no-baseline" in said["limits"] and said["verdict"] == "released"
    assert "nobody looked afterwards" in (bench.folder.evidence / "report.md").read_text()
