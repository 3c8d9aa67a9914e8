"""The watchdog as a process: what it survives, whom it kills and whom it spares, and what it does with damaged files."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from provisioner import ledger, watchdog
from provisioner.journal import Journal, read
from provisioner.ledger import LeaseFolder, standing
from provisioner.model import Verdict
from provisioner.providers.sim import SimProvider, World, truth
from provisioner.scope import SystemClock
from tests.core.torture import SPEC
from tests.os.test_endings import Run

CLOCK = SystemClock()


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def folder(tmp_path: Path) -> LeaseFolder:
    """A lease with a machine, whose owner died."""
    provider = SimProvider(path=str(tmp_path / "cloud.json"), world=World(linger_s=0.0), settle_s=0.3)
    folder = ledger.create({"provider": "sim", "settings": provider.settings()})
    with Journal(folder.journal, CLOCK) as journal:
        journal.append("genesis", {"lease": folder.id, "provider": "sim", "settings": provider.settings(), "simulated": True})
        journal.append("intent", {"op": "create", "class": "instance", "token": "t-1", "params": {}})
        provider.create("instance", SPEC, lease=folder.id, token="t-1", made={})
    return folder


def billed(folder: LeaseFolder) -> int:
    return len(truth(folder.path.parents[3] / "cloud.json").billed())


def until(done: Callable[[], bool], within: float = 60.0) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end and not done():
        time.sleep(0.05)
    return done()


HOLD = """
    import sys, time
    from pathlib import Path
    from provisioner.journal import Journal
    from provisioner.scope import SystemClock
    journal = Journal(Path(sys.argv[1]), SystemClock())
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(folder: LeaseFolder) -> Iterator[subprocess.Popen[str]]:
    """Somebody who has the lease, and is not the parent of any watchdog here."""
    words = [sys.executable, "-c", textwrap.dedent(HOLD), str(folder.journal)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_an_overdue_holder_that_is_not_its_parent_is_spared(folder: LeaseFolder, holder: subprocess.Popen[str]) -> None:
    """Its pid may have become anybody's."""
    words = [sys.executable, "-P", "-m", "provisioner.watchdog", str(folder.path), str(time.time() - 60), str(holder.pid)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as dog:
        assert dog.stdout is not None and dog.stdout.readline() == watchdog.READY
        with pytest.raises(subprocess.TimeoutExpired):
            holder.wait(watchdog.POLL_S * 2.5)
        assert billed(folder) and not [e for e in read(folder.journal).entries if e["kind"] == "recovered"]
        dog.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_no_signal_but_sigkill_ends_it(number: signal.Signals, folder: LeaseFolder) -> None:
    with Journal(folder.journal, CLOCK) as journal:
        pid = watchdog.start(folder, time.time() + 60)
        os.kill(pid, number)
        time.sleep(0.2)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        journal.append("verdict", {"verdict": "released"})
    assert os.waitpid(pid, 0) == (pid, 0)


def test_a_released_lease_is_left_as_it_is(folder: LeaseFolder) -> None:
    with Journal(folder.journal, CLOCK) as journal:
        journal.append("verdict", {"verdict": "released"})
    before = folder.journal.read_bytes()
    assert watchdog.main(folder, time.time() + 60, 0) is None
    assert folder.journal.read_bytes() == before


@pytest.mark.parametrize("verdict", ["held", "leaving", "unproven"])
def test_an_owner_that_gave_up_is_followed_up(verdict: str, folder: LeaseFolder) -> None:
    with Journal(folder.journal, CLOCK) as journal:
        journal.append("verdict", {"verdict": verdict})
    assert watchdog.main(folder, time.time() + 60, 0) is Verdict.RELEASED
    assert not billed(folder)


@pytest.mark.parametrize("harm", ["flipped", "emptied", "deleted", "torn"])
def test_a_journal_that_came_to_harm_does_not_keep_the_machine(harm: str, folder: LeaseFolder) -> None:
    raw = folder.journal.read_bytes()
    match harm:
        case "deleted":
            folder.journal.unlink()
        case "emptied":
            folder.journal.write_bytes(b"")
        case "torn":
            folder.journal.write_bytes(raw + b'{"at":')
        case _:
            folder.journal.write_bytes(raw.replace(b"genesis", b"genesiz", 1))
    assert watchdog.main(folder, time.time() + 60, 0) is (Verdict.RELEASED if harm == "torn" else Verdict.UNPROVEN)
    assert not billed(folder)


@pytest.mark.parametrize("card", [None, b"{"])
def test_a_card_that_came_to_harm_does_not_keep_the_machine(card: bytes | None, folder: LeaseFolder) -> None:
    (folder.path / "lease.json").unlink() if card is None else (folder.path / "lease.json").write_bytes(card)
    assert watchdog.main(folder, time.time() + 60, 0) is Verdict.RELEASED
    assert not billed(folder)


def test_what_is_put_right_later_is_taken_up_then(folder: LeaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "AGAIN_S", 0.05)
    folder.journal.chmod(0o644)
    threading.Timer(0.3, lambda: folder.journal.chmod(0o600)).start()
    assert watchdog.main(folder, time.time() + 60, 0) is Verdict.RELEASED
    assert not billed(folder)


def test_a_folder_in_which_no_lease_was_ever_made_is_nothing_to_watch(tmp_path: Path) -> None:
    assert watchdog.main(LeaseFolder(tmp_path), time.time() + 60, 0) is None
    assert list(tmp_path.iterdir()) == []


def test_somebody_who_takes_the_lease_first_is_watched_in_turn(folder: LeaseFolder) -> None:
    """`gpulease release` racing the watchdog: one of them does it, the other waits, and nothing is done twice."""
    journal = ledger.adopt(folder, "release")
    said: list[Verdict | None] = []
    dog = threading.Thread(target=lambda: said.append(watchdog.main(folder, time.time() + 60, 0)))
    dog.start()
    time.sleep(0.2)
    from provisioner.closing import let_go

    assert let_go(folder, journal) is Verdict.RELEASED
    dog.join(10)
    assert said == [None]
    assert [e["body"]["by"] for e in read(folder.journal).entries if e["kind"] == "recovered"] == ["release"]


def test_an_overdue_owner_that_is_letting_go_is_given_time_to_say_how_it_went(tmp_path: Path) -> None:
    run = Run(tmp_path, "overdue=1").up()
    world = truth(run.cloud)
    world.linger_s = 2.5
    run.cloud.write_text(json.dumps(asdict(world)))
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(60) == 130
    assert run.released(0)
    run.process.communicate(timeout=60)


def test_an_owner_is_given_longer_only_where_nothing_bills_any_more(folder: LeaseFolder) -> None:
    def seen(id: str, phase: str) -> float:
        body = {"class": "instance", "id": id, "phase": phase, "state": "x", "token": f"t-{id}", "billed": True, "region": "", "facts": {}}
        with Journal(folder.journal, CLOCK) as journal:
            journal.append("observe", body)
        return watchdog._time_to_let_go(folder)

    assert seen("1", "here") == 0.0, "it has not begun to let go"
    with Journal(folder.journal, CLOCK) as journal:
        journal.append("intent", {"op": "remove", "class": "instance", "id": "1"})
    assert watchdog._time_to_let_go(folder) == watchdog.LETTING_GO_S
    assert seen("1", "leaving") == watchdog.LETTING_GO_S + watchdog.LINGER_S
    assert seen("2", "here") == watchdog.LETTING_GO_S, "another one still bills"
    assert seen("2", "gone") == watchdog.LETTING_GO_S + watchdog.LINGER_S


SET_BACK = """
    import sys, time
    if "provisioner.watchdog" in sys.orig_argv:
        real, began = time.time, time.monotonic()
        time.time = lambda: real() - (86400 if 0.6 < time.monotonic() - began < 60 else 0)
"""


def test_an_owner_that_hangs_is_killed_even_if_the_clock_was_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(textwrap.dedent(SET_BACK))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    run = Run(tmp_path, "overdue=1.5").up()
    try:
        run.process.send_signal(signal.SIGSTOP)
        assert run.process.wait(45) == -signal.SIGKILL
        assert until(lambda: standing(run.folder).held.verdict is Verdict.RELEASED)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.process.pid, signal.SIGKILL)
        run.process.communicate(timeout=60)


def test_an_owner_that_let_go_of_one_machine_and_asked_for_the_next_is_not_letting_go(folder: LeaseFolder) -> None:
    with Journal(folder.journal, CLOCK) as journal:
        journal.append("intent", {"op": "remove", "class": "instance", "id": "1"})
        assert watchdog._time_to_let_go(folder) == watchdog.LETTING_GO_S
        journal.append("intent", {"op": "create", "class": "instance", "token": "t-2", "params": {}})
        assert watchdog._time_to_let_go(folder) == 0.0, "one that hangs now would bill a quarter of an hour beyond its deadline"
        journal.append("failure", {"error": "Cancelled", "what": "deadline"})
        assert watchdog._time_to_let_go(folder) == watchdog.LETTING_GO_S
