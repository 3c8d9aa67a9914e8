"""`gpulease proof corroborate`: ask AWS, afterwards, what it recorded of a run, and lay it beside the proof.

The journal is not touched: what AWS says is put into the lease's folder and a new statement is made over the same journal and the
new files, which names the one that it takes the place of. Whatever comes is kept as it came and judged by `verify`: a record
that contradicts the journal makes a proof that does not hold, and that is the point of asking.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from provisioner import closing, ledger, providers
from provisioner.clouds import cloud_has_ended, newest
from provisioner.errors import ProviderError, RefusedError
from provisioner.ledger import LeaseFolder
from provisioner.providers.aws_client import Account

Coded = tuple[int, dict[str, Any], str]
Tell = Callable[[str], None]
KEPT = timedelta(days=90)
AROUND = timedelta(minutes=5)


def corroborate(name: str | None, lookups_only: bool, tell: Tell, sleep: Callable[[float], None] = time.sleep) -> Coded:
    """Add CloudTrail's material to a lease's proof. Exit 0 when the new proof holds, whatever tier it reached."""
    from provisioner.evidence import cloudtrail, corroboration, verify

    folder = newest(name)
    predicate = proven(folder)
    provider = reached(folder)
    begins, ends = _span(predicate)
    if datetime.now(UTC) - begins > KEPT:
        tell("CloudTrail keeps what can be looked up for 90 days: of this run there may be nothing any more")
    accounts = [provider.account_of(region) for region in corroboration.regions(predicate)]
    found: dict[str, bytes] = {}
    texts = dict.fromkeys(_ours(accounts, predicate, begins, ends, sleep))
    found[cloudtrail.EVENTS] = "".join(f"{text}\n" for text in texts).encode()
    tell(f"{len(texts)} records of CloudTrail concern this run")
    keys: list[bytes] = []
    if not lookups_only:
        files, keys = _files(accounts, begins, ends, tell)
        found |= {f"{cloudtrail.FOLDER}{name}": data for name, data in files.items()}
    _keep(folder, found, anew=not lookups_only)
    proved = closing.prove(folder, supersedes=True)
    if proved.before is not None:
        tell(proved.words())
    report = verify.verify(folder.evidence, cloudtrail_keys=keys)
    record = {
        "schema": "gpulease/corroborate/1",
        "lease": folder.id,
        "events": len(texts),
        "files": sorted(found),
        "evidence": str(folder.evidence),
        "verify": report.json(),
    }
    return report.exit, record, report.text()


def public_keys(predicate: dict[str, Any] | None, profile: str | None) -> list[bytes]:
    """AWS's keys for the regions and the time of a proof, asked with whatever login the verifier has: they are no account's."""
    from provisioner.evidence import corroboration
    from provisioner.providers import aws_trail

    if predicate is None or predicate["simulated"]:
        return []  # nothing that could be read, or something that has a key of its own
    accounts = [Account(region, profile) for region in corroboration.regions(predicate)]
    return [key for account in accounts for key in aws_trail.public_keys(account, *_span(predicate))]


def proven(folder: LeaseFolder) -> dict[str, Any]:
    """The predicate of a proof of ours that holds and that nobody works on, or a refusal."""
    from provisioner.evidence import verify

    if not folder.evidence.is_dir():
        raise RefusedError(f"lease {folder.id} has no proof yet", why=f"there is no {folder.evidence}", next=f"gpulease proof {folder.id}")
    if ledger.alive(folder):
        raise RefusedError(f"lease {folder.id} is still held", why="its journal is being written", next="gpulease ls")
    report = verify.verify(folder.evidence)
    if report.predicate is None or report.exit == 3:
        raise RefusedError(f"the proof of {folder.id} cannot be read", next=f"gpulease verify {folder.evidence}")
    if report.predicate["run"]["provider"] != "aws":
        raise RefusedError(f"lease {folder.id} was not on AWS", why="only AWS keeps such records", next="gpulease ls --all")
    if not report.predicate["instances"]:
        raise RefusedError(f"lease {folder.id} never asked for a machine", why="there is nothing to ask about", next="gpulease ls --all")
    return report.predicate


def reached(folder: LeaseFolder) -> Any:
    """The account of the lease."""
    card = folder.card()
    if cloud_has_ended(card["settings"]):
        raise RefusedError(
            f"the rehearsal cloud of lease {folder.id} has ended",
            why="SIMULATED; there is nobody to ask any more",
            next="gpulease rehearse serve",
        )
    return providers.connect(card["provider"], card["settings"])


def _span(predicate: dict[str, Any]) -> tuple[datetime, datetime]:
    run = predicate["run"]
    times = [run["startedAt"], run.get("endedAt"), *(anchor.get("at") for anchor in predicate["anchors"])]
    known = [datetime.fromisoformat(text) for text in times if text]
    return min(known) - AROUND, max(known) + AROUND


def _ours(
    accounts: Sequence[Account], predicate: dict[str, Any], begins: datetime, ends: datetime, sleep: Callable[[float], None]
) -> list[str]:
    """The texts of the records that concern this run; of others nothing is kept."""
    from provisioner.evidence import cloudtrail
    from provisioner.evidence.canonical import Malformed, parse
    from provisioner.providers import aws_trail

    kept: list[str] = []
    for account in accounts:
        for text in aws_trail.events(account, begins, ends, sleep):
            try:
                event = parse(text.encode())
            except Malformed:
                continue  # no record of a call of ours looks like this; a missing one is said by verify
            if isinstance(event, dict) and cloudtrail.about([event], predicate):
                kept.append(text)
    return kept


def _files(accounts: Sequence[Account], begins: datetime, ends: datetime, tell: Tell) -> tuple[dict[str, bytes], list[bytes]]:
    """The trail's files and AWS's keys; nothing, with the reason told, where they cannot be had."""
    from provisioner.providers import aws_trail

    found: dict[str, bytes] = {}
    keys: list[bytes] = []
    for account in accounts:
        try:
            trail = aws_trail.trail(account)
            if trail is None:
                tell(f"{account.region}: no trail with log file validation; the proof can be recorded and not corroborated")
                continue
            number = str(account.ask("GetCallerIdentity", service="sts").data["Account"])
            files = aws_trail.files(account, trail, number, begins, ends - AROUND)
            keys += aws_trail.public_keys(account, begins, ends)
        except ProviderError as e:
            tell(f"{account.region}: the trail's files could not be had: {e.what}" + (f"; {e.next}" if e.next else ""))
            continue
        found |= files
        size = sum(map(len, files.values()))
        tell(f"{account.region}: {len(files)} files of the trail {trail.name}, {size} bytes")
        tell("they hold every call of the account in those hours, not only this run's")
    return found, keys


def _keep(folder: LeaseFolder, found: dict[str, bytes], *, anew: bool) -> None:
    """Put it where the next proof is made of; `anew`: in place of all that is there. What was not asked for this time stays."""
    if anew:
        shutil.rmtree(folder.path / "aws" / "cloudtrail", ignore_errors=True)
    for name, data in found.items():
        path = folder.path
        for part in name.split("/")[:-1]:
            path = ledger.private(path / part)
        ledger.write_private(folder.path / name, data)
