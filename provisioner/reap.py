"""Find leases by their tags at the provider, whoever made them and wherever their journals are, and let go of what is overdue.

It starts from the provider, never from our own files: a sweeper that walks its own records is blind to what never
reached them. A journal that is here only adds to it. Dry unless told to go. Never touched: what carries no lease tag of
ours, a lease that a process on this machine is holding, and a lease that is still in time unless it is named, because
another machine may own it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from provisioner import closing, ledger, times
from provisioner.errors import GpuleaseError, UsageError
from provisioner.journal import instant
from provisioner.lease import body_of
from provisioner.model import Phase, Provider, Resource, Verdict

OVERDUE_S = times.REAL.overdue_s
"""Past the deadline every earlier guard has had its turn: the machine's own timer at it, the watchdog a minute later."""


@dataclass(frozen=True)
class Found:
    """One lease that the provider shows something of."""

    lease: str
    deadline: str  # RFC 3339 Z, or "" when no tag says it
    resources: tuple[Resource, ...]
    state: str  # held here | in time | overdue | no deadline
    due: bool
    said: str = ""
    verdict: Verdict | None = None

    def record(self) -> dict[str, Any]:
        return {
            "lease": self.lease,
            "deadline": self.deadline or None,
            "state": self.state,
            "due": self.due,
            "resources": [{"class": r.kind, "id": r.id, "phase": str(r.phase), "region": r.region} for r in self.resources],
            "verdict": str(self.verdict) if self.verdict else None,
        }


def reap(provider: Provider, names: Sequence[str], *, go: bool, now: float | None = None) -> list[Found]:
    """What is there; with `go`, what became of what was due. Raises ProviderError when not everything could be listed."""
    by_lease: dict[str, list[Resource]] = {}
    inventory = provider.inventory(None)
    for resource in inventory.resources:
        # A tag in a shape that we never write is somebody else's, however it is called.
        if resource.phase is not Phase.GONE and ledger.LEASE_ID.fullmatch(resource.lease):
            by_lease.setdefault(resource.lease, []).append(resource)
    if unknown := [name for name in names if name not in by_lease]:
        raise UsageError(
            f"the provider shows nothing of {unknown[0]!r}",
            why=f"it shows {', '.join(sorted(by_lease)) or 'no leases'}",
            next="gpulease reap",
        )
    if now is None:
        # The provider's own clock where it tells: ours may be a day ahead, and the leases are other people's too.
        now = instant(inventory.provider_date) if inventory.provider_date else time.time()
    overdue_s = times.of(provider.traits.simulated).overdue_s
    found = [_found(lease, tuple(resources), names, now, overdue_s) for lease, resources in sorted(by_lease.items())]
    return [_let_go(one, provider) if go and one.due else one for one in found]


def _found(lease: str, resources: tuple[Resource, ...], names: Sequence[str], now: float, overdue_s: int = OVERDUE_S) -> Found:
    # The latest deadline of all its tags: a resource tagged wrong must not end a lease early.
    deadlines = sorted(str(r.facts["deadline"]) for r in resources if r.facts.get("deadline"))
    deadline = deadlines[-1] if deadlines else ""
    folder = ledger.LeaseFolder(ledger.root() / "runs" / lease)
    if folder.path.is_dir() and ledger.alive(folder):
        return Found(lease, deadline, resources, "held here", False, "a process on this machine is looking after it")
    if lease in names:
        return Found(lease, deadline, resources, "named", True)
    try:
        overdue = bool(deadline) and now > instant(deadline) + overdue_s
    except ValueError:
        return Found(lease, deadline, resources, "no deadline", False, "its deadline tag is not a time: name it to let go of it")
    if not deadline:
        return Found(lease, deadline, resources, "no deadline", False, "name it to let go of it")
    return Found(lease, deadline, resources, "overdue" if overdue else "in time", overdue)


def _let_go(found: Found, provider: Provider) -> Found:
    """Adopt the lease, by its journal where it is here and by a new one where it is not, and release it."""
    folder = ledger.LeaseFolder(ledger.root() / "runs" / found.lease)
    if not folder.path.is_dir():
        # Not a lease of this machine: nothing is known of what was asked for, so tags are all there is to go by.
        card = {"provider": provider.name, "settings": provider.settings(), "simulated": provider.traits.simulated}
        folder = ledger.create(card, found.lease)
    try:
        journal = ledger.adopt(folder, "reap")
        for resource in found.resources:
            journal.note("observe", body_of(resource))  # whatever the journal here says, this much was seen
        verdict = closing.let_go(folder, journal, provider=provider)
    except ledger.Busy as e:
        return replace(found, said=e.what)
    except (GpuleaseError, OSError) as e:
        # One lease whose files are in the way must not keep the others running; its own verdict says what it is.
        return replace(found, verdict=Verdict.UNPROVEN, said=getattr(e, "what", str(e)))
    return replace(found, verdict=verdict, said=str(verdict))
