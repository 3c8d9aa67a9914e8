"""Guards: armed before money is spent, read back, and an error by name where they do not stand."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provisioner import guards, ledger, watchdog
from provisioner.errors import HostError, ProviderError, RefusedError, RunError
from provisioner.guards import GUEST
from provisioner.journal import Journal, instant, rfc3339
from provisioner.lease import Lease
from provisioner.life import Waits
from provisioner.model import Phase, Resource, Result
from provisioner.providers.sim import SimProvider
from provisioner.scope import Scope, SystemClock

CLOCK = SystemClock()
DEADLINE = "2026-11-21T15:00:00.000Z"

MACHINE = f"""\
== machine
now={int(instant(DEADLINE)) - 3600}
uptime=100.5
lease=writable
poweroff=here
== gpulease-deadline.timer
LoadState=loaded
ActiveState=active
SubState=waiting
NextElapseUSecRealtime=Sat 2026-11-21 15:00:00 UTC
== gpulease-deadline-twin.timer
LoadState=loaded
ActiveState=active
SubState=waiting
NextElapseUSecMonotonic=1h 1min 40s
== gpulease-lease.timer
LoadState=loaded
ActiveState=active
SubState=waiting
"""


class Printing:
    """A machine that answers every script with the same text."""

    name = "ubuntu@203.0.113.9"

    def __init__(self, text: str) -> None:
        self.text = text

    def run(
        self, script: str, *, values: Mapping[str, str] | None = None, stdin: bytes = b"", timeout: float = 60.0, check: bool = True
    ) -> Result:
        return Result(0, self.text, "", 0.1)

    def stream(self, script: str, on_line: Callable[[str], None], **_: Any) -> Result:
        raise HostError("not here")

    def put(self, data: bytes, path: str, *, mode: int = 0o600) -> None: ...

    def get(self, path: str, *, limit: int = 1 << 20) -> bytes:
        return b""


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "j", CLOCK) as journal:
        yield journal


def states(journal: Journal) -> dict[str, str]:
    return {e["body"]["guard"]: e["body"]["state"] for e in journal.entries if e["kind"] == "guard"}


def read_back(text: str, journal: Journal, *waived: str) -> dict[str, str]:
    guards.read_back(Printing(text), SimProvider(), journal, DEADLINE, waived)
    return states(journal)


def test_guards_that_stand_are_read_back(journal: Journal) -> None:
    assert read_back(MACHINE, journal) == dict.fromkeys(GUEST, "read-back")


LOADED = ".timer\nLoadState=loaded\nActiveState="
BREAKAGES = [
    ("guest-timer", f"gpulease-deadline{LOADED}active", f"gpulease-deadline{LOADED}inactive"),
    ("guest-timer", "15:00:00 UTC", "15:00:01 UTC"),
    ("guest-timer", "NextElapseUSecRealtime=Sat 2026-11-21 15:00:00 UTC", "NextElapseUSecRealtime="),
    ("guest-twin", f"twin{LOADED}active\nSubState=waiting", f"twin{LOADED}active\nSubState=elapsed"),
    ("guest-twin", "1h 1min 40s", "3h"),
    ("guest-lease", f"lease{LOADED}active", "lease.timer\nLoadState=not-found\nActiveState=inactive"),
    ("guest-lease", "lease=writable", "lease=missing"),
]


@pytest.mark.parametrize(("guard", "old", "new"), BREAKAGES)
def test_a_guard_that_does_not_stand_is_an_error_by_its_name(guard: str, old: str, new: str, journal: Journal) -> None:
    assert MACHINE.count(old) == 1
    with pytest.raises(RunError, match=f"guard {guard} is not armed"):
        read_back(MACHINE.replace(old, new), journal)
    assert states(journal)[guard] == "failed"


@pytest.mark.parametrize(("guard", "old", "new"), BREAKAGES)
def test_only_its_own_name_waives_it(guard: str, old: str, new: str, journal: Journal) -> None:
    others = tuple(name for name in guards.NAMES if name != guard)
    with pytest.raises(RunError):
        read_back(MACHINE.replace(old, new), journal, *others)
    expected = {**dict.fromkeys(GUEST, "read-back"), guard: "waived"}
    assert read_back(MACHINE.replace(old, new), journal, guard) == expected


@pytest.mark.parametrize(
    "text", ["", "nonsense", MACHINE.replace("poweroff=here", "poweroff=missing")], ids=["empty", "nonsense", "no power-off"]
)
def test_without_the_power_off_none_of_them_stands(text: str, journal: Journal) -> None:
    for waived in ((), ("guest-timer",), ("guest-timer", "guest-twin")):
        with pytest.raises(RunError):
            read_back(text, journal, *waived)
    assert read_back(text, journal, *GUEST) == dict.fromkeys(GUEST, "waived")


def test_a_guard_that_nobody_knows_cannot_be_waived() -> None:
    guards.check_waived(guards.NAMES)
    with pytest.raises(RefusedError, match="'watchdogs'"):
        guards.check_waived(("watchdog", "watchdogs"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ledger.LeaseFolder:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return ledger.create({"provider": "sim", "settings": {}})


def in_a_minute() -> str:
    return rfc3339(time.time() + 60)


def test_a_watchdog_is_a_session_of_its_own_and_is_journalled_once_it_watches(folder: ledger.LeaseFolder) -> None:
    with Journal(folder.journal, CLOCK) as journal:
        journal.append("genesis", {"lease": folder.id})
        deadline = in_a_minute()
        guards.arm_watchdog(folder, journal, deadline, ())
        body = journal.entries[-1]["body"]
        pid = int(body["detail"].removeprefix("pid "))
        assert os.getsid(pid) == pid != os.getsid(0)
        assert body["state"] == "armed" and instant(body["firesAt"]) == pytest.approx(instant(deadline) + guards.GRACE_S, abs=0.01)
        journal.append("verdict", {"verdict": "released"})
    assert os.waitpid(pid, 0)[1] == 0


def test_another_takes_the_place_of_a_watchdog_that_ended(folder: ledger.LeaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def end_it() -> int:
        pid = int(journal.entries[-1]["body"]["detail"].removeprefix("pid "))
        os.kill(pid, signal.SIGKILL)
        while watchdog.ended(pid) is None:
            time.sleep(0.01)
        return pid

    def told() -> list[str]:
        return [e["body"]["state"] for e in journal.entries if e["kind"] == "guard"]

    with Journal(folder.journal, CLOCK) as journal:
        journal.append("genesis", {"lease": folder.id})
        tend = guards.arm_watchdog(folder, journal, in_a_minute(), ())
        assert tend() == "" and told() == ["armed"]
        first = end_it()
        assert "the watchdog ended (signal 9); another watches now, pid " in tend()
        assert told() == ["armed", "failed", "armed"] and f"pid {first} " in journal.entries[-2]["body"]["detail"]
        assert tend() == ""
        end_it()
        assert tend() == "", "the next one is started some time later: what kills each at once must not keep the run busy"
        monkeypatch.setattr(guards, "WATCHDOG_AGAIN_S", 0.0)
        monkeypatch.setattr(time, "monotonic", lambda real=time.monotonic: real() + 31.0)
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", "/bin/false")
            assert "no other could be started" in tend()
        assert told()[-1] == "failed"
        assert "another watches now" in tend()
        journal.append("verdict", {"verdict": "released"})
    last = int(next(e["body"]["detail"] for e in reversed(journal.entries) if e["kind"] == "guard").removeprefix("pid "))
    assert os.waitpid(last, 0)[1] == 0


def test_every_wait_of_a_run_looks_after_the_watchdog() -> None:
    waits, looks = Waits(Scope()), list[int]()
    waits.tend = lambda: looks.append(1)
    waits.sleep(0)
    assert looks


@pytest.mark.parametrize("program", ["/bin/true", "/bin/false"])
def test_a_watchdog_that_does_not_say_that_it_watches_is_an_error(
    program: str, folder: ledger.LeaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    with Journal(folder.journal, CLOCK) as journal:
        with pytest.raises(RefusedError, match="did not start"):
            guards.arm_watchdog(folder, journal, in_a_minute(), ())
        assert states(journal) == {}


@pytest.mark.parametrize("waived", [(), ("guest-timer",), ("guest-lease", "guest-twin")])
def test_the_watchdog_is_waived_by_its_own_name_only(
    waived: tuple[str, ...], folder: ledger.LeaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "start", lambda folder, overdue: 4242)
    with Journal(folder.journal, CLOCK) as journal:
        guards.arm_watchdog(folder, journal, in_a_minute(), waived)
        assert states(journal) == {"watchdog": "armed"}
        guards.arm_watchdog(folder, journal, in_a_minute(), (*waived, "watchdog"))
        assert states(journal) == {"watchdog": "waived"}


def test_a_renewal_outlives_a_line_that_is_down() -> None:
    calls: list[float] = []

    def renew(host: Any) -> None:
        calls.append(time.monotonic())
        if len(calls) in (2, 3):
            raise HostError("the line is down")

    with guards.Renewal(renew, Printing(""), True, every=0.01):
        end = time.monotonic() + 5
        while len(calls) < 6 and time.monotonic() < end:
            time.sleep(0.01)
    assert len(calls) >= 6


class Fleets(SimProvider):
    """A cloud that shows of its fleets what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] | ProviderError = []
        self.asked = 0
        self.traits = replace(self.traits, fleets=True)

    def check_fleet(self) -> None:
        raise RefusedError("there is no role for fleets")

    def verify_fleet(self, fleet: Resource) -> list[str]:
        self.asked += 1
        if isinstance(self.wrong, ProviderError):
            raise self.wrong
        return self.wrong


