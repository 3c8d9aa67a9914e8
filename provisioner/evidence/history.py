"""What a journal says happened: asks and their answers, things and how they were last seen, looks and what they found.

The middle step between lines and a statement, and the only place where lines are read for meaning. Everything here
is a pure function of the entries. It is written for strangers' journals: a line of the wrong shape, or an answer to a
question that was never asked, raises `Nonsense` with the place, before anything is concluded from it.

Times: the provider's own Date headers bracket the offset between the local clock and the provider's. A moment that
came with a date is that date (whole seconds); any other is the local time moved by the offset, with the bracket's
width as its uncertainty. With no date anywhere the local time stands and has no uncertainty, because nobody knows it.

This file must not know what is proven by any of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provisioner.evidence.canonical import milliseconds, rfc3339
from provisioner.evidence.messages import Problem, problem
from provisioner.evidence.schema import BODIES, first_error
from provisioner.journal import Entry
from provisioner.model import Json

MACHINE, FLEET = "instance", "fleet"
LAUNCHES = (MACHINE, FLEET)
"""What a machine is asked for as: itself, or what makes it."""

FOREIGN = ("static",)
"""Providers whose machines are somebody else's: nothing here can show that they are off, and their clock is no authority."""

MOST = 1000
"""Resources, and creates, in one lease. More is no run, and would make a small file expensive to check."""


class Nonsense(Exception):
    """The chain is sound and what it says is not a run."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(frozen=True)
class Moment:
    """An instant in milliseconds since 1970, and how far off it may be. None: only the local clock says so."""

    ms: int
    unc: int | None = None

    def fields(self, name: str) -> dict[str, Json]:
        """As the statement holds it: `name` and, where it is known, `nameUncertaintyMs`."""
        return {name: rfc3339(self.ms)} | ({} if self.unc is None else {f"{name}UncertaintyMs": self.unc})


@dataclass
class Ask:
    """One intent. `answer` is done, failed, unknown, or "" when the journal holds none."""

    entry: Entry
    answer: str = ""
    answer_entry: Entry | None = None

    @property
    def seq(self) -> int:
        return int(self.entry["seq"])

    @property
    def body(self) -> Mapping[str, Any]:
        return dict(self.entry["body"])


@dataclass
class Thing:
    """One resource of ours, made by us or born with something we made."""

    kind: str
    id: str
    region: str
    ask: Ask | None
    seen: list[Entry] = field(default_factory=list)  # every line that shows it: done, then observe
    removals: list[Ask] = field(default_factory=list)

    @property
    def phase(self) -> str:
        """As last shown."""
        return str(next((e["body"]["phase"] for e in reversed(self.seen) if "phase" in e["body"]), "coming"))

    @property
    def last_seq(self) -> int:
        return int(self.seen[-1]["seq"])

    def first(self, *phases: str) -> Entry | None:
        return next((e for e in self.seen if e["body"].get("phase") in phases), None)

    def facts(self, name: str) -> str | None:
        """The latest that was said under this name."""
        said = [value for e in self.seen if isinstance(value := e["body"].get("facts", {}).get(name), str) and value]
        return said[-1] if said else None

    @property
    def accepted(self) -> Ask | None:
        return next((a for a in self.removals if a.answer == "done"), None)


@dataclass
class History:
    entries: Sequence[Entry]
    genesis: Mapping[str, Any]
    asks: list[Ask] = field(default_factory=list)  # creates only
    things: dict[tuple[str, str], Thing] = field(default_factory=dict)
    offset: tuple[int, int] | None = None  # provider time minus local time, in milliseconds, at least and at most
    rows: dict[str, list[Entry]] = field(default_factory=dict)  # the lines of each kind: some are asked for twenty times
    steps: int = 0  # how often the local clock was set while the journal was written

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        return [e["body"] for e in self.rows.get(kind, ())]

    def lines(self, kind: str) -> list[Entry]:
        return list(self.rows.get(kind, ()))

    def moment(self, entry: Entry) -> Moment:
        at = entry["at"]
        if "aws" in at:
            return Moment(_ms(at["aws"]), at.get("uncMs", 1000))
        date = self.date(entry)
        if date is not None:
            return Moment(date + 500, 500)
        if self.offset is None:
            return Moment(_ms(at["wall"]))
        low, high = self.offset
        return Moment(_ms(at["wall"]) + (low + high) // 2, -(-(high - low) // 2))

    def date(self, entry: Entry) -> int | None:
        """The provider's own date in the answer that this line is about; a host that somebody lent us has no such say."""
        return None if self.genesis["provider"] in FOREIGN else provider_date(entry)

    @staticmethod
    def local(entry: Entry) -> int:
        return _ms(entry["at"]["wall"])

    def let_go(self, thing: Thing) -> Ask | None:
        """The first accepted request of ours that ended it: its own removal, or that of the fleet that made it, which ends it too."""
        fleets = [t for t in self.things.values() if t.kind == FLEET and t.ask is not None and t.ask is thing.ask]
        accepted = [one.accepted for one in (thing, *fleets) if one.accepted is not None]
        return min(accepted, key=lambda ask: ask.seq, default=None)

    @property
    def unanswered(self) -> list[Ask]:
        """Creates of which nobody knows whether they happened: no answer, and nothing seen that carries their token."""
        shown = {str(e["body"]["token"]) for t in self.things.values() for e in t.seen if "token" in e["body"]}
        return [a for a in self.asks if a.answer in ("", "unknown") and a.body.get("token", "") not in shown]


