"""Whole runs on the simulated cloud, up to where a machine would be needed: how each ends, and with which number."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import cost
from provisioner import ledger, profile
from provisioner.errors import Exit
from provisioner.journal import read
from provisioner.life import Access
from provisioner.model import Resource, Verdict
from provisioner.plan import Plan
from provisioner.providers.sim import Fault, SimProvider, World, truth
from provisioner.run import Ended, run
from provisioner.scope import Scope, signals
from tests.core.torture import OFFER


class Bench:
    def __init__(self, tmp: Path) -> None:
        self.cloud = tmp / "cloud.json"
        self.provider = SimProvider(path=str(self.cloud), world=World(linger_s=0.0), settle_s=0.3)
        self.folder = ledger.create({"provider": "sim", "settings": self.provider.settings()})

    def run(self, *, seconds: int = 40, waived: tuple[str, ...] = ("watchdog",), scope: Scope | None = None, tell: Any = None) -> Ended:
        """A run that waits for an address which this cloud never gives: something has to end it."""
        wanted = replace(profile.load("smoke"), waived=waived)
        plan = Plan(wanted, (OFFER,), (cost.own_host(OFFER.price),), 10**6, seconds, seconds, True)
        return run(plan, self.provider, self.folder, scope or Scope(), tell or (lambda stage, text: None), access=Access())

    def billed(self) -> list[Any]:
        return truth(self.cloud).billed()

    def kinds(self) -> list[str]:
        return [e["kind"] for e in read(self.folder.journal).entries]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Bench(tmp_path)


def test_the_deadline_ends_a_run_before_the_machine_has_to(bench: Bench) -> None:
    scope = Scope()
    too_late = threading.Timer(8, lambda: scope.cancel("SIGTERM"))
    too_late.start()
    ended = bench.run(seconds=2, scope=scope)
    too_late.cancel()
    assert (ended.exit, ended.verdict) == (Exit.BUDGET, Verdict.RELEASED)
    assert not bench.billed()
    assert bench.kinds()[-3:] == ["verdict", "outcome", "seal"]


def test_a_signal_ends_it_and_lets_go_first(bench: Bench) -> None:
    scope = Scope()
    with signals(scope, lambda text: None):
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
        ended = bench.run(scope=scope)
    assert (ended.exit, ended.verdict) == (Exit.SIGTERM, Verdict.RELEASED)
    assert not bench.billed()


class Buggy(SimProvider):
    """It makes what was asked for, and then trips over its own feet."""

    def create(self, *args: Any, **more: Any) -> Resource:
        super().create("instance", *args[1:], **more)
        raise KeyError("a bug")


def test_a_bug_does_not_hide_what_may_still_cost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provisioner.closing.SIMULATED_PATIENCE_S", 1.0)
    bench.provider = Buggy(path=str(bench.cloud), world=World(faults=[Fault("remove", 10**6, "denied")]), settle_s=0.3)
    ended = bench.run()
    assert isinstance(ended.error, KeyError)
    assert (ended.exit, ended.verdict) == (Exit.HELD, Verdict.HELD) and bench.billed()


def test_a_bug_that_leaves_nothing_ends_with_the_code_of_a_bug(bench: Bench) -> None:
    bench.provider = Buggy(path=str(bench.cloud), world=World(linger_s=0.0), settle_s=0.3)
    ended = bench.run()
    assert (ended.exit, ended.verdict) == (Exit.BUG, Verdict.RELEASED) and not bench.billed()


def test_nothing_is_rented_under_a_watchdog_that_does_not_start(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    ended = bench.run(waived=())
    assert (ended.exit, ended.verdict) == (Exit.REFUSED, Verdict.RELEASED)
    assert "intent" not in bench.kinds() and not bench.cloud.exists()
    assert not ledger.standing(bench.folder).open  # nothing was asked for: no orphan to worry about


def test_a_run_refused_for_capacity_says_so(bench: Bench) -> None:
    bench.provider.world.faults = [Fault("create", 9, "refuse")]
    ended = bench.run()
    assert (ended.exit, ended.verdict) == (Exit.REFUSED, Verdict.RELEASED)
    assert ended.now.startswith("nothing is running")


def test_a_story_that_cannot_be_told_ends_nothing_halfway(bench: Bench) -> None:
    def tell(stage: str, text: str) -> None:
        if stage == "release":
            raise LookupError("no price")

    with pytest.raises(LookupError):  # said after the verdict was written; the letting go itself was not disturbed
        bench.run(seconds=2, tell=tell)
    assert not bench.billed() and ledger.standing(bench.folder).held.verdict is Verdict.RELEASED
