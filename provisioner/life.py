"""What every stage of one run needs: the plan, the lease, the way to the machine, and how to wait.

Held together so that `run`, `serving` and `measure` can each tell their part without passing ten things around. It
decides nothing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from provisioner.errors import Interrupted
from provisioner.lease import Lease
from provisioner.ledger import LeaseFolder
from provisioner.model import Clock
from provisioner.plan import Plan
from provisioner.remote.link import Route, direct
from provisioner.scope import NAP_S, Scope

Tell = Callable[[str, str], None]
"""(stage, text): one line of the story."""

Progress = Callable[[str, int, int], None]
"""(stage, done, total)."""

Waited = Callable[[str, str], None]
"""(stage, what is waited for and since when): called often; whoever shows it decides how often it does."""


@dataclass(frozen=True)
class Access:
    """How to reach the machine over SSH. For a rented one the keys are made for the lease; a static host brings its own."""

    user: str = "ubuntu"
    port: int = 22
    route: Route = direct
    client_key: Path | None = None
    host_key: str | None = None
    ingress_cidr: str | None = None
    reach: str = "address"  # or "endpoint", "ssm": through the user's own aws program, with no ingress from any address


class Waits:
    """`scope.sleep`, until the run is over; then a short grace of its own, so that last words can be fetched.

    `take` ends every wait on a machine that its provider takes back, from any thread; `go_on` is for the next machine.
    `tend` is called between two naps, in the thread that waits: a stage may take an hour, and it is all waiting. So is `during`, while
    somebody has said what it is that is waited for.
    """

    def __init__(self, scope: Scope) -> None:
        self._run = self._scope = scope
        self._taken: str | None = None
        self.tend: Callable[[], None] = lambda: None
        self.during: Callable[[], None] | None = None

    def sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            self.tend()
            if self.during is not None:
                self.during()
            if self._taken is not None and self._scope is self._run:
                raise Interrupted(self._taken, why="the notice that the machine itself was given", next="gpulease report")
            rest = end - time.monotonic()
            self._scope.sleep(max(0.0, min(rest, NAP_S)))
            if rest <= NAP_S:
                return

    def grace(self, seconds: float, clock: Clock) -> None:
        self._scope = Scope(clock.now() + seconds, clock.now)

    def take(self, why: str) -> None:
        self._taken = self._taken or why

    def go_on(self) -> None:
        self._scope, self._taken = self._run, None


@dataclass
class Life:
    """What every stage of one run needs."""

    plan: Plan
    lease: Lease
    folder: LeaseFolder
    waits: Waits
    tell: Tell
    progress: Progress
    access: Access
    deadline: str
    clock: Clock
    results: dict[str, Any] | None = None  # what was measured, once it was; kept whatever happens after
    passes: Any = None  # the eval's passes so far: a machine that follows another goes on with them
    machines: list[dict[str, Any]] = field(default_factory=list)  # those that were measured on, in order
    waited: Waited = lambda stage, text: None

    @contextlib.contextmanager
    def waiting(self, stage: str, what: str) -> Iterator[None]:
        """A wait that may take minutes and is paid for: what for, and how long it is already, is shown while it lasts."""
        since, here = self.clock.counting(), threading.get_ident()

        def tell() -> None:
            if threading.get_ident() == here:  # what listens and renews meanwhile waits for something else
                self.waited(stage, f"waiting for {what}, {self.clock.counting() - since:.0f} s")

        self.waits.during = tell
        try:
            yield
        finally:
            self.waits.during = None

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Journal that a stage begins and how it ended; what the block puts into the dict is its detail."""
        journal, detail = self.lease.journal, dict[str, Any]()
        journal.append("stage", {"stage": name, "state": "begin"})
        try:
            yield detail
        except BaseException:  # a signal ends a stage as well, and the journal says so
            journal.note("stage", {"stage": name, "state": "failed", "detail": detail})
            raise
        try:
            journal.append("stage", {"stage": name, "state": "done", "detail": detail})
        except (TypeError, ValueError):
            # What a machine said is too long for a line, or a number that JSON cannot hold: no reason to call the stage failed.
            journal.append("stage", {"stage": name, "state": "done", "detail": {"left out": "could not be written"}})
