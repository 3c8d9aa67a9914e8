"""Find leases by their tags at the provider, whoever made them and wherever their journals are, and let go of what is overdue.

It starts from the provider, never from our own files: a sweeper that walks its own records is blind to what never
reached them. A journal that is here only adds to it. Every region is looked at, side by side; one that does not answer
is `unseen`, which is never "nothing", and does not keep the others from being cleared.

Dry unless told to go. Never touched: what carries no lease tag of ours, a lease that a process on this machine is
holding, and a lease that is still in time unless it is named, because another machine may own it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from provisioner import closing, ledger, times
from provisioner.errors import GpuleaseError, ProviderError, UsageError
from provisioner.journal import instant
from provisioner.lease import body_of
from provisioner.model import Inventory, Phase, Provider, Resource, Verdict
from provisioner.scope import side_by_side

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


@dataclass(frozen=True)
class Unseen:
    """A region that could not be looked at: anything may be there."""

    region: str
    why: str


@dataclass(frozen=True)
class Reaped:
    """Where was looked, where could not be, and what came of what was there."""

    leases: tuple[Found, ...]
    regions: tuple[str, ...]
    unseen: tuple[Unseen, ...]
    unlisted: Mapping[str, str]  # kinds that we never make and that could not be listed somewhere -> why
    answers: int
    absent: tuple[str, ...] = ()  # named by their whole ids, and nothing of them is shown where was looked

    @property
    def verdicts(self) -> list[Verdict]:
        """What is still due, and that there is something that nobody saw."""
        due = [f.verdict or _seen(f.resources) for f in self.leases if f.due]
        return due + [Verdict.UNPROVEN] * bool(self.unseen)


MOST_REGIONS, MOST_LEASES = 16, 8
"""At once."""

Reach = Callable[[Sequence[str]], Provider]
"""A provider of its own over these regions: each lease signs its requests with its own words."""


def reap(clouds: Mapping[str, Provider], reach: Reach, names: Sequence[str], *, go: bool, now: float | None = None) -> Reaped:
    """What is there, by region; with `go`, what became of what was due. Of named leases alone, where any are.

    A name is a lease's whole id, or an end or beginning that one of those that the provider shows has and no other. Raises ProviderError
    when no region could be seen, UsageError for a name that is none of theirs and no whole id.
    """
    looks, unseen = _survey(clouds)
    by_lease: dict[str, list[Resource]] = {}
    for resource in (r for one in looks.values() for r in one.resources):
        # A tag in a shape that we never write is somebody else's, however it is called.
        if resource.phase is not Phase.GONE and ledger.LEASE_ID.fullmatch(resource.lease):
            by_lease.setdefault(resource.lease, []).append(resource)
    wanted = dict.fromkeys(_meant(name, by_lease, unseen) for name in names)
    if names:
        by_lease = {lease: resources for lease, resources in by_lease.items() if lease in wanted}
    if now is None:
        # The provider's own clock where it tells: ours may be a day ahead, and the leases are other people's too.
        dates = [one.provider_date for one in looks.values() if one.provider_date]
        now = instant(min(dates)) if dates else time.time()
    overdue_s = times.of(next(iter(clouds.values())).traits.simulated).overdue_s
    found = [_found(lease, tuple(resources), tuple(wanted), now, overdue_s) for lease, resources in sorted(by_lease.items())]
    if go and (due := [one for one in found if one.due]):
        # Side by side: while one machine takes its minutes to go, the others must not go on billing.
        with ThreadPoolExecutor(min(len(due), MOST_LEASES), thread_name_prefix="reap") as threads:
            done = dict(zip([one.lease for one in due], threads.map(lambda one: _let_go(one, reach), due), strict=True))
        found = [done.get(one.lease, one) for one in found]
    unlisted = {looked.kind: looked.reason for one in looks.values() for looked in one.looked_in if not looked.checked}
    answers = sum(len(one.request_ids) for one in looks.values())
    return Reaped(tuple(found), tuple(looks), tuple(unseen), unlisted, answers, tuple(lease for lease in wanted if lease not in by_lease))


def _meant(name: str, by_lease: Mapping[str, object], unseen: Sequence[Unseen]) -> str:
    """The lease of that name. A whole id may be one of which nothing is left; anything else has to be one that is shown."""
    if ledger.LEASE_ID.fullmatch(name):
        return name
    if (lease := ledger.meant(name, sorted(by_lease), next="gpulease reap")) is None:
        raise UsageError(
            f"the provider shows nothing of {name!r}",
            why=f"it shows {', '.join(sorted(by_lease)) or 'no leases'}"
            + (f"; {', '.join(u.region for u in unseen)} could not be looked at" if unseen else ""),
            next="gpulease reap",
        )
    return lease


def _survey(clouds: Mapping[str, Provider]) -> tuple[dict[str, Inventory], list[Unseen]]:
    """A whole look at every region, side by side."""

    def look(provider: Provider) -> Inventory | ProviderError:
        try:
            return provider.inventory(None)
        except ProviderError as e:
            return e

    with side_by_side(min(len(clouds), MOST_REGIONS), "reap") as threads:
        looks = dict(zip(clouds, threads.map(look, clouds.values()), strict=True))
    seen = {region: one for region, one in looks.items() if isinstance(one, Inventory)}
    failed = {region: one for region, one in looks.items() if isinstance(one, ProviderError)}
    if not seen:
        raise next(iter(failed.values()))
    return seen, [Unseen(region, e.what.removeprefix(f"{region}: ")) for region, e in failed.items()]


def _seen(resources: Sequence[Resource]) -> Verdict:
    """What was overdue and not let go of: only looked at, or somebody else had it."""
    return Verdict.HELD if any(r.billed and r.phase is not Phase.LEAVING for r in resources) else Verdict.LEAVING


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


def _let_go(found: Found, reach: Reach) -> Found:
    """Adopt the lease, by its journal where it is here and by a new one where it is not, and release it."""
    folder = ledger.LeaseFolder(ledger.root() / "runs" / found.lease)
    try:
        provider = reach(_regions(found, folder))
        if not folder.path.is_dir():
            # Not a lease of this machine: nothing is known of what was asked for, so tags are all there is to go by.
            card = {"provider": provider.name, "settings": provider.settings(), "simulated": provider.traits.simulated}
            folder = ledger.create(card | {"elsewhere": True}, found.lease)
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


def _regions(found: Found, folder: ledger.LeaseFolder) -> list[str]:
    """Where it was seen, and where its card or its journal here says that it may have been as well."""
    regions = [r.region for r in found.resources if r.region]
    if folder.path.is_dir():
        said: list[Mapping[str, Any]] = [e["body"].get("settings") or {} for e in ledger.standing(folder).entries if e["kind"] == "genesis"]
        with contextlib.suppress(GpuleaseError):  # without a card the journal's first line still says it
            said.append(folder.card()["settings"])
        for settings in said:
            regions += settings.get("regions") or [settings.get("region") or ""]
    return [region for region in dict.fromkeys(regions) if region]
