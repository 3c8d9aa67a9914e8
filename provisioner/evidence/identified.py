"""Do the identity documents in a bundle carry AWS's signature, and do they speak of the machines in the statement?

Static documents: they show that these machines were begun, not that they ran or ended. A document that the statement relies on
and that does not hold is a contradiction; a region without a certificate here is not: then the tier is not reached, and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from provisioner.evidence import certificates, identity
from provisioner.evidence.canonical import milliseconds
from provisioner.evidence.corroboration import IDENTITY, unchecked
from provisioner.evidence.messages import Problem, problem

APART_MS = 120_000
"""The launch time that DescribeInstances gives and the document's are seconds apart at most; a minute is generous."""

_SAME = (
    ("instanceId", "id"),
    ("instanceType", "type"),
    ("region", "region"),
    ("imageId", "imageId"),
    ("availabilityZone", "availabilityZone"),
)


def doubts(
    predicate: Mapping[str, Any], aws: Mapping[str, bytes], extra: Sequence[bytes] = ()
) -> tuple[bool, list[Problem], list[Problem]]:
    """Is every machine identified; what contradicts it; what could not be checked here. `extra` are certificates to trust too."""
    wrong: list[Problem] = []
    open_: list[Problem] = []
    machines = [one for one in predicate["instances"] if "id" in one]
    for one in machines:
        if (text := aws.get(f"{IDENTITY}{one['id']}.p7")) is not None:
            found = _doubt(one, text, bool(predicate["simulated"]), extra)
            if found is not None:
                (open_ if found.code.startswith("W") else wrong).append(found)
    if wrong and unchecked(predicate["corroboration"]["iid"]):
        # The statement does not rely on them; AWS may have changed its certificate.
        wrong, open_ = [], [*open_, *wrong]
    complete = bool(machines) and all(f"{IDENTITY}{one['id']}.p7" in aws for one in machines)
    return complete and not wrong and not open_, wrong, open_


def _doubt(machine: Mapping[str, Any], text: bytes, simulated: bool, extra: Sequence[bytes]) -> Problem | None:
    region = str(machine.get("region", ""))
    table = certificates.table()
    trusted = [*table.of(region, simulated=simulated), *(() if simulated else extra)]
    if not trusted:
        return problem("W504", region=region or "an unnamed region", date=table.as_of, url=certificates.SOURCE)
    try:
        document = identity.verify(text, trusted)
    except identity.Forged as e:
        return problem("E501", region=region, why=str(e))
    for theirs, ours in _SAME:
        if ours in machine and document.fields[theirs] != machine[ours]:
            return problem("E502", field=theirs, a=document.fields[theirs], b=machine[ours])
    begun, launched = milliseconds(document.fields["pendingTime"]), milliseconds(machine.get("launchTime"))
    if begun is None or (launched is not None and abs(begun - launched) > APART_MS):
        d = "an unknown number of" if begun is None or launched is None else abs(begun - launched) // 1000
        return problem("E503", a=document.fields["pendingTime"], b=machine.get("launchTime", "none"), d=d)
    return None
