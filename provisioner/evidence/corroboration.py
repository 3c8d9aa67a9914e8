"""What lies in a bundle beside the client's own word, said without judging a signature: so it is derived the same for ever.

Whether AWS's certificate or key fits is for `identified` and `recorded` to say, with the tables of the day; here it only
counts what is there and whether it covers the run. The maker of a statement may claim less than is there ("unchecked"), for
example where it had no certificate for the region; never more.
This file must not open anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from provisioner.evidence import cloudtrail, digests, tiers
from provisioner.evidence.canonical import Malformed, milliseconds
from provisioner.evidence.history import MACHINE, History, Thing
from provisioner.model import Json

IDENTITY = "aws/iid/"
UNCHECKED = "unchecked("

Aws = Mapping[str, bytes]
"""The files of a bundle under `aws/`, by name."""


def described(history: History, aws: Aws, predicate: Mapping[str, Any], heads: Sequence[str], unchecked: str = "") -> dict[str, Json]:
    """The statement's `corroboration`. `heads` are those of the journal; `unchecked` is why the maker could not check the documents."""
    why = "simulated" if predicate["simulated"] else "not-collected" if history.genesis["provider"] == "aws" else "not-aws"
    documents = [f"{IDENTITY}{thing.id}.p7" in aws for thing in _machines(history)]
    identity = "present" if documents and all(documents) else "partial" if any(documents) else f"absent({why})"
    if unchecked and identity == "present":
        identity = f"{UNCHECKED}{unchecked})"
    chain = chained(predicate, aws)
    looked = compared(predicate, heads, aws, chain)
    logged = cloudtrail.compare(predicate, heads, chain.events)
    shown = {
        "client": True,
        "identified": identity == "present",
        "recorded": looked.whole,
        "corroborated": chain.complete and logged.whole,
    }
    return {
        "tier": tiers.climbed([tier for tier, holds in shown.items() if holds]),
        "iid": identity,
        "cloudtrailEvents": looked.ours,
        "records": "complete" if looked.whole else "incomplete" if looked.ours else f"absent({why})",
        "digestChain": "complete" if chain.complete else "gap" if chain.there else f"absent({why})",
        "billed": f"absent({why})",
    }


def compared(predicate: Mapping[str, Any], heads: Sequence[str], aws: Aws, chain: digests.Chained) -> cloudtrail.Compared:
    """Every record in the bundle, copied or out of a log file, held against the statement."""
    try:
        copies = cloudtrail.looked_up(aws)
    except Malformed:
        return cloudtrail.Compared()  # for whoever verifies to report
    return cloudtrail.compare(predicate, heads, [*copies, *chain.events])


def chained(predicate: Mapping[str, Any], aws: Aws) -> digests.Chained:
    """The digests over the whole run, in every region in which it made a machine or spoke to AWS last."""
    begins, ends = _span(predicate)
    return digests.chained(aws, regions(predicate), begins, ends)


def regions(predicate: Mapping[str, Any]) -> list[str]:
    here = predicate["run"].get("region")
    found = {str(one["region"]) for one in predicate["instances"] if "id" in one and "region" in one}
    return sorted(found | ({str(here)} if here else set()))


def _span(predicate: Mapping[str, Any]) -> tuple[int, int]:
    """From the beginning of the run to the last that AWS was shown of it."""
    run = predicate["run"]
    times = [run.get("startedAt"), run.get("endedAt"), *(anchor.get("at") for anchor in predicate["anchors"])]
    known = [ms for ms in map(milliseconds, times) if ms is not None]
    return known[0] if known else 0, max(known, default=0)  # a stranger's statement need not say when


def _machines(history: History) -> list[Thing]:
    """The machines of which the provider said an id: all of them have to be identified."""
    return [thing for thing in history.things.values() if thing.kind == MACHINE]


def unchecked(stated: Json) -> str:
    """The reason in a statement's `iid` for not having checked what is there."""
    return stated[len(UNCHECKED) : -1] if isinstance(stated, str) and stated.startswith(UNCHECKED) and stated.endswith(")") else ""
