"""What CloudTrail's material in a bundle shows to whoever verifies: which of the two upper tiers it reaches, and what speaks against.

`recorded` needs every call that matters among the records, agreeing, with no head of another journal. `corroborated` needs the
same out of log files under a chain of digests without a gap, and AWS's signature on each digest, by keys that the verifier
brought. A call that is missing from copies may be late; one that is missing under a complete chain was never received.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provisioner.evidence import certificates, cloudtrail, corroboration, digests
from provisioner.evidence.canonical import Malformed, rfc3339
from provisioner.evidence.messages import Problem, problem


@dataclass
class Shown:
    """The tiers whose own material held, contradictions, and what stays open."""

    tiers: set[str] = field(default_factory=set)
    wrong: list[Problem] = field(default_factory=list)
    open: list[Problem] = field(default_factory=list)


def examined(predicate: Mapping[str, Any], aws: Mapping[str, bytes], heads: Sequence[str], keys: Sequence[bytes]) -> Shown:
    """`keys` are CloudTrail's public keys that the verifier trusts, DER; a simulated statement has its own."""
    shown = Shown()
    try:
        cloudtrail.looked_up(aws)
    except Malformed as e:
        shown.wrong.append(problem("E110", jsonpath=f"${cloudtrail.EVENTS}", why=str(e)))
        return shown
    chain = corroboration.chained(predicate, aws)
    copies = corroboration.compared(predicate, heads, aws, chain)
    shown.wrong += chain.wrong
    # A journal that was begun anew, or elsewhere, does not hold the heads of the one before it.
    another = {"journal-rebuilt", "journal-elsewhere"} & set(predicate["limits"])
    (shown.open if another else shown.wrong).extend(copies.wrong)
    shown.open += [problem("W603", op=name, id=request) for name, request in copies.missing]
    if copies.whole:
        shown.tiers.add("recorded")
    if chain.there and not shown.wrong:
        _signed(predicate, chain, heads, _trusted(predicate, keys), shown)
    return shown


def _signed(predicate: Mapping[str, Any], chain: digests.Chained, heads: Sequence[str], keys: Sequence[bytes], shown: Shown) -> None:
    if chain.gap is not None:
        shown.open.append(problem("W601", a=chain.gap[0], b=chain.gap[1]))
    if not keys:
        shown.open.append(problem("W604", region=", ".join(corroboration.regions(predicate))))
        return
    if unsigned := digests.signed(chain, keys):
        shown.wrong += unsigned
        return
    if chain.complete:
        logged = cloudtrail.compare(predicate, heads, chain.events)
        a, b = (rfc3339(ms) for ms in (min(d.begins for d in chain.digests), max(d.ends for d in chain.digests)))
        shown.wrong += [problem("E603", event=name, id=request, a=a, b=b) for name, request in logged.missing]
        if logged.whole:
            shown.tiers.add("corroborated")


def _trusted(predicate: Mapping[str, Any], keys: Sequence[bytes]) -> Sequence[bytes]:
    return [certificates.simulated_key()] if predicate["simulated"] else keys
