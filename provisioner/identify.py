"""The machine that we reached, by AWS's word: its identity document, kept for the proof, and held against what was launched.

A document that carries AWS's signature and names another machine stops the run: then something stands between us and the one
that is paid for. None at all, or one that cannot be checked here, only weakens the proof, and the story says so.
"""

from __future__ import annotations

from typing import Any

from provisioner import ledger
from provisioner.errors import HostError, RunError
from provisioner.evidence import certificates, identity
from provisioner.evidence.corroboration import IDENTITY
from provisioner.life import Life
from provisioner.model import Host, Resource


def identify(life: Life, host: Host, machine: Resource) -> dict[str, Any]:
    """What the journal's stage says of it: the file's name, or why there is none."""
    from provisioner.remote import identity as remote

    if life.lease.provider.name != "aws":
        return {}
    try:
        text = remote.document(host)
    except HostError as e:
        why = e.why or e.what
        life.tell("identify", f"no identity document: {why}")
        return {"identity": f"none: {why}"[:200]}
    name = f"{IDENTITY}{machine.id}.p7"
    for above in ("aws", IDENTITY):
        ledger.private(life.folder.path / above)
    ledger.write_private(life.folder.path / name, text)
    trusted = certificates.table().of(machine.region, simulated=life.plan.simulated)
    if not trusted:
        life.tell("identify", f"an identity document, not checked: no AWS certificate for {machine.region} here")
        return {"identity": name, "identityChecked": False}
    try:
        seen = identity.verify(text, trusted).fields
    except identity.Forged as e:
        life.tell("identify", f"an identity document that AWS's certificate for {machine.region} does not fit: {e}")
        return {"identity": name, "identityChecked": False}
    if (seen["instanceId"], seen["region"]) != (machine.id, machine.region):
        raise RunError(
            f"the machine that was reached is {seen['instanceId']} in {seen['region']}, and not {machine.id}",
            why="its identity document says so, and AWS signed it",
            next="nothing was downloaded to it; look at who else can change your user data or your network",
        )
    mark = "SIMULATED, " if life.plan.simulated else ""
    life.tell("identify", f"{mark}AWS's signed document names {seen['instanceId']}, {seen['instanceType']}, begun {seen['pendingTime']}")
    return {"identity": name, "identityChecked": True}
