"""How the error that ended a run is told: when its words are read, the machine is gone, and its lease has a name.

The floors below raise errors while a machine runs, and do not know the lease by the name that a command takes. What
they advise names a command for the newest lease (`gpulease logs`); here it gets this lease, so that it still is the
right one after the next run. Whatever has no next step gets one. Must not decide anything.
"""

from __future__ import annotations

import re

from provisioner.closing import MONEY
from provisioner.errors import GpuleaseError
from provisioner.scope import Cancelled
from provisioner.terminal import bug

OF_A_LEASE = re.compile(r"\bgpulease (logs|report|proof)(?= {2,}|[;,.)]|$)")
"""A command that takes a lease, without one."""


def told(error: BaseException | None, lease: str, code: int) -> GpuleaseError | None:
    """The error with all its parts; None where the run ended without one. `code` is how the run exits."""
    match error:
        case None:
            return None
        case GpuleaseError():
            said = error
        case Cancelled(reason="deadline"):
            why, more = (
                "the time that the budget and the time limit give a run was over",
                "the same command with a larger --budget or --minutes",
            )
            said = GpuleaseError("stopped: deadline", why=why, next=more)
        case Cancelled():
            said = GpuleaseError(f"stopped: {error}", why="Ctrl-C, a terminal that was closed, or somebody who ended this process")
        case Exception():
            said = bug(error)
        case _:
            said = GpuleaseError(f"stopped: {error}", why=type(error).__name__)
    what_now = OF_A_LEASE.sub(rf"\g<0> {lease}", said.next or "gpulease report")
    if code in MONEY.values() and not what_now.startswith(release := f"gpulease release {lease}"):
        what_now = f"{release}; then: {what_now}"  # something may still cost money, and that comes before why the run failed
    said.next = what_now
    return said
