"""The batch of killed processes, run once, and the AWS command line to ask what is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provisioner import journal as J
from provisioner.journal import Entry
from provisioner.lease import holdings
from provisioner.model import Verdict
from provisioner.rehearsal import client
from provisioner.rehearsal.client import Rehearsal
from tests.kills import orders
from tests.real.conftest import ROOT, cannot
from tests.real.test_awscli import Aws

SEED = int(os.environ.get("GPULEASE_KILLS_SEED", "20261125"))
CLOUDS = 4
QUICK = {"timing": {"pending_s": 0.0, "stopping_s": 0.05, "kill_grace_s": 0.05, "vanish_s": 20.0}}


@dataclass(frozen=True)
class Killed:
    """One run of the batch, as it was when everybody who could let go of it was dead or done."""

    order: orders.Order
    lease: str
    done: list[str]
    status: int
    dog: int | None  # its watchdog's status
    alive: bool
    took_s: float
    entries: list[Entry]
    ballast: bool

    @property
    def released(self) -> bool:
        return holdings(self.entries).verdict is Verdict.RELEASED

    @property
    def by(self) -> str:
        """Who let go of it last, or nobody yet."""
        if not self.released and not any(e["kind"] == "verdict" for e in self.entries):
            return "nobody"
        return next((e["body"]["by"] for e in reversed(self.entries) if e["kind"] == "recovered"), "the run")

    @property
    def orphaned(self) -> bool:
        """Was nobody here left to let go of it? The order says so, or the kernel, which at times takes a group's second process too."""
        both = os.WIFSIGNALED(self.status) and self.dog is not None and os.WIFSIGNALED(self.dog)
        return self.order.how in orders.ORPHANS or (self.order.how == "out of memory" and both)

    @property
    def hit(self) -> bool:
        """Did the trouble come before the run was over?"""
        match self.order.how:
            case "the run, at a named point" | "both, at a named point" | "out of memory":
                return os.WIFSIGNALED(self.status)
            case "disk full":
                return not self.ballast
            case _:
                return any("too late" not in what for what in self.done)

    def __str__(self) -> str:
        ends = f"status {self.status}, its watchdog's {self.dog}"
        return f"seed {SEED} order {self.order.number} ({self.order}), lease {self.lease}: {', '.join(self.done)}, {ends}"


class Batch:
    def __init__(self, clouds: list[Rehearsal], folder: Path, took_s: float) -> None:
        self.clouds, self.folder, self.took_s = clouds, folder, took_s
        self.runs = [self._killed(json.loads(line)) for line in (folder / "ended.jsonl").read_text().splitlines()]

    def _killed(self, raw: dict[str, Any]) -> Killed:
        lease, done, status, dog, alive, took = (raw.pop(name) for name in ("lease", "done", "status", "dog", "alive", "took_ms"))
        path = Path(lease)
        entries = J.read(path / "journal.jsonl").entries if lease and (path / "journal.jsonl").exists() else []
        ballast = (path / "ballast").exists()
        return Killed(orders.Order(**raw), path.name, done, -1 if status is None else status, dog, alive, took / 1000, entries, ballast)


@pytest.fixture(scope="session")
def awscli() -> Path:
    """The AWS command line, installed once and alone: nothing else of tests/real is needed here."""
    folder = os.environ.get("GPULEASE_REAL") or str(ROOT / ".cache/real")
    done = subprocess.run(
        [str(ROOT / "tools/real-input.sh"), folder, "awscli"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": sys.executable},
        cwd=ROOT,
    )
    if done.returncode:
        cannot(f"tools/real-input.sh ended with {done.returncode}: {done.stderr.strip()[-600:]}")
    return Path(folder).resolve() / "awscli/bin/aws"


@pytest.fixture(scope="session")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Batch]:
    if os.geteuid() != 0:
        cannot("a control group to be killed in and a disk that is full need root")
    folder = tmp_path_factory.mktemp("kills")
    host = ROOT / "tests/kills/host.sh"
    clouds = [
        client.start(folder / f"cloud{n}", idle_exit=900, faults=[QUICK], host_command=f"sh {host}", timeout=60) for n in range(CLOUDS)
    ]
    began = time.monotonic()
    words = [sys.executable, "-m", "tests.kills.batch", ",".join(cloud.endpoint for cloud in clouds), str(folder), str(SEED)]
    try:
        with (folder / "story").open("w") as story:
            # Twenty at a time, and as many watchdogs: without `nice` they would leave nothing to the tests beside them.
            subprocess.run(["nice", "-n", "5", *words], cwd=ROOT, check=True, stdout=story, stderr=story, timeout=900)
        yield Batch(clouds, folder, time.monotonic() - began)
    finally:
        for cloud in clouds:
            cloud.stop()
        for mounted in folder.glob("disk*"):
            subprocess.run(["umount", "-l", str(mounted)], check=True)
        for top in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
            for group in top.glob("gpulease-kills-*"):
                group.rmdir()


@pytest.fixture(scope="session")
def aws(batch: Batch, awscli: Path) -> list[Aws]:
    return [Aws(awscli, cloud.endpoint, batch.folder) for cloud in batch.clouds]
