"""From a journal to billed intervals and to money: what was seen when, in the provider's time.

The journal is a list of dicts and this is a pure function of it, so anybody who holds the journal gets the same
answer. The rules, per machine:

- earliest start: LaunchTime, else the moment of the intent; latest start: the first answer that showed it running;
- earliest end: the last answer that showed it running, or, when the provider says that an API call ended it, the
  moment our first such call was announced; latest end: the first answer that showed it leaving or gone, or accepted the call;
- never seen running: it may have cost nothing, so it counts from nothing to everything;
- a create that was neither answered nor found is the same, until a verdict of "released" says nothing came of it;
- a fleet counts as the machine that it makes: from its intent until that machine is seen, or it is seen gone itself.

Local wall times are moved onto the provider's clock by the smallest and largest offset seen between the two, so a
laptop whose clock is wrong widens the bars and does not falsify them.
This file must not know a provider's words, only `phase`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cost.meter import Interval, Spend, meter
from cost.prices import UnknownPrice
from cost.quote import Line, line_of

MACHINES = ("instance",)
MAKERS = ("fleet",)  # asked for instead of a machine, and makes one
DISKS = ("volume",)


@dataclass
class _Seen:
    """What the journal says about one resource."""

    id: str
    kind: str
    asked: tuple[int, int] | None = None
    launched: int | None = None
    running: list[tuple[int, int]] | None = None
    ended: list[tuple[int, int]] | None = None
    removing: list[tuple[int, int]] | None = None
    reason: str = ""
    moved: int | None = None
    holder: str = ""
    machine: str = ""
    lines: tuple[Line, ...] | None = None  # the prices in the intent that made it
    priced: str = ""
    ran_until_removed: bool = False  # the accepted call itself says that it found the machine running


def spent(entries: Sequence[Mapping[str, Any]], now_ms: int) -> Spend:
    """What one lease's journal says was spent by `now_ms`, at the prices its first line holds.

    Raises UnknownPrice for a machine of a type that the journal holds no price for.
    """
    genesis = next((entry["body"] for entry in entries if entry["kind"] == "genesis"), None)
    if genesis is None:
        raise UnknownPrice("the journal has no first line, so it holds no prices")
    observed = intervals(entries, now_ms)
    for interval in observed:
        if unpriced(interval, genesis):
            asked = interval.priced or genesis["offer"]["type"]
            raise UnknownPrice(f"{interval.resource} is a {interval.machine}, and the journal holds the price of a {asked}")
    return meter(observed, lines(genesis))


def unpriced(interval: Interval, genesis: Mapping[str, Any]) -> bool:
    """Is it of a type that the journal holds no price for? What ran on another type than was asked for has none: unknown, never zero."""
    priced = interval.priced if interval.lines is not None else str(genesis.get("offer", {}).get("type") or "")
    return bool(interval.machine and priced and interval.machine != priced)


def lines(genesis: Mapping[str, Any]) -> list[Line]:
    """The price lines that a journal's first line holds."""
    price = genesis.get("offer", {}).get("price", {})
    rows = genesis.get("quote", {}).get("lines", [])
    result = [
        line_of({**row, "source": row.get("source") or price.get("source"), "asOf": row.get("asOf") or price.get("asOf")}) for row in rows
    ]
    if not result:
        raise UnknownPrice("the journal's first line holds no quote")
    return result


def intervals(entries: Sequence[Mapping[str, Any]], now_ms: int) -> list[Interval]:
    """Everything billed in one lease's journal, machines and disks; `now_ms` ends what is still running."""
    when = _clock(entries)
    seen, unanswered, released, closed = _read(entries, when)
    # After "released" nothing more is billed, however long ago that was.
    now = released if released is not None else max([now_ms, *(when(entry)[1] for entry in entries[-1:])])
    found = [_interval(thing, now, settled=released is not None) for thing in seen.values()]
    if released is None:
        for token, entry in unanswered.items():
            lo, hi = when(entry)
            params = entry["body"].get("params", {})
            machine, own = str(params.get("type") or ""), _own_lines(params)
            asked = str(entry["body"].get("class"))
            kind, end = (MACHINES[0] if asked in MAKERS else asked), max(hi, min(now, closed.get(token, now)))
            open = token not in closed
            found.append(Interval(token, kind, lo, hi, hi, end, certain=False, open=open, machine=machine, lines=own, priced=machine))
    machines = [i for i in found if i.kind in MACHINES]
    disks = [i for i in found if i.kind in DISKS]
    return machines + _disks(machines, disks, seen)


