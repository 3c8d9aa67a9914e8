"""Which guards have been made to fire, where and when: the difference between "armed" and "known to work".

One file in the state folder, `drills.json`, written by `gpulease drill`, newest entry last:

    {"schema": "gpulease/drills/1", "drills": [
      {"account": "123456789012", "region": "us-east-1", "guard": "schedule", "date": "2026-11-21T14:33:02Z",
       "secondsLate": 2, "simulated": false}]}

`guard` is a name of `guards.NAMES`, or "reap"; `secondsLate` counts from the instant at which it was to fire. A drill in a rehearsal says
nothing about a real account, so it only ever counts for a rehearsal. A file that cannot be read is no drill: undrilled is the
weaker claim. This file must not know how a drill is done.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from provisioner import ledger
from provisioner.journal import instant

SCHEMA = "gpulease/drills/1"


@dataclass(frozen=True)
class Drill:
    account: str
    region: str
    guard: str
    date: str  # RFC 3339 Z: when it fired
    seconds_late: int
    simulated: bool

    def record(self) -> dict[str, Any]:
        """As a journal's guard line and the proof hold it."""
        return {"date": self.date, "region": self.region, "secondsLate": self.seconds_late}


def path() -> Path:
    return ledger.root() / "drills.json"


def read() -> list[Drill]:
    """Every drill on file, oldest first."""
    try:
        document = json.loads(path().read_text("utf-8"))
        if document["schema"] != SCHEMA:
            return []
        found = [
            Drill(
                str(d["account"]),
                str(d["region"]),
                str(d["guard"]),
                str(d["date"]),
                max(int(d["secondsLate"]), 0),
                bool(d["simulated"]),
            )
            for d in document["drills"]
        ]
        return sorted(found, key=lambda drill: instant(drill.date))
    except (OSError, ValueError, LookupError, TypeError):
        return []


def add(*drills: Drill) -> None:
    """Note that these guards fired."""
    rows = [{"secondsLate" if key == "seconds_late" else key: value for key, value in asdict(d).items()} for d in (*read(), *drills)]
    ledger.write_private(path(), json.dumps({"schema": SCHEMA, "drills": rows}, indent=1).encode())


def last(account: str, region: str, guard: str, *, simulated: bool = False) -> Drill | None:
    """The newest drill of that guard in that account and region. An account nobody named has had none."""
    same = [d for d in read() if account and (d.account, d.region, d.guard, d.simulated) == (account, region, guard, simulated)]
    return same[-1] if same else None
