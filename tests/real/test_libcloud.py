"""apache-libcloud's EC2 driver: a second client that nobody here wrote, strict about what awscli forgives.

It asks in the query string where boto3 and awscli send a form, and finds nothing in an answer whose XML namespace differs by a
slash. It sees the same machines as we say, and what it rents itself is a machine like any other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provisioner.errors import Exit
from tests.life.conftest import Bench
from tests.life.conftest import bench as bench

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
Driver = Callable[..., Any]


@pytest.fixture
def driver(bench: Bench, installed: Path, tmp_path: Path) -> Driver:
    python, script = installed / "libcloud/bin/python", Path(__file__).with_name("libcloud_client.py")
    port = bench.cloud.endpoint.rsplit(":", 1)[1]

    def ask(*words: str) -> Any:
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        done = subprocess.run([str(python), "-I", str(script), port, *words], capture_output=True, text=True, env=env, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask


def test_it_sees_the_machine_while_we_hold_it_and_nothing_after(bench: Bench, driver: Driver) -> None:
    process = bench.start(*bench.run_words(), "--keep", "5m")
    assert bench.until(lambda: bench.stage("keep") or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    lease = bench.folder.id
    seen = driver("see")
    (machine,), (disk,) = seen["machines"], seen["disks"]
    ours = {entry["class"]: entry["id"] for entry in bench.cloud.truth() if entry["lease"] == lease}
    deadline = bench.entries("genesis")[0]["deadline"]
    tags = {"gpulease:lease": lease, "gpulease:managed": "true", "gpulease:deadline": deadline, "Name": f"gpulease {lease}"}
    assert (machine["id"], machine["state"], machine["tags"]) == (ours["instance"], "running", tags)
    assert (disk["id"], disk["on"]) == (ours["volume"], machine["id"]) and disk["tags"]["gpulease:lease"] == lease
    assert seen["interfaces"] == [ours["network-interface"]] and ours["security-group"] in seen["groups"]

    process.send_signal(signal.SIGINT)
    assert bench.end(process).code == Exit.SIGINT
    after = driver("see")
    assert [one["state"] for one in after["machines"]] == ["terminated"]
    assert after["disks"] == after["interfaces"] == [] and list(after["groups"].values()) == ["default"]


def test_what_it_rents_and_returns_is_there_and_then_is_not(bench: Bench, driver: Driver) -> None:
    made = driver("rent", "r-libcloud")
    assert made["state"] == "running" and made["zone"] == "us-east-1b" and made["addresses"][0].startswith(("203.0.113.", "198.51.100."))
    assert made["tags"] == {"Name": "made by libcloud", "gpulease:lease": "r-libcloud"}
    there = {entry["id"]: entry for entry in bench.cloud.truth()}
    assert there[made["id"]]["state"] == "running" and there[made["id"]]["lease"] == "r-libcloud"
    assert driver("return", made["id"]) == {"asked": True}
    assert bench.until(lambda: all(entry["gone"] for entry in bench.cloud.truth()))
    assert [one["state"] for one in driver("see")["machines"]] == ["terminated"]
