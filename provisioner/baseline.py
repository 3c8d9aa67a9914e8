"""What was there before the launch, and what is there after the end that was not, whosever it is.

A look asks for this run's tag and for the ids that the journal knows. What carries neither (a volume that a script on the machine
made, an interface of somebody's load balancer) no look shows. So everything is listed once before the first create and once
after the verdict, and the difference, less what is this run's or carries another lease's tag, is told and counted: it may be
another user's. Nothing follows from it. No verdict, no exit code and no removal looks at what is found here.

Other people's ids stay here: `baseline.json` and `unexplained.json`, 0600 in the lease's own folder, which no bundle has. The
journal has counts, and the digest of the first file, which was salted: it cannot be another file later, and tells nobody an id.

Each of the two takes `WITHIN_S` at most. The second is for whoever ends the lease, the run or its watchdog; where nobody comes to
it, the proof says that nobody looked.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from provisioner.journal import Entry, Journal
from provisioner.lease import anchor, holdings
from provisioner.ledger import LeaseFolder, write_private
from provisioner.model import Json, Listed, Phase, Provider, Unfiltered

WITHIN_S = 15.0
FILE, FOUND = "baseline.json", "unexplained.json"
REASON = 160
"""A line of the journal has to hold the reasons for all kinds."""


def take(folder: LeaseFolder, provider: Provider, journal: Journal, sleep: Callable[[float], None]) -> None:
    """Before the first create. A provider that cannot list others' things, or a disk that does not take the file, means none."""
    if not isinstance(provider, Unfiltered):
        return
    anchor(provider, folder.id, journal)
    seen = provider.everything(within=WITHIN_S, sleep=sleep)
    there = [{"class": one.kind, "region": one.region, "ids": sorted(r.id for r in one.resources)} for one in seen if not one.unchecked]
    raw = _written({"salt": secrets.token_hex(16), "classes": there})
    try:
        write_private(folder.path / FILE, raw)
    except OSError:
        return  # what this run rents is journalled or refused elsewhere; this is only for its proof
    rows = _Rows()
    for one in seen:
        rows.add(one, one.unchecked, found=len(one.resources))
    journal.note("baseline", {"classes": rows.made(), "sha256": _sha256(raw)})


def look_again(folder: LeaseFolder, provider: Provider, journal: Journal, sleep: Callable[[float], None]) -> None:
    """After the verdict, once. Raises OSError and ValueError where the first look cannot be read any more."""
    taken = next((e["body"] for e in journal.entries if e["kind"] == "baseline"), None)
    if taken is None or not isinstance(provider, Unfiltered) or any(e["kind"] == "unfiltered" for e in journal.entries):
        return
    raw = (folder.path / FILE).read_bytes()
    if _sha256(raw) != taken["sha256"]:
        raise ValueError(f"{FILE} is not the file that the journal names")
    before = {(row["class"], row["region"]): frozenset(row["ids"]) for row in json.loads(raw)["classes"]}
    why = {(row["class"], region): str(row.get("reason", "")) for row in taken["classes"] for region in row["regions"]}
    anchor(provider, folder.id, journal)
    ours = {r.id for r in holdings(journal.entries).resources.values()}
    rows = _Rows()
    found: list[dict[str, Json]] = []
    for one in provider.everything(within=WITHIN_S, sleep=sleep):
        place = one.kind, one.region
        there = [r for r in one.resources if r.phase is not Phase.GONE]
        mine = [r for r in there if r.id in ours or r.lease == folder.id]
        if one.unchecked or place not in before:
            rows.add(one, one.unchecked or f"before the launch: {why.get(place) or 'not looked at'}", ours=len(mine))
            continue
        # What carries another lease's tag is explained: that lease lets go of it.
        new = [r for r in there if r not in mine and not r.lease and r.id not in before[place]]
        rows.add(one, "", ours=len(mine), newUnexplained=len(new))
        found += [{"class": r.kind, "region": r.region, "id": r.id, "state": r.state} for r in new]
    if found:
        write_private(folder.path / FOUND, _written({"new": found}))
    journal.note("unfiltered", {"classes": rows.made()})


def words(entries: Sequence[Entry]) -> str:
    """A line for whoever waits for the end; "" where nothing new is there, or nobody looked."""
    last: Any = next((e["body"]["classes"] for e in reversed(entries) if e["kind"] == "unfiltered"), [])
    new = ", ".join(f"{n} {row['class']} in {', '.join(row['regions'])}" for row in last if (n := row.get("newUnexplained")))
    return new and f"new since before the launch and not known to be of this run: {new}. It may be somebody else's; nothing was done to it"


class _Rows:
    """A row for each kind that was looked at alike, with its regions: one each would be too long a line for ten regions."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, one: Listed, why: str, **counts: int) -> None:
        reason = why[:REASON]
        row: dict[str, Any] = {"class": one.kind, "regions": [], "checked": not reason, **dict.fromkeys(counts, 0)}
        row = self._rows.setdefault((one.kind, reason), row | ({"reason": reason} if reason else {}))
        row["regions"].append(one.region)
        for name, n in counts.items():
            row[name] += n

    def made(self) -> list[Json]:
        return list(self._rows.values())


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _written(value: Json) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"
