"""The five tiers of a proof, weakest first: whose word it is, and who could have made it up.

They are a ladder: each needs every one before it. `client`: the user's key, so the user could. `identified`: a document that
AWS signed says that each machine was begun. `recorded`: copies of CloudTrail's records agree with the journal; anybody who may
read the account can ask AWS for them again. `corroborated`: the same records out of log files whose digests AWS signed, without
a gap. `billed`: the bill lies beside them. What the statement claims is worked out from what lies in the bundle; what a
verifier reached is worked out again, by itself, and may be less where it lacks a certificate or a key.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

TIERS = ("client", "identified", "recorded", "corroborated", "billed")
NAMES = {
    "client": "client-signed",
    "identified": "AWS-identified",
    "recorded": "AWS-recorded",
    "corroborated": "AWS-corroborated",
    "billed": "billed",
}


def climbed(shown: Collection[str]) -> str:
    """The highest tier with all those below it among `shown`; "" when not even the first is."""
    reached = ""
    for tier in TIERS:
        if tier not in shown:
            break
        reached = tier
    return reached


def reaches(tier: str, wanted: str) -> bool:
    return tier in TIERS and TIERS.index(tier) >= TIERS.index(wanted)


def claimed(predicate: Mapping[str, Any]) -> str:
    """What the statement itself claims, from what lies in the bundle."""
    return str(predicate["corroboration"]["tier"])
