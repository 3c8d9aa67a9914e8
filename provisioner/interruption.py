"""A spot machine that its provider takes back: the notice, what counts as one, and how the run goes on without it.

The notice is polled on the machine itself (remote/spot.py), because nobody else is told: EC2 gives two minutes, best
effort. The run does not use them up: samples are on disk as they come, so it stops at once, fetches the server's log,
and lets go. A machine that went without a notice is recognised by the provider's own reason for it.

Whether the run then ends (`interrupted`) or goes on with the next offer is the profile's choice. It goes on within the
same lease, deadline and budget, with the cases that have no answer yet, and never beside a machine not seen leaving.
"""

from __future__ import annotations

import contextlib
import threading

import cost
from provisioner.errors import GpuleaseError, Interrupted, ProviderError, failure_body
from provisioner.journal import instant
from provisioner.launching import DROP_S, Launched
from provisioner.life import Life
from provisioner.model import Host, Offer, Phase
from provisioner.plan import BOOT_AND_LOAD_S, REHEARSAL_S, minutes
from provisioner.remote import spot
from provisioner.scope import Cancelled

RECLAIMED = ("Server.SpotInstanceTermination", "Server.SpotInstanceShutdown")
REHEARSED_EVERY_S = "0.2"
LOOKS, LOOK_EVERY_S = 4, 1.5
"""A machine that stopped answering may be shown as running for a few seconds more."""


class Listening:
    """Waits on the machine for the notice, beside everything else that is done there."""

    def __init__(self, life: Life, host: Host, offer: Offer) -> None:
        self._life, self._host, self._needed = life, host, offer.spot
        self._over, self._odd = threading.Event(), ""
        self._thread = threading.Thread(target=self._work, daemon=True, name="gpulease-spot")

    def __enter__(self) -> Listening:
        if self._needed:
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """The script on the machine ends with the connection, and the thread with it."""
        self._over.set()  # first: a notice heard from now on is about a machine that is let go of already

    def _work(self) -> None:
        values = spot.watch_values(REHEARSED_EVERY_S) if self._life.plan.simulated else spot.watch_values()
        while not self._over.is_set():
            # A line that dropped is made again by who needs it; until then there is nobody to listen to.
            with contextlib.suppress(GpuleaseError, Cancelled):
                ended = self._host.stream(spot.WATCH, self._heard, values=values, timeout=7 * 86_400.0)
                if ended.exit == spot.NO_CURL:
                    self._life.tell("spot", "there is no curl on the machine: no notice can be heard, only that it is gone")
                    return
            try:
                self._life.waits.sleep(1.0)
            except (GpuleaseError, Cancelled):
                return

    def _heard(self, line: str) -> None:
        try:
            notice = spot.notice(line)
        except GpuleaseError as e:
            if e.what != self._odd:  # the same every second would bury the story
                self._odd = e.what
                self._life.tell("spot", f"{e.what}; going on")
            return
        if not self._over.is_set():
            self._life.waits.take(f"the provider takes the spot machine back: {notice.action} at {notice.at:%H:%M:%S} UTC")


def taken(life: Life, launched: Launched, error: GpuleaseError) -> str:
    """Was this error the machine being taken back? How we know, or nothing."""
    if isinstance(error, Interrupted):
        return error.what
    if not launched.offer.spot:
        return ""
    machine = launched.machine
    for look in range(LOOKS):
        if look:
            life.clock.sleep(LOOK_EVERY_S)
        with contextlib.suppress(ProviderError):
            machine = life.lease.look(machine)
            if machine.phase in (Phase.LEAVING, Phase.GONE):
                reason = str(machine.facts.get("stateReason") or "")
                return f"the provider took the spot machine back: {machine.id} is {machine.state}, {reason}" if reason in RECLAIMED else ""
    return ""


def go_on(life: Life, launched: Launched, why: str, left: list[tuple[Offer, cost.Quote]]) -> list[tuple[Offer, cost.Quote]]:
    """Let go of the machine, and the offers to ask for next; Interrupted where the run ends here."""
    asked = "nothing has been measured" if life.passes is None else f"{life.passes.answered()} answers are kept"
    life.tell("spot", f"{why}; {asked}")
    if life.plan.profile.on_interruption != "continue":
        raise Interrupted(
            why, why=f"{asked}; the profile says on_interruption: stop", next="on_interruption: continue goes on with the next offer"
        )
    if life.results is not None and life.results["complete"]:
        raise Interrupted(why, why="the eval was complete; only the time to keep the machine was cut short", next="gpulease report")
    seconds = instant(life.deadline) - life.clock.now()
    need = REHEARSAL_S / 4 if life.plan.simulated else BOOT_AND_LOAD_S.get(life.lease.provider.name, 12 * 60)
    if seconds < need:
        raise Interrupted(
            why,
            why=f"{asked}; {minutes(int(seconds))} are left until the deadline, booting and loading need {minutes(int(need))}",
            next="the same command with a larger --budget, or more --minutes",
        )
    # The next offers first; then those asked for before, which may have something again.
    past = [pair for pair in zip(life.plan.offers, life.plan.quotes, strict=True) if pair not in left]
    life.waits.go_on()
    # Why it was let go of: without this line it looks, to whoever reads the journal, like a machine that we gave up.
    life.lease.journal.note("failure", failure_body(Interrupted(why, why=asked)))
    with contextlib.suppress(OSError):  # the next machine's server has a log of its own
        (life.folder.path / "server.log").replace(life.folder.path / f"server-{launched.machine.id}.log")
    life.lease.drop(launched.machine, within=DROP_S, sleep=life.waits.sleep, tell=lambda text: life.tell("spot", text))
    return [*left, *past]
