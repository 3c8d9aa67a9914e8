"""What ends a lease when its owner does not: armed before money is spent, read back, and named in the journal.

    watchdog      a second process here that waits for the owner's lock     (L1b)
    guest-timer   the machine powers itself off at the deadline             (L2)
    guest-twin    the same by a clock that nobody sets                      (L2)
    guest-lease   the machine powers itself off when nobody renews it       (L2b)
    schedule      a one-time schedule at the provider terminates it         (L3)

A guard that cannot be armed or read back is an error, not a warning, unless the profile waives it by name. Guards on
the machine are armed by its own first boot; here they are read back over SSH, before anything is installed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from provisioner import times, watchdog
from provisioner.errors import GpuleaseError, RefusedError, RunError
from provisioner.journal import Journal, instant, rfc3339
from provisioner.ledger import LeaseFolder
from provisioner.model import Host, Provider
from provisioner.scope import Cancelled

GUEST = ("guest-timer", "guest-twin", "guest-lease")
NAMES = ("watchdog", *GUEST, "schedule")
GRACE_S = 60
"""The watchdog gives its owner this long past the deadline to let go by itself."""

RENEW_EVERY_S = float(times.REAL.renew_every_s)
SILENCE_S = times.REAL.silence_s
"""The machine powers itself off after this long without a sign of life from here."""


def arm_watchdog(folder: LeaseFolder, journal: Journal, deadline: str, waived: tuple[str, ...]) -> None:
    if "watchdog" in waived:
        journal.append("guard", {"guard": "watchdog", "state": "waived"})
        return
    overdue = instant(deadline) + GRACE_S
    pid = watchdog.start(folder, overdue)
    journal.append("guard", {"guard": "watchdog", "state": "armed", "firesAt": rfc3339(overdue), "detail": f"pid {pid}"})


def read_back(host: Host, provider: Provider, journal: Journal, deadline: str, waived: tuple[str, ...]) -> str:
    """Read the guards on the machine back, or raise RunError. Returns a phrase for the story."""
    if not provider.traits.powers_itself_off:
        for name in GUEST:
            journal.append("guard", {"guard": name, "state": "waived", "detail": "the machine is not ours to power off"})
        return "the machine is not ours to power off: no timer on it"
    from provisioner.remote import bootstrap

    armed = bootstrap.armed(host, int(instant(deadline)))
    problems: dict[str, list[str]] = {}
    for sentence in armed.missing:
        for name in _guards_of(sentence):
            problems.setdefault(name, []).append(sentence)
    for name in GUEST:
        problem = "; ".join(problems.get(name, []))
        if not problem:
            journal.append("guard", {"guard": name, "state": "read-back", "firesAt": deadline if name != "guest-lease" else None})
        elif name in waived:
            journal.append("guard", {"guard": name, "state": "waived", "detail": problem})
        else:
            journal.append("guard", {"guard": name, "state": "failed", "detail": problem})
            raise RunError(
                f"guard {name} is not armed on the machine: {problem}",
                why="systemctl on the machine says so; without it a dead client could leave the machine running",
                next=f"gpulease doctor; or waive it by name in the profile: waive: [{name}]",
            )
    silence_s = times.of(provider.traits.simulated).silence_s
    return f"power-off armed for {deadline[11:16]} UTC, and on {span(silence_s)} of silence from here"


def span(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"


def _guards_of(sentence: str) -> tuple[str, ...]:
    """Which guards a sentence of `bootstrap.Armed.missing` is about. Without the power-off script none of them stands."""
    for start, name in (
        ("gpulease-deadline-twin", "guest-twin"),
        ("gpulease-deadline", "guest-timer"),
        ("gpulease-lease", "guest-lease"),
        ("lease ", "guest-lease"),
    ):
        if sentence.startswith(start):
            return (name,)
    return GUEST


def at_the_provider(provider: Provider, waived: tuple[str, ...]) -> bool:
    """Would the provider itself end the machine, with nobody logged in here?"""
    return "schedule" not in waived and bool(getattr(provider.traits, "schedules", False))


class Renewal:
    """Keeps telling the machine that somebody is still here, on the connection that is already open."""

    def __init__(self, renew: Callable[[Host], None], host: Host, needed: bool, every: float = RENEW_EVERY_S) -> None:
        self._renew, self._host, self._needed, self._every = renew, host, needed, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="gpulease-renewal")

    def __enter__(self) -> Renewal:
        if self._needed:
            self._renew(self._host)
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        if self._needed:
            self._thread.join(5.0)

    def _work(self) -> None:
        while not self._stop.wait(self._every):
            # Expected to fail while the line is down, or when the run is being stopped: the run itself notices and
            # reconnects, and lasting silence is exactly what the guard on the machine is for.
            with contextlib.suppress(GpuleaseError, Cancelled):
                self._renew(self._host)


def check_waived(waived: tuple[str, ...]) -> None:
    unknown = [name for name in waived if name not in NAMES]
    if unknown:
        raise RefusedError(f"no guard is called {unknown[0]!r}", why=f"known: {', '.join(NAMES)}", next="correct `waive` in the profile")
