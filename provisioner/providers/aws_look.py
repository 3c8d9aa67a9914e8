"""One look at what a tag shows: every kind, in every region asked about, to the last page, or an error.

A list that is shorter than the truth is read as "nothing left", so nothing is ever left out quietly: what we make must
be listable everywhere, or the whole look failed; what we never make may stay unchecked, with the reason.

All of it is asked at once, kinds and regions side by side. A machine that takes minutes to go is looked at many times:
what we never make is then left out of the looks between (`whole` is false), and nothing is said about it in them. It is
listed whenever nothing of what we make is left, so every look that could be called empty is a whole one. Fleets are in all of them.

This file must not know what a lease is for, nor decide what is due.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from provisioner.errors import ProviderError
from provisioner.model import Inventory, Looked, Phase, Resource
from provisioner.providers import aws_schedule
from provisioner.providers.aws_client import Account
from provisioner.providers.aws_errors import DENIED
from provisioner.providers.aws_inventory import LAUNCHERS, MADE, OTHER
from provisioner.providers.aws_kind import Kind, resource
from provisioner.scope import side_by_side

UNKNOWN = frozenset({"InvalidAction", "UnsupportedOperation", "NotImplemented"})
UNKNOWN_HERE = frozenset({"ResponseParserError", "501", "500"})
"""The embedded endpoint answers what it does not know with a page that is not XML."""

MOST_AT_ONCE = 16


@dataclass
class Listing:
    """One kind in one region: what is there, or why that could not be told."""

    kind: str
    region: str
    resources: list[Resource] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    date: str | None = None
    unchecked: str = ""


def look(accounts: Sequence[Account], lease: str | None, *, whole: bool = True) -> Inventory:
    """Everything under one lease's tag, or under any, in every region. Raises what kept it from seeing what we make."""
    asks: list[Callable[[], Listing]] = [
        *(_of_kind(account, kind, lease) for account in accounts for kind in MADE),
        *(_of_schedules(account, lease) for account in accounts),
        *(_of_kind(account, kind, lease) for account in accounts for kind in LAUNCHERS),
    ]
    rest = [kind for kind in OTHER if kind not in LAUNCHERS]
    others: list[Callable[[], Listing]] = [_of_kind(account, kind, lease) for account in accounts for kind in rest]
    with side_by_side(min(len(asks), MOST_AT_ONCE), "look") as threads:
        found = _all(threads, [*asks, *others] if whole else asks)
        if not whole and not any(r.phase is not Phase.GONE for one in found for r in one.resources):
            found += _all(threads, others)
    return joined(found)


def joined(found: Sequence[Listing]) -> Inventory:
    """Many listings as one look. Its date is the earliest: nothing here was seen before it."""
    dates = [one.date for one in found if one.date]
    asked_as = {r.id: r.token for one in found for r in one.resources if r.kind == "fleet"}
    return Inventory(
        tuple({(r.kind, r.region, r.id): _as_asked(r, asked_as) for one in found for r in one.resources}.values()),
        tuple(Looked(one.kind, one.region, not one.unchecked, one.unchecked) for one in found),
        tuple(id for one in found for id in one.requests),
        min(dates) if dates else None,
    )


def _as_asked(r: Resource, fleets: Mapping[str, str | None]) -> Resource:
    """A machine that a fleet made answers the fleet's intent: that is what it was asked for as, and at which price."""
    return replace(r, token=fleets.get(str(r.facts["fleet"]))) if r.kind == "instance" and "fleet" in r.facts else r


def _all(threads: ThreadPoolExecutor, asks: Sequence[Callable[[], Listing]]) -> list[Listing]:
    pending = [threads.submit(ask) for ask in asks]
    try:
        return [one.result() for one in pending]
    finally:
        for one in pending:  # after a failure nobody waits for the rest
            one.cancel()


def _of_kind(account: Account, kind: Kind, lease: str | None) -> Callable[[], Listing]:
    def ask() -> Listing:
        listing = Listing(kind.name, account.region)
        try:
            for answer in account.pages(kind.list_call, kind.page_size, **kind.where(lease)):
                listing.requests.append(answer.request_id)
                listing.date = listing.date or answer.date
                shown = [one for one in kind.items(answer.data) if kind.ours(one, lease)]
                listing.resources += [resource(kind, one, account.region, answer.stamp()) for one in shown]
        except ProviderError as e:
            if kind in MADE or not _cannot_list(e, simulated=account.endpoint is not None):
                raise _in(account.region, e) from e
            return Listing(kind.name, account.region, unchecked=e.what)
        return listing

    return ask


def _of_schedules(account: Account, lease: str | None) -> Callable[[], Listing]:
    """The one kind that is not EC2's: the guards at the provider."""

    def ask() -> Listing:
        try:
            schedules, seen, answers = aws_schedule.listed(
                account, lease, lambda e: _cannot_list(e, simulated=account.endpoint is not None)
            )
        except ProviderError as e:
            raise _in(account.region, e) from e
        requests = [answer.request_id for answer in answers]
        return Listing(seen.kind, seen.region, list(schedules), requests, unchecked="" if seen.checked else seen.reason)

    return ask


def _cannot_list(e: ProviderError, *, simulated: bool) -> bool:
    return e.provider_code in UNKNOWN | DENIED or (simulated and e.provider_code in UNKNOWN_HERE)


def _in(region: str, e: ProviderError) -> ProviderError:
    return type(e)(f"{region}: {e.what}", why=e.why, next=e.next, provider_code=e.provider_code, request_id=e.request_id)
