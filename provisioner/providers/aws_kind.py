"""One kind of resource at EC2: how it is listed, asked for by id and asked to go, and how a description of it is read.

EC2 sorts by tag where it can; where it cannot, everything of the kind is listed and sorted here. A provider's word that
the kind's table does not hold counts as *here*. This file must not send anything, nor know which kinds there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from provisioner.model import Json, Phase, Resource
from provisioner.providers.aws_client import instant
from provisioner.providers.aws_launch import DEADLINE, LEASE, MANAGED

Described = Mapping[str, Any]
FLEET_ID = "aws:ec2:fleet-id"
"""The tag that EC2 itself gives to what a fleet makes."""


@dataclass(frozen=True)
class Kind:
    """How one kind of resource is listed, asked for by id, and asked to go."""

    name: str
    list_call: str
    items: Callable[[Described], list[Described]]
    id_key: str
    ids: str  # the parameter that lists by id
    remove_call: str
    remove_id: str
    read: Callable[[Described], dict[str, Any]]  # phase, state, billed, facts, token
    page_size: int | None = 200
    by_list: bool = False  # the removal takes a list of ids
    more: Mapping[str, Any] | None = None
    filters: str = "Filters"  # the parameter that filters by tag; "" where EC2 has no such filter and all are listed
    by_key: bool = False  # EC2 filters by the tag's key alone
    removal: Mapping[str, Any] | None = None  # what the removal says besides the id
    ends: Callable[[Described], list[Described]] | None = None  # the failures that a removal answers with

    def where(self, lease: str | None) -> dict[str, Any]:
        """The parameters that list what is under one lease's tag, or under any."""
        found = dict(self.more or {})
        if not self.filters:
            return found
        key, value = (LEASE, lease) if lease is not None else (MANAGED, "true")
        wanted = {"Name": "tag-key", "Values": [key]} if self.by_key else {"Name": f"tag:{key}", "Values": [value]}
        return {**found, self.filters: [wanted]}

    def ours(self, described: Described, lease: str | None) -> bool:
        """Of what was listed: EC2 has sorted it where it can, we do where it cannot."""
        if self.filters and not self.by_key:
            return True
        return tag(described, LEASE) == lease if lease is not None else tag(described, MANAGED) == "true"


def plain(
    phases: Mapping[str, Phase], *, billed: bool, state: str = "State", facts: Mapping[str, str] | None = None
) -> Callable[[Described], dict[str, Any]]:
    """A kind of which little more matters than its state. A word that the table does not hold counts as here."""

    def read(d: Described) -> dict[str, Any]:
        word = str(d.get(state, ""))
        said = {name: d.get(key) for name, key in (facts or {}).items()}
        return {"phase": phases.get(word.lower(), Phase.HERE), "state": word or "exists", "billed": billed, "facts": said}

    return read


def at(key: str) -> Callable[[Described], list[Described]]:
    return lambda data: list(data.get(key, []))


def resource(kind: Kind, described: Described, region: str, stamp: Mapping[str, Json]) -> Resource:
    """One description as a Resource, with what AWS said about it kept as facts."""
    read = kind.read(described)
    facts = {**read["facts"], "deadline": tag(described, DEADLINE), **stamp}
    return Resource(
        kind=kind.name,
        id=str(described[kind.id_key]),
        phase=read["phase"],
        state=read["state"],
        token=read.get("token") or None,
        billed=read["billed"],
        region=region,
        lease=tag(described, LEASE),
        facts={name: value for name, value in facts.items() if value not in (None, "")},
    )


def tag(described: Described, key: str) -> str:
    # DescribeNetworkInterfaces alone calls its tags TagSet.
    tags = described.get("Tags") or described.get("TagSet") or []
    return next((str(t.get("Value", "")) for t in tags if t.get("Key") == key), "")


def time(moment: object) -> str | None:
    return instant(moment) if isinstance(moment, datetime) else None
