"""Did the schedule at the provider end this machine? The most that can be said is that everything fits.

AWS gives an API call as the reason of an end, whoever made it: a client, a person, or a schedule that fired. So it fits when
nobody of ours was answered "yes", a schedule was armed, and the machine ended at or after the time at which it was to fire.
When it ended says best the provider's own word for the change of state ("User initiated (2026-11-21 14:33:02 GMT)"), else
the first look that saw it. Only the provider's log of calls names who called; this is no substitute for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from provisioner.evidence.canonical import milliseconds
from provisioner.evidence.history import MACHINE, History, Nonsense, Thing, read
from provisioner.journal import Entry

GUARD = "schedule"
_AT = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")


def fits(history: History, thing: Thing) -> bool:
    """Is its end consistent with the schedule, and with nothing else that this journal knows?"""
    fires = [milliseconds(e["firesAt"]) for e in history.of("guard") if e["guard"] == GUARD and e["state"] == "armed" and "firesAt" in e]
    if not fires or thing.accepted is not None or thing.phase not in ("leaving", "gone"):
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
    return any(fits(history, thing) for thing in history.things.values() if thing.kind == MACHINE)


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
