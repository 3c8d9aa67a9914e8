"""`gpulease proof reconcile`: what AWS billed for the machines of a run, as a second statement on its proof.

The figure is asked for two days after the run or later, and is laid into the lease's folder as it came; the second statement is
made with the first each time the proof is made anew, so that it always names the one beside it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from provisioner import closing, ledger
from provisioner.clouds import newest
from provisioner.corroborate import Coded, proven, reached
from provisioner.errors import ProviderError, RefusedError

SETTLED = timedelta(hours=48)


def reconcile(name: str | None) -> Coded:
    """Add the bill to a lease's proof. Exit 0 when the proof holds."""
    from provisioner.evidence import bill, verify
    from provisioner.evidence.canonical import dumps
    from provisioner.providers.aws_bill import REACHES_BACK, SERVED_IN, billed
    from provisioner.providers.aws_client import Account

    folder = newest(name)
    predicate = proven(folder)
    machines = sorted({one["id"] for one in predicate["instances"] if "id" in one})
    begins = datetime.fromisoformat(predicate["run"]["startedAt"])
    ends = datetime.fromisoformat(predicate["run"].get("endedAt", predicate["journal"]["lastAt"]))
    now = datetime.now(UTC)
    if not machines:
        raise RefusedError(f"lease {folder.id} made no machine", why="there is nothing to be billed", next="gpulease ls --all")
    if not predicate["simulated"] and now - ends < SETTLED:
        when = f"{ends + SETTLED:%Y-%m-%d %H:%M} UTC"
        raise RefusedError(
            "the bill is not settled yet", why=f"AWS needs about two days; ask after {when}", next="gpulease proof reconcile LEASE"
        )
    if now - begins > REACHES_BACK:
        raise RefusedError(
            "the run is too long ago", why="Cost Explorer shows single machines for 14 days", next="look it up in a cost report of yours"
        )
    provider = reached(folder)
    account = Account(SERVED_IN, provider.account.profile, provider.account.endpoint)
    try:
        answer: dict[str, Any] = billed(account, machines, begins, ends)
    except ProviderError as e:
        e.next = e.next or "Cost Explorer and its resource level for EC2 have to be switched on in the console, once"
        raise
    ledger.private(folder.path / "aws")
    ledger.write_private(folder.path / bill.FILE, dumps(answer))
    closing.prove(folder, supersedes=True)
    report = verify.verify(folder.evidence)
    record = {
        "schema": "gpulease/reconcile/1",
        "lease": folder.id,
        "bill": report.bill,
        "evidence": str(folder.evidence),
        "verify": report.json(),
    }
    return report.exit, record, report.text()
