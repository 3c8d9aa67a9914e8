"""`gpulease ls`: the leases of this computer, by their journals; the provider is not asked.

What may cost money comes first, the rehearsed below a line that says so. No line is wider than 80 columns as long as the machine's
type and the amount have no more than 21 characters together. What nobody looks after is named once more, with what ends it and its price.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cost
from provisioner import closing, ledger
from provisioner.clouds import cloud_has_ended
from provisioner.errors import GpuleaseError
from provisioner.lease import holdings
from provisioner.model import Verdict
from provisioner.render import SIMULATED, table

ENDED = "its rehearsal cloud has ended"
ORPHANED, BROKEN = "ORPHANED", "broken"


@dataclass(frozen=True)
class Line:
    """One lease: how it stands, and what of its first line is shown."""

    stands: ledger.Standing
    genesis: Mapping[str, Any]
    state: str
    spent: cost.Spend | None  # None when the journal does not say, or cannot be read
    hourly: int | None  # micro-dollars while it is there; None when the journal does not say

    @property
    def simulated(self) -> bool:
        return bool(self.genesis.get("simulated"))

    @property
    def orphaned(self) -> bool:
        """Nobody looks after it; one whose journal cannot be read is not known to be gone."""
        return self.state.startswith((ORPHANED, BROKEN))

    def record(self) -> dict[str, Any]:
        held = self.stands.held
        return {
            "lease": self.stands.folder.id,
            "state": self.state,
            "provider": self.genesis.get("provider"),
            "simulated": self.simulated,
            "deadline": self.genesis.get("deadline"),
            "verdict": str(held.verdict) if held.verdict else None,
            "spentBestMicroUsd": self.spent.best if self.spent else None,
            "spentHiMicroUsd": self.spent.hi if self.spent else None,
            "microUsdPerHour": self.hourly,
            "broken": self.stands.broken or None,
        }

    def cells(self) -> list[str]:
        state = "ended" if self.state == ENDED else self.state.partition(" ")[0]
        deadline = (self.genesis.get("deadline") or "?")[:16].replace("T", " ")
        machine = self.genesis.get("offer", {}).get("type", "?")
        return [self.stands.folder.id, state, machine, deadline, cost.show(self.spent.best) if self.spent else "?"]

    def price(self) -> str:
        """What an orphan costs while nobody lets go of it."""
        if self.stands.broken:
            return "cost unknown, assume it runs"
        if not closing.touched(self.stands.held):
            return "nothing was rented"
        if self.stands.held.verdict is Verdict.LEAVING:
            return "no longer billed"
        rate = "at a price that is not known" if self.hourly is None else cost.show_per_hour(self.hourly)
        return rate + (", SIMULATED" if self.simulated else "")


def list_table(every: bool) -> tuple[dict[str, Any], str]:
    lines = [line for line in map(_line, ledger.folders()) if every or line.state not in ("released", ENDED)]
    return {"schema": "gpulease/ls/1", "leases": [line.record() for line in lines]}, _text(lines, every)


def _line(folder: ledger.LeaseFolder) -> Line:
    try:
        stands = ledger.standing(folder)
    except (GpuleaseError, OSError) as e:
        # One folder that cannot be read must not hide the others.
        stands = ledger.Standing(folder, False, [], holdings([]), getattr(e, "what", str(e)))
    genesis: dict[str, Any] = next((e["body"] for e in stands.entries if e["kind"] == "genesis"), {})
    hourly: int | None = None
    with contextlib.suppress(LookupError, ValueError, TypeError):
        hourly = closing.hourly(stands.entries)
    spent = None if stands.broken else closing.spent(stands.entries)
    return Line(stands, genesis, _state(stands, genesis), spent, hourly)


def _state(stands: ledger.Standing, genesis: Mapping[str, Any]) -> str:
    if stands.alive:
        return "alive"
    if stands.broken:
        return BROKEN
    if not stands.open:
        return "released"
    if cloud_has_ended(genesis.get("settings") or {}):
        return ENDED  # nobody saw it go, and it was no machine of anybody's
    return f"{ORPHANED} ({stands.held.verdict or 'no verdict'})"


def _text(lines: list[Line], every: bool) -> str:
    if not lines:
        return "no leases" if every else "nothing is held; --all shows what was"
    head = ("lease", "state", "machine", "deadline (UTC)", "spent")
    real, rehearsed = ([line for line in lines if line.simulated is simulated] for simulated in (False, True))
    parts = [table([line.cells() for line in real], head)] if real else []
    parts += [f"{SIMULATED}\n\n" + table([line.cells() for line in rehearsed], head)] if rehearsed else []
    if any(line.state == ENDED for line in lines):
        parts.append("ended: with its rehearsal cloud; nobody saw it go, and it was nobody's machine")
    if orphans := [line for line in lines if line.orphaned]:
        todo = table([(f"  gpulease release {line.stands.folder.id}", line.price()) for line in orphans])
        states = " or ".join(state for state in (ORPHANED, BROKEN) if any(line.state.startswith(state) for line in orphans))
        parts.append(f"{states}: nobody has it, and it was not seen gone; this ends it:\n{todo}")
    return "\n\n".join(parts)
