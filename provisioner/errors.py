"""Every way a run can end badly, and the one place where an ending becomes a number.

An error here has four parts: what happened, why we think so (the evidence), what to do next (a command), and
what it costs right now. The first three are written where the error is raised; the fourth, `now`, is computed
from the journal where the program ends, because only the journal knows.

    GpuleaseError
    ├── UsageError        2   the command line cannot be understood
    ├── RefusedError      4   stopped before anything was created
    ├── RunError          5   went wrong after something was created
    │   ├── HostError         the machine, or the way to it
    │   │   └── HostKeyError  the machine is not the one we prepared
    │   ├── RuntimeFailed     the inference server did not start, or died
    │   └── Interrupted   7   the provider took the machine back
    ├── MissedThreshold   3   it ran, and the figures are not good enough
    └── ProviderError     5   the cloud did not answer, or answered with a fault: nothing follows about what exists
        ├── NotCreated        it positively refused to create: nothing was made
        │   └── NoCapacity        because it has none there now: another zone, region, type or way to buy may have some
        └── NotPermitted      it answered that we may not; asking again will not help

This file must not know about clouds, SSH or terminals.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes. Money outranks everything: a failed run that is also unproven exits 20."""

    OK = 0
    BUG = 1
    USAGE = 2
    THRESHOLD = 3
    REFUSED = 4
    FAILED = 5
    BUDGET = 6
    INTERRUPTED = 7
    UNPROVEN = 20
    HELD = 21
    LEAVING = 22
    SIGHUP = 129
    SIGINT = 130
    SIGTERM = 143


class GpuleaseError(Exception):
    """`what` quotes the number seen and the number needed; `why` is evidence; `next` is a command where one exists."""

    code = Exit.FAILED

    def __init__(self, what: str, *, why: str = "", next: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.next = what, why, next


class UsageError(GpuleaseError):
    code = Exit.USAGE


class RefusedError(GpuleaseError):
    code = Exit.REFUSED


class RunError(GpuleaseError):
    code = Exit.FAILED


class HostError(RunError):
    """The machine did not do what was asked, or could not be reached."""


class HostKeyError(HostError):
    """The machine that answered does not hold the host key we pinned: not one byte of ours was sent to it."""


class RuntimeFailed(RunError):
    """The inference server did not become ready, or died."""


class Interrupted(RunError):
    """The provider took a spot machine back, or said that it will; what was measured until then is kept."""

    code = Exit.INTERRUPTED


class MissedThreshold(GpuleaseError):
    code = Exit.THRESHOLD


class ProviderError(GpuleaseError):
    """The provider did not answer, or answered with a fault: nothing follows about what exists.

    `provider_code` is the provider's own error code ("RequestLimitExceeded"), `request_id` its id for the call.
    """

    def __init__(self, what: str, *, why: str = "", next: str = "", provider_code: str = "", request_id: str = "") -> None:
        super().__init__(what, why=why, next=next)
        self.provider_code, self.request_id = provider_code, request_id


class NotCreated(ProviderError):
    """The provider positively refused to create: nothing was made."""


class NoCapacity(NotCreated):
    """It has none of this there and now. Nothing was made, and asking for something else may help."""


class NotPermitted(ProviderError):
    """The provider answered that these credentials may not do this."""


def failure_body(e: BaseException) -> dict[str, str]:
    """An ending as the journal keeps it."""
    return {"error": type(e).__name__, "what": getattr(e, "what", str(e)), "why": getattr(e, "why", "")}


def words(e: Exception) -> str:
    return e.what if isinstance(e, ProviderError) else f"{type(e).__name__}: {e}"