def _read(
    entries: Sequence[Mapping[str, Any]], when: Any
) -> tuple[dict[str, _Seen], dict[str, Mapping[str, Any]], int | None, dict[str, int]]:
    """What was seen, which creates are unanswered, when all was released, and when what makes machines was seen gone."""
    seen: dict[str, _Seen] = {}
    intents: dict[int, Mapping[str, Any]] = {}
    unanswered: dict[str, Mapping[str, Any]] = {}
    makers: dict[str, Mapping[str, Any]] = {}
    closed: dict[str, int] = {}
    released: int | None = None
    for entry in entries:
        body, kind = entry["body"], entry["kind"]
        if kind == "verdict":
            released = when(entry)[1] if body.get("verdict") == "released" else None
        elif kind == "intent" and body.get("op") == "create":
            released = None
            if body.get("class") in (*MACHINES, *DISKS, *MAKERS):
                intents[entry["seq"]] = entry
                unanswered[str(body.get("token"))] = entry
            if body.get("class") in MAKERS:
                makers[str(body.get("token"))] = entry
        elif kind == "intent" and body.get("id") in seen:
            thing = seen[body["id"]]
            thing.removing = [*(thing.removing or []), when(entry)]
        elif kind == "failed" and body.get("op") == "create":
            unanswered.pop(_token(intents, body), None)
        elif kind == "done" and body.get("class") in (*MACHINES, *DISKS):
            if body.get("op") == "create":
                token = _token(intents, body)
                unanswered.pop(token, None)
                thing = seen.setdefault(body["id"], _Seen(body["id"], body["class"]))
                intent = intents.get(body.get("intentSeq", -1))
                if intent is not None:
                    thing.asked = when(intent)
                    _priced(thing, intent)
                _learn(thing, body.get("facts") or {})
            elif body.get("id") in seen and body["class"] in MACHINES:
                # An accepted terminate ends the bill of a machine; an accepted delete of a disk is seen for itself.
                seen[body["id"]].ended = [*(seen[body["id"]].ended or []), _answer(entry, when)]
                if body.get("previousState") == "running":
                    seen[body["id"]].ran_until_removed = True
        elif kind == "observe" and body.get("class") in (*MACHINES, *DISKS):
            # A fleet may make more than one: each was asked for as the fleet was.
            found = unanswered.pop(str(body.get("token")), None) or makers.get(str(body.get("token")))
            thing = seen.setdefault(body["id"], _Seen(body["id"], body["class"]))
            if found is not None:
                _priced(thing, found)  # its answer was lost; the token says which request it came of
            _learn(thing, body.get("facts") or {})
            if body.get("phase") == "here":
                thing.running = [*(thing.running or []), _answer(entry, when)]
            elif body.get("phase") in ("leaving", "gone"):
                thing.ended = [*(thing.ended or []), _answer(entry, when)]
            if thing.asked is None and thing.launched is None:
                thing.asked = _answer(entry, when)
        elif kind == "observe" and body.get("class") in MAKERS and body.get("phase") == "gone":
            closed.setdefault(str(body.get("token")), _answer(entry, when)[1])
    return seen, unanswered, released, closed


def _priced(thing: _Seen, intent: Mapping[str, Any]) -> None:
    """The type and the prices under which it was asked for."""
    params = intent["body"].get("params", {})
    thing.priced = str(params.get("type") or "")
    thing.machine = thing.machine or thing.priced
    thing.lines = _own_lines(params)


def _own_lines(params: Mapping[str, Any]) -> tuple[Line, ...] | None:
    quote = params.get("quote")
    rows = quote.get("lines", []) if isinstance(quote, Mapping) else []
    return tuple(line_of(row) for row in rows) or None


def _token(intents: Mapping[int, Mapping[str, Any]], body: Mapping[str, Any]) -> str:
    intent = intents.get(body.get("intentSeq", -1))
    return "" if intent is None else str(intent["body"].get("token"))


def _learn(thing: _Seen, facts: Mapping[str, Any]) -> None:
    for name in ("launchTime", "createTime"):
        if thing.launched is None and isinstance(facts.get(name), str):
            thing.launched = _ms(facts[name])
    thing.reason = str(facts.get("stateReason") or thing.reason)
    thing.holder = str(facts.get("instance") or thing.holder)
    thing.machine = str(facts.get("type") or thing.machine)
    moved = re.search(r"\((\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?: (?:GMT|UTC))?\)", str(facts.get("stateTransitionReason") or ""))
    if moved:
        thing.moved = _ms(f"{moved[1]}T{moved[2]}Z")


