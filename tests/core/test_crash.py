"""The guarantee on the worst day: every crash point, a disk that fills up, a cloud that lies by omission."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

from provisioner import journal as J
from provisioner.errors import ProviderError
from provisioner.lease import hold, holdings, release
from provisioner.model import Verdict
from provisioner.providers.sim import Crash, Wire
from tests.core.torture import LEASE, SPEC, FullDisk, cloud, program, recover

SETTINGS: list[dict[str, Any]] = [
    {},
    {"late_s": 45.0},
    {"linger_s": 1200.0},
    {"volume_survives": True},
    {"late_s": 45.0, "faults": [("create", 1, "lost")]},
    {"late_s": 45.0, "faults": [("create", 2, "lost")]},
    {"faults": [("create", 1, "refuse")]},
    {"faults": [("inventory", 5, "throttled"), ("remove", 3, "throttled"), ("observe", 2, "throttled")]},
]


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(J, "sync", lambda fd: None)
    monkeypatch.setattr(os, "fsync", lambda fd: None)


DROPS: list[dict[str, Any]] = [{}, {"faults": [("remove", 2, "throttled"), ("observe", 3, "throttled")]}]


@pytest.mark.parametrize(("setting", "machines"), [*((setting, 1) for setting in SETTINGS), *((setting, 2) for setting in DROPS)], ids=str)
def test_every_crash_point_ends_released(setting: dict[str, Any], machines: int, tmp_path: Path) -> None:
    """Also between letting go of one machine and asking for the next."""
    at, crashed = 0, True
    while crashed:
        at += 1
        provider, clock = cloud(**setting)
        folder = tmp_path / str(at)
        folder.mkdir()
        path = folder / "journal.jsonl"
        crashed = False
        try:
            program(provider, clock, path, Wire(at), machines)
        except Crash:
            crashed = True
        except ProviderError:
            pass
        verdict = recover(provider, clock, path)
        assert verdict is Verdict.RELEASED, (at, verdict)
        clock.sleep(1e5)
        assert not provider.world.billed(), (at, provider.world.billed())
        J.read(path)
    assert at > 25


@pytest.mark.parametrize("setting", SETTINGS[:5], ids=str)
def test_a_second_crash_inside_the_recovery_changes_nothing(setting: dict[str, Any], tmp_path: Path) -> None:
    for first in range(1, 40, 3):
        for second in range(1, 30, 2):
            provider, clock = cloud(**setting)
            folder = tmp_path / f"{first}-{second}"
            folder.mkdir()
            path = folder / "journal.jsonl"
            with contextlib.suppress(Crash, ProviderError):
                program(provider, clock, path, Wire(first))
            with contextlib.suppress(Crash):
                recover(provider, clock, path, at=second)
            assert recover(provider, clock, path) is Verdict.RELEASED, (first, second)
            clock.sleep(1e5)
            assert not provider.world.billed(), (first, second)


@pytest.mark.parametrize("left", range(0, 14))
def test_a_full_disk_costs_the_record_never_the_removal(left: int, tmp_path: Path) -> None:
    provider, clock = cloud()
    with FullDisk(tmp_path / "journal.jsonl", clock) as journal:
        journal.left = left
        try:
            journal.append("genesis", {"lease": LEASE})
            with hold(LEASE, provider, journal, clock) as lease:
                for kind in provider.steps(SPEC):
                    lease.create(kind, SPEC)
        except OSError:
            pass
        assert not provider.world.billed()
    J.read(tmp_path / "journal.jsonl")


def test_nothing_is_created_that_could_not_be_written_down_first(tmp_path: Path) -> None:
    for left in range(0, 10):
        provider, clock = cloud()
        path = tmp_path / str(left)
        path.mkdir()
        with FullDisk(path / "journal.jsonl", clock) as journal:
            journal.left = left
            try:
                with hold(LEASE, provider, journal, clock) as lease:
                    for kind in provider.steps(SPEC):
                        lease.create(kind, SPEC)
            except OSError:
                pass
        intents = {
            e["body"]["token"] for e in J.read(path / "journal.jsonl").entries if e["kind"] == "intent" and e["body"]["op"] == "create"
        }
        made = {t.token for t in provider.world.things.values() if t.token}
        assert made <= intents


def test_an_answer_we_may_not_have_is_never_called_released(tmp_path: Path) -> None:
    provider, clock = cloud(faults=[("inventory", 10**9, "denied")])
    with J.Journal(tmp_path / "journal.jsonl", clock) as journal, hold(LEASE, provider, journal, clock, patience=300) as lease:
        lease.create("instance", SPEC)
    assert lease.verdict is Verdict.UNPROVEN
    assert not provider.world.billed()  # asked to go by name all the same


def test_a_machine_that_lingers_is_called_leaving(tmp_path: Path) -> None:
    provider, clock = cloud(linger_s=1e9)
    with J.Journal(tmp_path / "journal.jsonl", clock) as journal, hold(LEASE, provider, journal, clock, patience=300) as lease:
        lease.create("instance", SPEC)
    assert lease.verdict is Verdict.LEAVING


def test_a_machine_that_cannot_be_asked_is_called_held(tmp_path: Path) -> None:
    provider, clock = cloud(faults=[("remove", 10**9, "denied")])
    with J.Journal(tmp_path / "journal.jsonl", clock) as journal, hold(LEASE, provider, journal, clock, patience=300) as lease:
        lease.create("instance", SPEC)
    assert lease.verdict is Verdict.HELD


def test_a_failing_body_is_released_by_its_own_process(tmp_path: Path) -> None:
    provider, clock = cloud()
    with (
        J.Journal(tmp_path / "journal.jsonl", clock) as journal,
        pytest.raises(ZeroDivisionError),
        hold(LEASE, provider, journal, clock) as lease,
    ):
        lease.create("instance", SPEC)
        raise ZeroDivisionError
    assert not provider.world.billed()


def test_one_empty_look_is_not_enough(tmp_path: Path) -> None:
    provider, clock = cloud(linger_s=0.0)
    with J.Journal(tmp_path / "journal.jsonl", clock) as journal:
        with hold(LEASE, provider, journal, clock) as lease:
            lease.create("instance", SPEC)
        empty = [e for e in journal.entries if e["kind"] == "sweep" and e["body"]["checked"] and e["body"]["found"] == 0]
    assert lease.verdict is Verdict.RELEASED
    assert len(empty) >= 2


def test_a_lost_answer_keeps_the_lease_open_for_the_whole_settle_time(tmp_path: Path) -> None:
    provider, clock = cloud(late_s=59.0, faults=[("create", 1, "lost")])
    with J.Journal(tmp_path / "journal.jsonl", clock) as journal:
        with pytest.raises(ProviderError), hold(LEASE, provider, journal, clock) as lease:
            lease.create("instance", SPEC)
        assert lease.verdict is Verdict.RELEASED
        clock.sleep(1e4)
        assert not provider.world.billed()


def test_a_new_machine_that_is_not_shown_yet_is_not_taken_for_gone(tmp_path: Path) -> None:
    provider, clock = cloud(late_s=50.0)
    with J.Journal(tmp_path / "journal.jsonl", clock) as journal:
        with hold(LEASE, provider, journal, clock) as lease:
            machine = lease.create("instance", SPEC)
            assert lease.look(machine).phase is machine.phase
        assert lease.verdict is Verdict.RELEASED
        clock.sleep(1e4)
        assert not provider.world.billed()


def test_a_lease_that_never_asked_for_anything_needs_no_cloud(tmp_path: Path) -> None:
    provider, clock = cloud(faults=[("inventory", 10**9, "denied")])
    with J.Journal(tmp_path / "journal.jsonl", clock) as journal:
        journal.append("genesis", {"lease": LEASE})
        assert release(LEASE, provider, journal, clock) is Verdict.RELEASED


def test_releasing_twice_equals_once(tmp_path: Path) -> None:
    provider, clock = cloud()
    program(provider, clock, tmp_path / "journal.jsonl", Wire())
    asked = {t.id: t.asked for t in provider.world.things.values()}
    assert recover(provider, clock, tmp_path / "journal.jsonl") is Verdict.RELEASED
    assert {t.id: t.asked for t in provider.world.things.values()} == asked


def test_an_open_intent_is_closed_by_a_refusal_and_by_nothing_else(tmp_path: Path) -> None:
    provider, clock = cloud(faults=[("create", 1, "refuse"), ("create", 1, "lost")])
    with J.Journal(tmp_path / "journal.jsonl", clock) as journal:
        lease_body = hold(LEASE, provider, journal, clock)
        with lease_body as lease:
            for _ in range(2):
                with pytest.raises(ProviderError):
                    lease.create("instance", SPEC)
            assert len(holdings(journal.entries).intents) == 1
