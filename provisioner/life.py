"""What every stage of one run needs: the plan, the lease, the way to the machine, and how to wait.

Held together so that `run`, `serving` and `measure` can each tell their part without passing ten things around. It
decides nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provisioner.lease import Lease
from provisioner.ledger import LeaseFolder
from provisioner.model import Clock
from provisioner.plan import Plan
from provisioner.remote.link import Route, direct
from provisioner.scope import Scope

Tell = Callable[[str, str], None]
"""(stage, text): one line of the story."""

Progress = Callable[[str, int, int], None]
"""(stage, done, total)."""


@dataclass(frozen=True)
class Access:
    """How to reach the machine over SSH. For a rented one the keys are made for the lease; a static host brings its own."""

    user: str = "ubuntu"
    port: int = 22
    route: Route = direct
    client_key: Path | None = None
    host_key: str | None = None
    ingress_cidr: str | None = None


class Waits:
    """`scope.sleep`, until the run is over; then a short grace of its own, so that last words can be fetched."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def sleep(self, seconds: float) -> None:
        self._scope.sleep(seconds)

    def grace(self, seconds: float, clock: Clock) -> None:
        self._scope = Scope(clock.now() + seconds, clock.now)


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

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Journal that a stage begins and how it ended; what the block puts into the dict is its detail."""
        journal, detail = self.lease.journal, dict[str, Any]()
        journal.append("stage", {"stage": name, "state": "begin"})
        try:
            yield detail
        except BaseException:
            journal.note("stage", {"stage": name, "state": "failed", "detail": detail})
            raise
        try:
            journal.append("stage", {"stage": name, "state": "done", "detail": detail})
        except (TypeError, ValueError):
            # What a machine said is too long for a line, or a number that JSON cannot hold: no reason to call the stage failed.
            journal.append("stage", {"stage": name, "state": "done", "detail": {"left out": "could not be written"}})
