"""One look at what a tag shows: every kind, in every region asked about, to the last page, or an error.

A list that is shorter than the truth is read as "nothing left", so nothing is ever left out quietly: what we make must
be listable everywhere, or the whole look failed; what we never make may stay unchecked, with the reason. Regions are
looked at side by side, because a lease that may have moved between several must not wait for each in turn.

This file must not know what a lease is for, nor decide what is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

from provisioner.errors import ProviderError
from provisioner.model import Inventory, Looked, Resource
from provisioner.providers import aws_schedule
from provisioner.providers.aws_client import Account
from provisioner.providers.aws_errors import DENIED
from provisioner.providers.aws_inventory import MADE, OTHER, resource
from provisioner.providers.aws_launch import LEASE, MANAGED

UNKNOWN = frozenset({"InvalidAction", "UnsupportedOperation", "NotImplemented"})
UNKNOWN_HERE = frozenset({"ResponseParserError", "501", "500"})
"""The embedded endpoint answers what it does not know with a page that is not XML."""

MOST_AT_ONCE = 16


def look(accounts: Sequence[Account], lease: str | None) -> Inventory:
    """Everything under one lease's tag, or under any, in every region. Raises the first region's error, by its name."""
    if len(accounts) == 1:
        return _look_in(accounts[0], lease)
    with ThreadPoolExecutor(min(len(accounts), MOST_AT_ONCE), thread_name_prefix="look") as threads:
        looks = [threads.submit(_look_in, account, lease) for account in accounts]
        found = []
        for account, one in zip(accounts, looks, strict=True):
            try:
                found.append(one.result())
            except ProviderError as e:
                for other in looks:
                    other.cancel()
                _raise_in(account.region, e)
    return joined(found)


def joined(looks: Sequence[Inventory]) -> Inventory:
    """Several looks as one. The date is the earliest: nothing here was seen before it."""
    dates = [one.provider_date for one in looks if one.provider_date]
    return Inventory(
        tuple(r for one in looks for r in one.resources),
        tuple(looked for one in looks for looked in one.looked_in),
        tuple(id for one in looks for id in one.request_ids),
        min(dates) if dates else None,
    )


def _look_in(account: Account, lease: str | None) -> Inventory:
    where = {"Name": f"tag:{LEASE}", "Values": [lease]} if lease is not None else {"Name": f"tag:{MANAGED}", "Values": ["true"]}
    found: dict[tuple[str, str], Resource] = {}
    looked: list[Looked] = []
    requests: list[str] = []
    date: str | None = None
    for kind in (*MADE, *OTHER):
        try:
            for answer in account.pages(kind.list_call, kind.page_size, Filters=[where], **(kind.more or {})):
                requests.append(answer.request_id)
                date = answer.date or date
                for described in kind.items(answer.data):
                    one = resource(kind, described, account.region, answer.stamp())
                    found[one.kind, one.id] = one
        except ProviderError as e:
            if kind in MADE or not _cannot_list(e, simulated=account.endpoint is not None):
                raise
            looked.append(Looked(kind.name, account.region, checked=False, reason=e.what))
        else:
            looked.append(Looked(kind.name, account.region))
    schedules, seen, answers = aws_schedule.listed(account, lease, lambda e: _cannot_list(e, simulated=account.endpoint is not None))
    found |= {(one.kind, one.id): one for one in schedules}
    return Inventory(tuple(found.values()), (*looked, seen), (*requests, *(answer.request_id for answer in answers)), date)


def _cannot_list(e: ProviderError, *, simulated: bool) -> bool:
    return e.provider_code in UNKNOWN | DENIED or (simulated and e.provider_code in UNKNOWN_HERE)


def _raise_in(region: str, e: ProviderError) -> NoReturn:
    raise type(e)(f"{region}: {e.what}", why=e.why, next=e.next, provider_code=e.provider_code, request_id=e.request_id) from e
