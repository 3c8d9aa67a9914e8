"""What lies in a bundle beside the client's own word, said without judging a signature: so it is derived the same for ever.

Whether AWS's certificate or key fits is for `identified` and `cloudtrail` to say, with the tables of the day; here it only
counts what is there and whether it covers the run. The maker of a statement may claim less than is there ("unchecked"), for
example where it had no certificate for the region; never more.
This file must not open anything.
"""

from __future__ import annotations

from collections.abc import Mapping

from provisioner.evidence import tiers
from provisioner.evidence.history import MACHINE, History, Thing
from provisioner.model import Json

IDENTITY = "aws/iid/"
UNCHECKED = "unchecked("

Aws = Mapping[str, bytes]
"""The files of a bundle under `aws/`, by name."""


def described(history: History, aws: Aws, *, simulated: bool, unchecked: str = "") -> dict[str, Json]:
    """The statement's `corroboration`. `unchecked` is why its maker could not check the identity documents, "" if it could."""
    why = "simulated" if simulated else "not-collected" if history.genesis["provider"] == "aws" else "not-aws"
    documents = [document_of(thing) in aws for thing in ran(history)]
    identity = "present" if documents and all(documents) else "partial" if any(documents) else f"absent({why})"
    if unchecked and identity == "present":
        identity = f"{UNCHECKED}{unchecked})"
    shown = {"client"} | ({"identified"} if identity == "present" else set())
    return {
        "tier": tiers.climbed(shown),
        "iid": identity,
        "cloudtrailEvents": 0,
        "digestChain": f"absent({why})",
        "billed": f"absent({why})",
    }


def ran(history: History) -> list[Thing]:
    """The machines of which the provider said an id: all of them have to be identified."""
    return [thing for thing in history.things.values() if thing.kind == MACHINE]


def document_of(thing: Thing) -> str:
    return f"{IDENTITY}{thing.id}.p7"


def unchecked(stated: Json) -> str:
    """The reason in a statement's `iid` for not having checked what is there."""
    return stated[len(UNCHECKED) : -1] if isinstance(stated, str) and stated.startswith(UNCHECKED) and stated.endswith(")") else ""