FLEET = Resource("fleet", "fleet-1", Phase.HERE, facts={"firesAt": "2026-11-21T15:04:00Z"})


def fleet_guard(journal: Journal, provider: Fleets, *waived: str) -> str:
    lease = Lease("r-20261121t140210z-7f3a9k2m", provider, journal, CLOCK)
    said = guards.arm_fleet(lease, FLEET, waived)
    guards.read_back_fleet(lease, FLEET, waived, lambda seconds: None)
    return said


def test_a_fleets_end_is_armed_by_its_launch_and_read_back(journal: Journal) -> None:
    assert "ends fleet-1 and its machine at 15:04:00 UTC" in fleet_guard(journal, Fleets())
    told = [(e["body"]["state"], e["body"]["firesAt"]) for e in journal.entries if e["kind"] == "guard"]
    assert told == [("armed", "2026-11-21T15:04:00Z"), ("read-back", "2026-11-21T15:04:00Z")]


@pytest.mark.parametrize("wrong", [["ValidUntil is None, asked for '2026-11-21T15:04:00Z'"], ProviderError("no answer")])
def test_a_fleet_whose_end_is_another_or_cannot_be_read_is_no_guard(wrong: list[str] | ProviderError, journal: Journal) -> None:
    provider = Fleets()
    provider.wrong = wrong
    with pytest.raises(RunError, match="guard fleet is not armed at the provider") as no:
        fleet_guard(journal, provider)
    assert "waive: [fleet]" in no.value.next and states(journal)["fleet"] == "failed"
    assert provider.asked == (1 if isinstance(wrong, list) else 4), "a look that fails is repeated, a difference is not"
    fleet_guard(journal, provider, "fleet")
    assert states(journal)["fleet"] == "waived"


def test_a_fleet_is_a_guard_at_the_provider_unless_it_is_waived_and_only_where_there_are_some() -> None:
    provider = Fleets()
    assert guards.at_the_provider(provider, ["sim-1"], (), fleet=True)
    assert not guards.at_the_provider(provider, ["sim-1"], ("fleet",), fleet=True)
    assert not guards.at_the_provider(provider, ["sim-1"], ())
    guards.check_fleet(provider, False)
    with pytest.raises(RefusedError, match="no role for fleets"):
        guards.check_fleet(provider, True)
    with pytest.raises(RefusedError, match="a machine of sim cannot be asked for through a fleet"):
        guards.check_fleet(SimProvider(), True)
