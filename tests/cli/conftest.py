"""The command line in this process, as a process of its own, and leases in every state that a folder can be in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from provisioner import ledger
from provisioner.cli import app
from provisioner.journal import Journal
from provisioner.scope import SystemClock
from tests.life.conftest import Bench

GPULEASE = [sys.executable, "-P", "-m", "provisioner"]
NOBODY = "http://127.0.0.1:1"
"""A rehearsal's endpoint at which nobody listens any more."""


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def answer(self) -> dict[str, Any]:
        """What was printed, if it was exactly one JSON document."""
        found: dict[str, Any] = json.loads(self.out)
        return found


class Cli:
    """`gpulease` with a state folder and a home of its own, and no credentials."""

    def __init__(self, tmp: Path) -> None:
        self.state, self.home = tmp / "state", tmp
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "XDG_"))}
        self.env |= {"XDG_STATE_HOME": str(self.state), "HOME": str(tmp), "AWS_EC2_METADATA_DISABLED": "true"}

    def __call__(self, *words: str) -> Said:
        """In this process: quick, and without a terminal."""
        without: dict[str, str | None] = {k: None for k in os.environ if k.startswith("AWS_")}
        said = CliRunner().invoke(app, [*words], env={**without, **self.env})
        assert said.exception is None or isinstance(said.exception, SystemExit), said.exception
        return Said(said.exit_code, said.stdout, said.stderr)

    def process(self, *words: str, env: dict[str, str] | None = None, within: float = 60.0, **how: Any) -> Said:
        """As a user starts it."""
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **how}
        done = subprocess.run([*GPULEASE, *words], env={**self.env, **(env or {})}, timeout=within, **how)
        return Said(done.returncode, done.stdout or "", done.stderr or "")

    def lease(self, *entries: tuple[str, dict[str, Any]], endpoint: str | None = NOBODY, ended: bool = False) -> ledger.LeaseFolder:
        """A lease whose owner is gone, with these entries in its journal; none leaves it without one."""
        os.environ["XDG_STATE_HOME"] = str(self.state)
        settings = {"region": "us-east-1", "profile": None, "endpoint": endpoint}
        folder = ledger.create({"provider": "aws", "settings": settings, "access": {"user": "ubuntu", "port": 22}, "simulated": True})
        if entries:
            with Journal(folder.journal, SystemClock()) as journal:
                journal.append("genesis", genesis(folder.id, settings))
                for kind, body in entries:
                    journal.append(kind, body)
        return folder


def genesis(lease: str, settings: dict[str, Any]) -> dict[str, Any]:
    lines = [{"name": "instance", "microUsdPerHour": 804800, "fixedMicroUsd": 0, "source": "a list", "asOf": "2026-07-20"}]
    price = {"microUsdPerHour": 804800, "source": "a list", "asOf": "2026-07-20"}
    return {
        "lease": lease,
        "provider": "aws",
        "settings": settings,
        "profile": {"name": "smoke", "sha256": "0" * 64},
        "deadline": "2026-11-21T14:02:10.000Z",
        "maxRunSeconds": 2700,
        "budgetMicroUsd": 1_000_000,
        "offer": {"provider": "aws", "region": "us-east-1", "type": "g6.xlarge", "gpu": "L4", "gpus": 1, "spot": False, "price": price},
        "quote": {
            "lines": lines,
            "expectedSeconds": 1,
            "expectedMicroUsd": 1,
            "deadlineSeconds": 1,
            "tailSeconds": 960,
            "atMostMicroUsd": 1,
        },
        "producer": {"name": "gpulease", "version": "0", "pythonVersion": "3"},
        "simulated": settings["endpoint"] is not None,
        "waived": [],
    }


ASKED = ("intent", {"op": "create", "class": "instance", "token": "t-1", "params": {}})
MADE = (
    "done",
    {
        "op": "create",
        "intentSeq": 1,
        "class": "instance",
        "id": "i-1",
        "phase": "here",
        "state": "running",
        "token": "t-1",
        "billed": True,
        "region": "us-east-1",
        "facts": {"type": "g6.xlarge", "address": "203.0.113.9", "launchTime": "2026-11-21T13:02:10Z"},
    },
)
RELEASED = ("verdict", {"verdict": "released", "left": [], "settleSeconds": 1, "openIntents": 0})


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Cli(tmp_path)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    """A command in this process must leave the handlers as it found them."""
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    yield
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