def _interval(thing: _Seen, now: int, *, settled: bool) -> Interval:
    asked = thing.asked or (now, now)
    running, ended = thing.running or [], thing.ended or []
    start_lo = asked[0] if thing.launched is None else thing.launched
    end_hi = min((hi for _, hi in ended), default=now)
    seen_running = [r for r in running if r[0] <= end_hi]
    start_hi = min((hi for _, hi in seen_running), default=end_hi)
    end_lo = max((lo for lo, _ in seen_running), default=start_hi)
    if ended and thing.removing and (thing.ran_until_removed or thing.reason == "Client.UserInitiatedShutdown"):
        # The provider says that an API call ended it, so it ran at least until the first such call was announced.
        end_lo = max(end_lo, min(lo for lo, _ in thing.removing))
    if thing.moved is not None and ended and end_lo <= thing.moved <= end_hi:
        end_lo, end_hi = thing.moved, min(end_hi, thing.moved + 1000)
    end_lo = min(max(end_lo, start_lo), end_hi)
    return Interval(
        thing.id,
        thing.kind,
        min(start_lo, end_hi),
        max(start_hi, min(start_lo, end_hi)),
        end_lo,
        end_hi,
        certain=bool(seen_running),
        open=not ended and not settled,
        machine=thing.machine,
        lines=thing.lines,
        priced=thing.priced,
    )


def _disks(machines: Sequence[Interval], disks: Sequence[Interval], seen: Mapping[str, _Seen]) -> list[Interval]:
    """One disk interval per machine, made longer by a volume that was seen to outlive it, and one per stray volume."""
    result: list[Interval] = []
    claimed: set[str] = set()
    for machine in machines:
        own = [d for d in disks if d.resource in seen and seen[d.resource].holder == machine.resource]
        claimed.update(d.resource for d in own)
        result.append(
            replace(
                machine,
                resource=own[0].resource if own else f"disk of {machine.resource}",
                kind="volume",
                end_lo=max([machine.end_lo, *(d.end_lo for d in own)]),
                end_hi=max([machine.end_hi, *(d.end_hi for d in own)]),
                open=machine.open or any(d.open for d in own),
            )
        )
    return result + [d for d in disks if d.resource not in claimed]


def _clock(entries: Sequence[Mapping[str, Any]]) -> Any:
    """A function from an entry to the bracket of provider time in which it was written."""
    offsets = [offset for entry in entries for offset in _offsets(entry)]
    lo_off, hi_off = (min(offsets), max(offsets)) if offsets else (0, 0)

    def when(entry: Mapping[str, Any]) -> tuple[int, int]:
        at = entry["at"]
        wall = _ms(at["wall"])
        if isinstance(at.get("aws"), str):
            unc = int(at.get("uncMs") or 1000)
            return _ms(at["aws"]) - unc, _ms(at["aws"]) + unc
        return wall + lo_off, wall + hi_off

    return when


def _offsets(entry: Mapping[str, Any]) -> Iterable[int]:
    at, body = entry["at"], entry["body"]
    wall = _ms(at["wall"])
    if isinstance(at.get("aws"), str):
        unc = int(at.get("uncMs") or 1000)
        yield _ms(at["aws"]) - wall - unc
        yield _ms(at["aws"]) - wall + unc
    date = _provider_date(body)
    if date is not None:
        # A Date header has whole seconds, and the line was written a moment after the answer came.
        yield date - wall
        yield date + 1000 - wall


def _answer(entry: Mapping[str, Any], when: Any) -> tuple[int, int]:
    """The bracket of an answer: the provider's own date where it was kept (whole seconds), else the line's."""
    date = _provider_date(entry["body"])
    return (date, date + 1000) if date is not None else when(entry)


def _provider_date(body: Mapping[str, Any]) -> int | None:
    facts = body.get("facts")
    date = body.get("providerDate") or (facts.get("providerDate") if isinstance(facts, Mapping) else None)
    return _ms(date) if isinstance(date, str) else None


def _ms(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} is not a time in UTC")
    # Through integers: a float would lose the last millisecond of a long interval.
    return (moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // _MILLISECOND


_MILLISECOND = datetime(1970, 1, 1, 0, 0, 0, 1000) - datetime(1970, 1, 1)
