"""What ends a lease when its owner does not: armed before money is spent, read back, and named in the journal.

    watchdog      a second process here that waits for the owner's lock     (L1b)
    guest-timer   the machine powers itself off at the deadline             (L2)
    guest-twin    the same by a clock that nobody sets                      (L2)
    guest-lease   the machine powers itself off when nobody renews it       (L2b)
    schedule      a one-time schedule at the provider terminates it         (L3)
    fleet         what the provider made it from ends, and ends it too      (L3', only with launch.fleet)

A guard that cannot be armed or read back is an error, not a warning, unless the profile waives it by name. Guards on
the machine are armed by its own first boot; here they are read back over SSH, before anything is installed. The schedule
is a resource of the lease: made right after the machine, whose id it names, and removed by `release` once that is seen gone. The
fleet is armed by the launch itself, and removed before the machine, because it could make another; its removal ends the machine.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from provisioner import drills, times, watchdog
from provisioner.errors import GpuleaseError, NotPermitted, ProviderError, RefusedError, RunError
from provisioner.journal import Journal, instant, rfc3339
from provisioner.lease import Lease
from provisioner.ledger import LeaseFolder
from provisioner.model import Fleeting, Host, LaunchSpec, Provider, Resource, Scheduling
from provisioner.scope import Cancelled

SCHEDULE, FLEET = "schedule", "fleet"
GUEST = ("guest-timer", "guest-twin", "guest-lease")
NAMES = ("watchdog", *GUEST, SCHEDULE, FLEET)
GRACE_S = 60
"""The watchdog gives its owner this long past the deadline to let go by itself."""

WATCHDOG_AGAIN_S = 30.0
"""At most so often is another watchdog started in the place of one that ended."""

RENEW_EVERY_S = float(times.REAL.renew_every_s)
SILENCE_S = times.REAL.silence_s
"""The machine powers itself off after this long without a sign of life from here."""


def arm_watchdog(
    folder: LeaseFolder, journal: Journal, deadline: str, waived: tuple[str, ...], provider: Provider | None = None, region: str = ""
) -> Callable[[], str]:
    """Returns what the run calls now and then, in its own thread: another takes the place of one that ended. It answers
    with a phrase for the story when there is something to tell, and never raises: the run goes on under the other guards.
    """
    if "watchdog" in waived:
        journal.append("guard", {"guard": "watchdog", "state": "waived"})
        return lambda: ""
    overdue = instant(deadline) + GRACE_S
    known = drilled(provider, region, "watchdog") if provider is not None else {}
    pid, again = 0, 0.0

    def arm(write: Callable[[str, dict[str, Any]], object]) -> None:
        nonlocal pid
        pid = watchdog.start(folder, overdue)
        write("guard", {"guard": "watchdog", "state": "armed", "firesAt": rfc3339(overdue), "detail": f"pid {pid}", **known})

    def tend() -> str:
        nonlocal again
        # Its owner lives, so it had no reason to end: somebody killed it, or the kernel did when memory ran out.
        if (ended := watchdog.ended(pid)) is None or time.monotonic() < again:
            return ""
        how = f"signal {-ended}" if ended < 0 else f"exit code {ended}"
        again = time.monotonic() + WATCHDOG_AGAIN_S
        journal.note("guard", {"guard": "watchdog", "state": "failed", "detail": f"pid {pid} ended ({how}) before the run did"})
        try:
            arm(journal.note)  # a full disk must not say that a watchdog which was started was not
        except (GpuleaseError, OSError) as e:
            return f"the watchdog ended ({how}), and no other could be started: {e}; the next try is in {WATCHDOG_AGAIN_S:.0f} s"
        return f"the watchdog ended ({how}); another watches now, pid {pid}"

    arm(journal.append)
    return tend


def check_schedule(provider: Provider, regions: Sequence[str], waived: tuple[str, ...]) -> None:
    """Before anything is rented: is there all that a schedule needs? RefusedError with the command that makes it."""
    if provider.traits.schedules and SCHEDULE not in waived:
        cast(Scheduling, provider).check_schedule(tuple(dict.fromkeys(regions)))


def arm_schedule(lease: Lease, spec: LaunchSpec, waived: tuple[str, ...], sleep: Callable[[float], None]) -> str:
    """Right after the machine was asked for: the provider is told to end it, and asked what it was told. A phrase for the story."""
    provider, journal = lease.provider, lease.journal
    if not provider.traits.schedules:
        return ""
    if SCHEDULE in waived:
        journal.append("guard", {"guard": SCHEDULE, "state": "waived"})
        return "no schedule at the provider: the profile waives it"
    try:
        schedule = lease.create(SCHEDULE, spec)
    except GpuleaseError as e:
        raise _not_armed(journal, e.what, e.why, e.next) from e
    fires: dict[str, Any] = {"firesAt": str(schedule.facts["firesAt"]), "detail": schedule.id}
    journal.append("guard", {"guard": SCHEDULE, "state": "armed", **fires, **drilled(provider, spec.offer.region, SCHEDULE)})
    if wrong := _repeated(lambda: cast(Scheduling, provider).verify_schedule(schedule), sleep):
        raise _not_armed(journal, wrong[0], "; ".join(wrong), "somebody or something changed it: look at it before you try again")
    journal.append("guard", {"guard": SCHEDULE, "state": "read-back", **fires})
    return f"{provider.name} itself ends {schedule.facts['instance']} at {schedule.facts['firesAt'][11:19]} UTC, if nothing else did"


def check_fleet(provider: Provider, wanted: bool) -> None:
    """Before anything is rented: can a machine be asked for through a fleet here?"""
    if not wanted:
        return
    if not provider.traits.fleets:
        raise RefusedError(
            f"a machine of {provider.name} cannot be asked for through a fleet", why="launch.fleet: true", next="take launch.fleet away"
        )
    cast(Fleeting, provider).check_fleet()


def arm_fleet(lease: Lease, fleet: Resource, waived: tuple[str, ...]) -> str:
    """A fleet was armed by the call that made it: this says so. A phrase for the story."""
    if FLEET in waived:
        lease.journal.append("guard", {"guard": FLEET, "state": "waived"})
        return "the end of the fleet is not read back: the profile waives it"
    fires: dict[str, Any] = {"firesAt": str(fleet.facts["firesAt"]), "detail": fleet.id}
    lease.journal.append("guard", {"guard": FLEET, "state": "armed", **fires, **drilled(lease.provider, fleet.region, FLEET)})
    return f"{lease.provider.name} itself ends {fleet.id} and its machine at {fires['firesAt'][11:19]} UTC, if nothing else did"


def read_back_fleet(lease: Lease, fleet: Resource, waived: tuple[str, ...], sleep: Callable[[float], None]) -> None:
    """Is its end what was asked for? RunError when it is not: then nothing at the provider would end the machine."""
    if FLEET in waived:
        return
    if wrong := _repeated(lambda: cast(Fleeting, lease.provider).verify_fleet(fleet), sleep):
        raise _not_armed(lease.journal, wrong[0], "; ".join(wrong), "gpulease drill --only fleet shows it as it should be", FLEET)
    lease.journal.append("guard", {"guard": FLEET, "state": "read-back", "firesAt": str(fleet.facts["firesAt"]), "detail": fleet.id})


READ_BACK_PAUSES_S = (0.3, 1.0, 3.0)


def _repeated(look: Callable[[], Sequence[str]], sleep: Callable[[float], None]) -> Sequence[str]:
    """What the provider shows against what was asked for. A look that fails is repeated a few times; never taken for a yes."""
    for pause in (*READ_BACK_PAUSES_S, None):
        try:
            return look()
        except ProviderError as e:
            if pause is None or isinstance(e, NotPermitted):
                return (f"it could not be read back: {e.what}",)
            sleep(pause)
    raise AssertionError("the last pause is None")


def _not_armed(journal: Journal, what: str, why: str, next: str, guard: str = SCHEDULE) -> RunError:
    journal.note("guard", {"guard": guard, "state": "failed", "detail": what})
    return RunError(
        f"guard {guard} is not armed at the provider: {what}",
        why=why or "without it a machine that everything else forgot would go on running",
        next=f"{next + '; ' if next else ''}or waive it by name in the profile: waive: [{guard}]",
    )


def drilled(provider: Provider, region: str, guard: str) -> dict[str, Any]:
    """When this guard was last made to fire in this account and region; nothing when it never was."""
    found = drills.last(getattr(provider, "account_id", ""), region, guard, simulated=provider.traits.simulated)
    return {"drilled": found.record()} if found else {}


def read_back(host: Host, provider: Provider, journal: Journal, deadline: str, waived: tuple[str, ...], region: str = "") -> str:
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
            fires = {"firesAt": deadline if name != "guest-lease" else None}
            journal.append("guard", {"guard": name, "state": "read-back", **fires, **drilled(provider, region, name)})
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


def at_the_provider(provider: Provider, regions: Sequence[str], waived: tuple[str, ...], fleet: bool = False) -> bool:
    """Would the provider itself end the machine, with nobody logged in here? Looked at, not assumed; a fleet's end is read back later."""
    if fleet and FLEET not in waived:
        return True
    if SCHEDULE in waived or not provider.traits.schedules:
        return False
    try:
        check_schedule(provider, regions, waived)
    except GpuleaseError:
        return False
    return True


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
