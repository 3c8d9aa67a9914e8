"""What a journal says that we may still be holding.

Read from the entries alone, each time anew, by whoever ends a lease: what a process remembers is gone with it. A create
stays open until its answer, a refusal, or a look that shows what it made; a resource stays held until it is seen gone.

This file must not know how anything is looked at or asked to go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provisioner.journal import Entry, instant
from provisioner.model import MAKES_MACHINES, Phase, Resource, Verdict

NOT_FOUND = "not-found"  # what providers call the state of what they show no more: an end that nobody saw


@dataclass
class Holdings:
    """What a journal says we may still be holding."""

    intents: dict[int, str] = field(default_factory=dict)  # seq of an unanswered create -> its token
    kinds: set[str] = field(default_factory=set)  # what was ever asked for or met: these must be listed before "nothing is left"
    resources: dict[str, Resource] = field(default_factory=dict)
    unfilled: set[str] = field(default_factory=set)  # tokens of what makes machines, and may have made one that was not seen
    making: dict[str, str] = field(default_factory=dict)  # token -> id of what makes machines, until its removal was answered
    unshown: dict[str, float] = field(default_factory=dict)  # created, but not yet shown when asked about: id -> when created
    born: dict[str, tuple[float, int | None]] = field(default_factory=dict)  # made by us: id -> when, by the wall and by the other clock
    born_with: dict[str, str] = field(default_factory=dict)  # what came with a machine: id -> that machine's id
    monotonic_ms: int | None = None  # the clock that nobody sets, at the last entry or since
    removed: set[str] = field(default_factory=set)  # of which the provider answered that it removed them, and not that it knows none
    unended: set[str] = field(default_factory=set)  # made by us, billed, and never seen ending; to be found missing is not that
    asked: bool = False  # was anything ever asked for?
    rebuilt: bool = False  # an earlier journal was damaged: what it knew is lost
    elsewhere: bool = False  # its journal is on another machine: what the tag shows is all that is known here
    verdict: Verdict | None = None


def holdings(entries: Sequence[Entry], held: Holdings | None = None) -> Holdings:
    """What the entries say; `held` is what those before them said, and is added to."""
    held = held or Holdings()
    for entry in entries:
        body = entry["body"]
        held.monotonic_ms = entry["at"].get("monoMs", held.monotonic_ms)
        match entry["kind"], body.get("op"):
            case "genesis", _:
                held.rebuilt = held.rebuilt or bool(body.get("rebuilt"))
                held.elsewhere = held.elsewhere or bool(body.get("elsewhere"))
            case "intent", "create":
                held.intents[entry["seq"]] = body["token"]
                held.kinds.add(body["class"])
                held.asked, held.verdict = True, None
                if body["class"] in MAKES_MACHINES:
                    held.unfilled.add(body["token"])
                    held.making[body["token"]] = ""
            case "failed", "create":
                token = held.intents.pop(body["intentSeq"], "")
                held.unfilled.discard(token)
                held.making.pop(token, None)
            case "done", "create":
                held.intents.pop(body["intentSeq"], None)
                held.resources[body["id"]] = resource_of(body)
                held.unshown[body["id"]] = instant(entry["at"]["wall"])
                held.born[body["id"]] = (instant(entry["at"]["wall"]), held.monotonic_ms)
                held.unended.update([body["id"]] if body["billed"] else [])
                if body["class"] in MAKES_MACHINES:
                    held.making[str(body["token"])] = body["id"]
            case "observe", _:
                resource = resource_of(body)
                held.unshown.pop(resource.id, None)
                new = resource.id not in held.resources
                held.resources[resource.id] = resource
                held.kinds.add(resource.kind)
                if resource.facts.get("instance"):
                    held.born_with.setdefault(resource.id, resource.facts["instance"])
                if new and resource.kind not in MAKES_MACHINES and resource.token in held.unfilled:
                    held.unfilled.discard(resource.token)
                    held.born.setdefault(resource.id, (instant(entry["at"]["wall"]), held.monotonic_ms))
                    held.unended.add(resource.id)
                if resource.phase is not Phase.GONE:
                    held.verdict = None  # an older "released" cannot speak of what was seen after it
                answered = [seq for seq, token in held.intents.items() if token == resource.token]
                for seq in answered:
                    del held.intents[seq]
                    held.born.setdefault(resource.id, (instant(entry["at"]["wall"]), held.monotonic_ms))  # its answer was lost
                    held.unended.add(resource.id)
                if resource.kind in MAKES_MACHINES and resource.token in held.making:
                    held.making[resource.token] = resource.id
                elif resource.token in held.making and resource.phase in (Phase.LEAVING, Phase.GONE):
                    held.unfilled.add(resource.token)  # its machine went before it did: another may be on its way
                if resource.phase is Phase.LEAVING or (resource.phase is Phase.GONE and resource.state != NOT_FOUND):
                    held.unended.discard(resource.id)
            case "done", "remove":
                held.removed.update([] if body.get("state") else [body["id"]])  # a state says "on its way", or "I know of none"
                if body.get("state") != NOT_FOUND:
                    held.making = {token: id for token, id in held.making.items() if id != body["id"]}
            case "verdict", _:
                held.verdict = Verdict(body["verdict"])
    return held


def body_of(resource: Resource) -> dict[str, Any]:
    """A resource as a journal body."""
    return {
        "class": resource.kind,
        "id": resource.id,
        "phase": str(resource.phase),
        "state": resource.state,
        "token": resource.token,
        "billed": resource.billed,
        "region": resource.region,
        "facts": dict(resource.facts),
    }


def resource_of(body: Mapping[str, Any]) -> Resource:
    return Resource(
        kind=body["class"],
        id=body["id"],
        phase=Phase(body["phase"]),
        state=body["state"],
        token=body.get("token"),
        billed=body["billed"],
        region=body["region"],
        facts=body["facts"],
    )


def age(held: Holdings, id: str, now: float) -> float | None:
    """How many seconds ago, at least, we made it or the machine that it came with. None: not ours.

    The wall clock may have been set forward since, so the clock that nobody sets has the last word: what it counted is never
    more than what passed, and after a restart it counts from there. A wall clock that was set back knows nothing.
    """
    id = id if id in held.born else held.born_with.get(id, "")
    if id not in held.born:
        return None
    wall, born_ms = held.born[id]
    since = now - wall
    if born_ms is None or held.monotonic_ms is None:
        return since
    counted = (held.monotonic_ms - (born_ms if held.monotonic_ms >= born_ms else 0)) / 1000
    return counted if since < 0 else min(since, counted)


def ages(held: Holdings, now: float) -> list[float]:
    """How many seconds old what is billed and was made by us is, at least: see `age`."""
    return [old for id in held.born if held.resources[id].billed and (old := age(held, id, now)) is not None]


def costing(resources: Iterable[Resource]) -> list[Resource]:
    """What is billed and not on its way out. A disk of a machine that is leaving counts as that: it cannot go before it."""
    every = list(resources)
    leaving = {r.id for r in every if r.phase is Phase.LEAVING}
    return [r for r in every if r.billed and r.phase not in (Phase.LEAVING, Phase.GONE) and r.facts.get("instance") not in leaving]
