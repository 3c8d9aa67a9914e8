"""Endings of a real process by real signals: everything is let go of, whoever has to do it, and the record says who."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from provisioner import journal as J
from provisioner.ledger import LeaseFolder, standing
from provisioner.model import Verdict
from provisioner.providers.sim import World, truth

ROOT = Path(__file__).parents[2]


class Run:
    """A process that holds a lease, and the cloud it holds it in."""

    def __init__(self, tmp: Path, *words: str, seconds: str = "30", answer_takes_s: float = 0.0) -> None:
        self.cloud = tmp / "cloud.json"
        self.cloud.write_text(json.dumps(asdict(World(linger_s=0.3, answer_takes_s=answer_takes_s))))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.os.realrun", str(self.cloud), seconds, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "XDG_STATE_HOME": str(tmp / "state")},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.folder = LeaseFolder(Path(self.process.stdout.readline().strip()))

    def up(self) -> Run:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "up\n"
        return self

    def asking(self) -> Run:
        """Wait until the create has arrived at the cloud; its answer is still on the way."""
        self.until(lambda: bool(truth(self.cloud).things))
        return self

    def until(self, done: Callable[[], bool], within: float = 60.0) -> bool:
        end = time.monotonic() + within
        while time.monotonic() < end:
            if done():
                return True
            time.sleep(0.05)
        return done()

    def released(self, within: float = 60.0) -> bool:
        """Nothing billed, and the journal's last word says so."""
        return self.until(lambda: not truth(self.cloud).billed() and standing(self.folder).held.verdict is Verdict.RELEASED, within)


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    made: list[Run] = []

    def start(*words: str, **kw: object) -> Run:
        made.append(Run(tmp_path, *words, **kw))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for run in made:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.process.pid, signal.SIGKILL)
        run.process.communicate(timeout=60)


def test_a_normal_end(runs: Callable[..., Run]) -> None:
    run = runs(seconds="0.1").up()
    assert run.process.wait(60) == 0
    assert run.released(0)
    assert run.folder.evidence.joinpath("statement.dsse.json").is_file()


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_lets_go_first_and_then_ends_with_its_number(name: str, code: int, runs: Callable[..., Run]) -> None:
    run = runs().up()
    run.process.send_signal(getattr(signal, name))
    assert run.process.wait(60) == code
    assert run.released(0)


def test_more_signals_while_letting_go_change_nothing(runs: Callable[..., Run]) -> None:
    run = runs().up()
    for name, pause in ((signal.SIGINT, 0.1), (signal.SIGINT, 0.1), (signal.SIGTERM, 0.0)):
        run.process.send_signal(name)
        time.sleep(pause)
    assert run.process.wait(60) == 130
    assert run.released(0)


def test_sighup_with_the_terminal_gone(runs: Callable[..., Run]) -> None:
    run = runs().up()
    assert run.process.stderr is not None
    run.process.stderr.close()
    run.process.send_signal(signal.SIGHUP)
    assert run.process.wait(60) == 129
    assert run.released(0)
    run.process.stderr = None


def test_sigkill_is_answered_by_the_watchdog(runs: Callable[..., Run]) -> None:
    run = runs().up()
    run.process.kill()
    assert run.released()
    assert [e["body"]["by"] for e in J.read(run.folder.journal).entries if e["kind"] == "recovered"] == ["watchdog"]
    assert run.until(lambda: (run.folder.evidence / "statement.dsse.json").is_file())


def test_sigkill_of_the_whole_process_group_spares_the_watchdog(runs: Callable[..., Run]) -> None:
    run = runs().up()
    os.killpg(run.process.pid, signal.SIGKILL)
    assert run.released()


def test_sigkill_between_request_and_answer(runs: Callable[..., Run]) -> None:
    run = runs(answer_takes_s=3.0).asking()
    run.process.kill()
    assert run.released()


def test_sigint_between_request_and_answer_waits_for_the_answer(runs: Callable[..., Run]) -> None:
    run = runs(answer_takes_s=0.7).asking()
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(60) == 130
    assert run.released(0)


def test_a_stopped_owner_is_killed_once_overdue(runs: Callable[..., Run]) -> None:
    run = runs("overdue=1").up()
    run.process.send_signal(signal.SIGSTOP)
    assert run.released()
    assert run.process.wait(60) == -signal.SIGKILL


def test_without_a_watchdog_sigkill_leaves_the_machine(runs: Callable[..., Run]) -> None:
    """The proof that the tests above test the watchdog and not something else."""
    run = runs("noguard").up()
    run.process.kill()
    run.process.wait(60)
    assert not run.released(2.0)
    assert truth(run.cloud).billed()