def read(entries: Sequence[Entry]) -> History:
    """The history that these lines tell, or `Nonsense`."""
    for entry in entries:
        wrong = first_error(entry["body"], BODIES.get(entry["kind"], {}), f"$journal[{entry['seq']}].body")
        if wrong is not None:
            raise Nonsense(problem("E110", jsonpath=wrong[0], why=wrong[1]))
    if not entries or entries[0]["kind"] != "genesis":
        raise Nonsense(problem("E110", jsonpath="$journal[0].kind", why="a journal begins with its genesis"))
    history = History(entries, entries[0]["body"])
    open_asks: dict[int, Ask] = {}
    for entry in entries:
        history.rows.setdefault(entry["kind"], []).append(entry)
        match entry["kind"]:
            case "genesis" if entry["seq"] != 0:
                raise _nonsense(entry, "kind", "a journal has one genesis, at its beginning")
            case "intent":
                _intent(history, entry, open_asks)
            case "done" | "failed" | "unknown":
                _answer(history, entry, open_asks)
            case "observe":
                _see(history, entry, None)
            case _:
                pass
        if len(history.things) > MOST or len(history.asks) > MOST:
            raise _nonsense(entry, "body", f"more than {MOST} resources")
    history.offset = _offset(history)
    history.steps = _steps(entries)
    return history


def _intent(history: History, entry: Entry, open_asks: dict[int, Ask]) -> None:
    ask = open_asks[entry["seq"]] = Ask(entry)
    body = entry["body"]
    if body["op"] == "create":
        if not body.get("token"):
            raise _nonsense(entry, "body.token", "a create has a token")
        history.asks.append(ask)
    elif (thing := history.things.get((body["class"], body.get("id", "")))) is not None:
        thing.removals.append(ask)


def _answer(history: History, entry: Entry, open_asks: dict[int, Ask]) -> None:
    body = entry["body"]
    ask = open_asks.get(body["intentSeq"])
    if ask is None or any(ask.body.get(name) != body.get(name) for name in ("op", "class")):
        raise _nonsense(entry, "body.intentSeq", f"record {body['intentSeq']} is not the intent that this could answer")
    if ask.answer in ("done", "failed") or (ask.answer == "unknown" and entry["kind"] == "unknown"):
        raise _nonsense(entry, "body.intentSeq", f"intent {body['intentSeq']} was answered in record {_seq(ask.answer_entry)} already")
    if body["op"] == "remove" and entry["kind"] == "done" and ask.body.get("id") != body["id"]:
        raise _nonsense(entry, "body.id", f"intent {body['intentSeq']} was about another id")
    ask.answer, ask.answer_entry = entry["kind"], entry
    if entry["kind"] == "done" and body["op"] == "create":
        _see(history, entry, ask)


def _see(history: History, entry: Entry, ask: Ask | None) -> None:
    body = entry["body"]
    thing = history.things.get((body["class"], body["id"]))
    if thing is None:
        if ask is None and body.get("token"):
            ask = next((a for a in history.asks if a.body["token"] == body["token"]), None)
        thing = history.things[(body["class"], body["id"])] = Thing(body["class"], body["id"], body.get("region", ""), ask)
    elif ask is not None:
        thing.ask = ask
    thing.seen.append(entry)


def provider_date(entry: Entry) -> int | None:
    """The provider's own clock in the answer that this line is about, in milliseconds, rounded down."""
    body = entry["body"]
    facts = body.get("facts")
    said = body.get("providerDate") or (facts.get("providerDate") if isinstance(facts, dict) else None)
    return milliseconds(said)


def _offset(history: History) -> tuple[int, int] | None:
    """How far the provider's clock is ahead of ours, as a bracket that every answer agrees to."""
    found: list[int] = []
    for entry in history.entries:
        wall, at, date = _ms(entry["at"]["wall"]), entry["at"], history.date(entry)
        if "aws" in at:
            found += [_ms(at["aws"]) - wall - at.get("uncMs", 1000), _ms(at["aws"]) - wall + at.get("uncMs", 1000)]
        elif date is not None:
            found += [date - wall, date + 1000 - wall]
    return (min(found), max(found)) if found else None


def _steps(entries: Sequence[Entry]) -> int:
    """Lines between which the local clock and the one that nobody sets disagree by more than a second."""
    steps = 0
    for before, after in itertools.pairwise(entries):
        mono = after["at"].get("monoMs", 0) - before["at"].get("monoMs", 0)
        # The counting clock starts anew with the machine, and stands still while a laptop sleeps: only ahead is a step.
        if after["kind"] != "recovered" and mono >= 0 and _ms(after["at"]["wall"]) - _ms(before["at"]["wall"]) < mono - 1000:
            steps += 1
    return steps


def _ms(text: str) -> int:
    ms = milliseconds(text)
    assert ms is not None, "the chain reader checked that every time is one"
    return ms


def _seq(entry: Entry | None) -> int:
    return -1 if entry is None else int(entry["seq"])


def _nonsense(entry: Entry, where: str, why: str) -> Nonsense:
    return Nonsense(problem("E110", jsonpath=f"$journal[{entry['seq']}].{where}", why=why))
