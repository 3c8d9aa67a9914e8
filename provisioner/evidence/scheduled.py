"""Did a guard at the provider, a schedule or a fleet, end this machine? The most that can be said is that everything fits.

AWS gives an API call as the reason of an end, whoever made it: a client, a person, or a guard that fired. So it fits when
nobody of ours was answered "yes", such a guard was armed, and the machine ended at or after the time at which it was to fire.
When it ended says best the provider's own word for the change of state ("User initiated (2026-11-21 14:33:02 GMT)"), else
the first look that saw it. Only the provider's log of calls names who called; this is no substitute for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from provisioner.evidence.canonical import milliseconds
from provisioner.evidence.history import FLEET, MACHINE, History, Nonsense, Thing, read
from provisioner.journal import Entry

GUARD = "schedule"
AT_THE_PROVIDER = (FLEET, GUARD)
"""The later one first: what ended a machine after both times was at any rate not the earlier one alone."""

_AT = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)", re.ASCII)


def which(history: History, thing: Thing) -> str:
    """The guard at the provider that its end is consistent with; "" for none."""
    return next((guard for guard in AT_THE_PROVIDER if fits(history, thing, guard)), "")


def fits(history: History, thing: Thing, guard: str = GUARD) -> bool:
    """Is its end consistent with that guard, and with nothing else that this journal knows?"""
    fires = [milliseconds(e["firesAt"]) for e in history.of("guard") if e["guard"] == guard and e["state"] == "armed" and "firesAt" in e]
    if not fires or history.let_go(thing) is not None or thing.phase not in ("leaving", "gone"):
        return False
    if "UserInitiatedShutdown" not in (thing.facts("stateReason") or ""):
        return False
    ended = _ended(history, thing)
    return ended is not None and any(at is not None and ended >= at for at in fires)


def ended_so(entries: Sequence[Entry]) -> bool:
    """The same of a whole journal; one that tells no run tells nothing of a schedule either."""
    try:
        history = read(entries)
    except Nonsense:
        return False
    return any(which(history, thing) for thing in history.things.values() if thing.kind == MACHINE)


def _ended(history: History, thing: Thing) -> int | None:
    """In milliseconds by the provider's clock, at the latest that is consistent with what was seen."""
    if found := _AT.search(thing.facts("stateTransitionReason") or ""):
        try:
            return int(datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()) * 1000
        except ValueError:
            return None
    seen = thing.first("leaving", "gone")
    if seen is None:
        return None
    moment = history.moment(seen)
    return moment.ms + (moment.unc or 0)
