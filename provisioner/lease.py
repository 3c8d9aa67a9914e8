"""Hold cloud resources so that letting go is never a matter of luck.

Two ideas carry the file.

*Intent before act.* A create is journalled before it is asked for. If its answer is lost, the intent stays open and
keeps the lease open, until full inventories have come back empty for as long as the provider needs to show what it
made. A lost id is never recovered by sending the create again: if the first request never arrived, that makes a
machine.

*One way out.* `release` works from the journal and the provider's inventory, never from what a process remembers. The
end of a run, Ctrl-C, a crash picked up by the watchdog, and a reap from another machine all call it. It stops at what
it has seen, and says so: a verdict is an observation, not a hope.

This file must not know any provider, nor what a lease is for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from provisioner.errors import NotCreated, NotPermitted, ProviderError, failure_body, words
from provisioner.holdings import NOT_FOUND as NOT_FOUND
from provisioner.holdings import Holdings as Holdings
from provisioner.holdings import age, ages
from provisioner.holdings import body_of as body_of
from provisioner.holdings import costing as costing
from provisioner.holdings import holdings as holdings
from provisioner.holdings import resource_of as resource_of
from provisioner.journal import Journal, instant
from provisioner.model import MAKES_MACHINES, Clock, Inventory, LaunchSpec, Phase, Provider, Resource, Verdict
from provisioner.scope import unbreakable

PATIENCE_S = 900.0
LINGER_S = 1800.0
"""Looked on for so much longer where all that is left is leaving and bills no more: EC2 takes over 19 minutes to shut down bare metal."""
LONGEST_PAUSE_S = 15.0
DENIED_S = 30.0
"""A right that was refused for so long is not there. Only for what costs nothing: a machine is asked after for the whole patience."""
NOT_SHOWN = "not shown yet"


class Lease:
    """The right to create, for as long as the `with` block lasts."""

    def __init__(self, id: str, provider: Provider, journal: Journal, clock: Clock) -> None:
        self.id, self.provider, self.journal, self._clock = id, provider, journal, clock
        self.made: dict[str, Resource] = {}  # the latest of each kind; what else there is, the journal knows
        self.verdict: Verdict | None = None

    def create(self, kind: str, spec: LaunchSpec) -> Resource:
        """Journal the intent, ask once, journal the answer. A lost answer raises and leaves the intent open."""
        # The token carries the journal's head: the provider then holds a commitment to everything we wrote before.
        token = f"{self.id[-8:]}-{len(self.journal.entries)}-{self.journal.head[:32]}"
        intent = self.journal.append("intent", {"op": "create", "class": kind, "token": token, "params": spec.public()})
        anchor(self.provider, self.id, self.journal)
        answer = {"op": "create", "intentSeq": intent["seq"], "class": kind}
        try:
            if self._clock.now() >= instant(spec.deadline):
                # A process that was stopped, or slept with its laptop, goes on here: by now others may have said "released".
                raise NotCreated(f"the lease ended at {spec.deadline}, before {kind} was asked for", provider_code="DeadlinePassed")
            resource = self.provider.create(kind, spec, lease=self.id, token=token, made=self.made_in(spec.offer.region))
        except NotCreated as e:
            self.journal.append("failed", {**answer, "code": e.provider_code, "why": e.what, "requestId": e.request_id})
            raise
        except ProviderError as e:
            # Any other exception leaves the intent open: the answer was lost, not the machine.
            self.journal.note("unknown", {**answer, "why": e.what, "requestId": e.request_id})
            raise
        self.journal.note("done", {**answer, **body_of(resource)})
        self.made[kind] = resource
        return resource

    def made_in(self, region: str) -> dict[str, Resource]:
        """What a create there can build on: a group of another region is none."""
        return {kind: made for kind, made in self.made.items() if made.region in ("", region)}

    def adopt(self, resource: Resource) -> Resource:
        """A machine that something of ours made: by the journal it is ours from here on."""
        self.journal.note("observe", body_of(resource))
        self.made[resource.kind] = resource
        return resource

    def drop(self, resource: Resource, *, within: float, sleep: Callable[[float], None], tell: Callable[[str], None]) -> None:
        """Let go of one machine so that another may be asked for. ProviderError unless it is seen leaving: two would be paid for."""
        machine = resource.kind not in MAKES_MACHINES
        for made in holdings(self.journal.entries).resources.values() if machine else ():
            if made.kind in MAKES_MACHINES and made.phase is not Phase.GONE:  # first: it could make another
                self.drop(replace(made, lease=self.id), within=within, sleep=sleep, tell=tell)
        end = self._clock.counting() + within
        while True:
            with contextlib.suppress(ProviderError):  # a look that failed says nothing; the last word is below
                resource = self.look(resource)
            if resource.phase in (Phase.LEAVING, Phase.GONE):
                return
            _ask(self.id, resource, self.provider, self.journal, tell)
            if self._clock.counting() >= end:
                raise ProviderError(
                    f"{resource.kind} {resource.id} was asked to go and is still {resource.state}",
                    why="a second machine beside it would be paid for as well, so none is asked for",
                )
            sleep(1.0)

    def look(self, resource: Resource) -> Resource:
        """Ask the provider about something of ours now; news goes into the journal."""
        anchor(self.provider, self.id, self.journal)
        seen = _observe(self.provider, resource, holdings(self.journal.entries), self._clock.now())
        told, known = ((r.phase, r.state, dict(r.facts).get("address")) for r in (seen, resource))
        if seen.state != NOT_SHOWN and told != known:
            self.journal.note("observe", body_of(seen))
        self.made[resource.kind] = seen
        return seen


@contextlib.contextmanager
def hold(
    id: str,
    provider: Provider,
    journal: Journal,
    clock: Clock,
    *,
    patience: float = PATIENCE_S,
    linger: float = 0.0,
    tell: Callable[[str], None] = lambda text: None,
) -> Iterator[Lease]:
    """The `with` block that may create; whatever happens inside, leave through `release`.

    The guards that do not need the machine (the watchdog) must be armed before this is entered.
    """
    lease = Lease(id, provider, journal, clock)
    try:
        yield lease
    except BaseException as e:
        journal.note("failure", failure_body(e))
        raise
    finally:
        lease.verdict = release(id, provider, journal, clock, patience=patience, linger=linger, tell=tell)


def release(
    id: str,
    provider: Provider,
    journal: Journal,
    clock: Clock,
    *,
    patience: float = PATIENCE_S,
    linger: float = 0.0,
    first_pause: float = 0.5,
    tell: Callable[[str], None] = lambda text: None,
) -> Verdict:
    """Drive a lease to nothing, and return what was seen.

    Loops: list everything under the lease's tag, look up what the journal knows but the list lacks, ask for the
    removal of whatever is left. Order needs no graph: what is still in use refuses, and is asked again once its user
    is gone. Released means that at least two complete looks, apart by the provider's `second_look_s`, found nothing;
    with an unanswered create, that they found nothing for its whole `settle_s`; and that the last of them was begun when
    the youngest machine was as old as that: its disk may never have been shown before.

    `patience` is for what may cost money. What was seen leaving bills no more, so it is looked after `linger` longer.
    How long things take is counted on the clock that nobody sets: a wall clock set forward must not shorten a wait.
    """
    begun, read = holdings(journal.entries), len(journal.entries)
    if not begun.asked and not begun.rebuilt and not begun.elsewhere and not begun.resources:
        return _conclude(journal, Verdict.RELEASED, [], 0.0)  # nothing was ever asked for
    tell = unbreakable(tell)
    started = clock.counting()
    quiet_since: float | None = None
    unbilled_since = denied_since = quiet_since
    pause, seen, left, lingering, lingers = first_pause, Verdict.UNPROVEN, list[Resource](), False, False
    waits = False
    waited, before = 0.0, started  # of the patience: only while something may cost

    def known() -> Holdings:
        nonlocal read  # a letting go that takes hours must not read its whole journal at every look
        new, read = journal.entries[read:], len(journal.entries)
        return holdings(new, begun)

    while True:
        held = known()
        # Something may exist that nothing here names: an open intent, or what a journal that is not here knew. Give it time to show.
        hidden = held.intents or held.unfilled or held.rebuilt or held.elsewhere
        needed = provider.traits.settle_s if hidden else provider.traits.second_look_s
        began = clock.counting()  # a laptop may sleep in the middle of a look: what was answered before is as old as that
        held.monotonic_ms = int(began * 1000)
        # What came with a machine may not be shown yet either, and nothing here knows its name.
        young = max((provider.traits.settle_s - old for old in ages(held, clock.now())), default=0.0)
        try:
            anchor(provider, id, journal)
            left = _look(id, provider, journal, held, clock.now())
        except Exception as e:
            # Not ProviderError alone: here a provider that breaks is one that did not answer, and giving up would cost money.
            journal.note("sweep", {"checked": False, "classes": [], "found": 0, "requestIds": [], "error": words(e)})
            tell(f"cannot see what is left: {words(e)}" + (f"; {next}" if (next := getattr(e, "next", "")) else ""))
            quiet_since, seen, lingers = None, Verdict.UNPROVEN, False
            # Who may not list may still be allowed to end what the journal knows by name.
            left = [replace(r, lease=id) for r in known().resources.values() if r.phase is not Phase.GONE]
            denied = isinstance(e, _Withheld)
        else:
            denied = False
            billed = any(r.billed for r in left)
            unbilled_since = None if billed else clock.counting() if unbilled_since is None else unbilled_since
            if left:
                quiet_since = None
                costs = any(r.billed and r.phase is not Phase.LEAVING for r in left)
                seen, lingers = Verdict.HELD if costs else Verdict.LEAVING, not costing(left)
            else:
                quiet_since = clock.counting() if quiet_since is None else quiet_since
                # A damaged journal may have known of more than a tag shows: that can never be called released.
                lingers = True
                enough = began - quiet_since >= needed and young <= 0 and not held.rebuilt
                seen = Verdict.RELEASED if enough else Verdict.UNPROVEN
        # What costs money first, and before a machine what made it: it could make another. What is free stays until a second look
        # where a machine was merely not found: a guard is free too.
        held = known()
        twice = unbilled_since is not None and began - unbilled_since >= provider.traits.second_look_s
        sure = (twice and seen is not Verdict.UNPROVEN) or not (held.unended or held.elsewhere or held.rebuilt)
        due = [r for r in left if r.billed] or (left if sure else [])
        answers = [_ask(id, resource, provider, journal, tell) for resource in sorted(due, key=lambda r: r.kind not in MAKES_MACHINES)]
        now = clock.counting()
        # A plain no, about what costs nothing, once every machine was seen ending. All else is asked after for the whole patience.
        denied = (denied or "denied" in answers) and "failed" not in answers and not (hidden or held.unended or any(r.billed for r in left))
        denied_since = None if not denied else now if denied_since is None else denied_since
        quiet = 0.0 if quiet_since is None else now - quiet_since
        done = seen is Verdict.RELEASED or (held.rebuilt and quiet_since is not None and quiet >= needed)
        if denied_since is not None and now - denied_since >= DENIED_S:
            rest_of_it = f"{_named(left)} out of reach of" if left else "the rest is out of sight for"
            tell(f"nothing that costs is left; {rest_of_it} these rights: {_refusal(journal)}. With more: gpulease release {id}")
            done = True
        # Nothing bills while it is seen leaving, nor while nothing is found and only the last look is missing: none of that is of
        # the patience. A disk may be asked to go only once its machine is gone, and then has all of it.
        waited, before = waited + (0.0 if lingers else now - before), now
        rest = min(patience + linger - (now - started), patience + linger if lingers else patience - waited)
        if done or rest <= 0:
            return _conclude(journal, seen, left, quiet)
        if now - started >= patience and left and lingers and not lingering:
            lingering = True
            tell(f"{_named(left)} still leaving after {patience / 60:.0f} min, no longer billed: looking on for {linger / 60:.0f} min")
        if quiet_since is not None and young > LONGEST_PAUSE_S and not waits:
            waits = True
            tell(f"nothing is shown any more; what came with a machine so new still may be: looking on for {young:.0f} s")
        wait = pause if quiet_since is None else min(pause, max(needed - quiet, young, 0.05))
        clock.sleep(min(wait, rest))
        pause = min(pause * 1.5, LONGEST_PAUSE_S)


def _named(left: list[Resource]) -> str:
    first = f"{left[0].kind} {left[0].id}"
    return f"{first} is" if len(left) == 1 else f"{first} and {len(left) - 1} more are"


def _refusal(journal: Journal) -> str:
    """What the provider said last to a look or a removal that failed: it names the right."""
    said = (e["body"].get("error") or e["body"].get("why") for e in reversed(journal.entries) if e["kind"] in ("sweep", "failed"))
    return str(next(filter(None, said), "no reason was given")).rstrip(".")


def _conclude(journal: Journal, seen: Verdict, left: list[Resource], quiet: float) -> Verdict:
    still = [{"class": r.kind, "id": r.id, "phase": str(r.phase)} for r in left]
    open_intents = len(holdings(journal.entries).intents)
    journal.note("verdict", {"verdict": str(seen), "left": still[:50], "settleSeconds": int(quiet), "openIntents": open_intents})
    return seen


def _observe(provider: Provider, known: Resource, held: Holdings, now: float) -> Resource:
    """Ask by id. A new id that the provider does not know is not gone, it is not there *yet*, for its settle time.

    That it was shown once is no end of that: EC2 may show what is new now and then. That its removal was answered is.
    """
    seen = provider.observe(known)
    new = known.id in held.unshown or (seen.state == NOT_FOUND and known.id not in held.removed)
    old = age(held, known.id, now)
    if seen.phase is Phase.GONE and new and old is not None and old < provider.traits.settle_s:
        return replace(known, state=NOT_SHOWN)
    return seen


def _look(id: str, provider: Provider, journal: Journal, held: Holdings, now: float) -> list[Resource]:
    """Everything of this lease that is not gone, by list and by name; news goes into the journal."""
    inventory = provider.inventory(id)
    found = {r.id: r for r in inventory.resources}
    news = False
    failed: ProviderError | None = None
    costly = False

    def met(r: Resource) -> None:
        nonlocal news
        old = held.resources.get(r.id)
        if r.state != NOT_SHOWN and (old is None or r.id in held.unshown or (old.phase, old.state) != (r.phase, r.state)):
            journal.note("observe", body_of(r) | {"requestIds": list(inventory.request_ids[:8])})
            news = True

    # Noted before anything else is asked: should the next question fail, what was listed is known all the same.
    for listed in inventory.resources:
        met(listed)
    for known in held.resources.values():
        if known.id not in found and known.phase is not Phase.GONE:
            # Ours by the journal, which said so before it was made; its tag cannot be read while it is not shown.
            try:
                found[known.id] = _observe(provider, replace(known, lease=id), held, now)
            except ProviderError as e:
                failed = failed or e  # a machine that is gone is noted so even where a guard of its may not be looked at
                costly = costly or known.billed or not isinstance(e, NotPermitted)
            else:
                met(found[known.id])
    for looked in inventory.looked_in:
        if not looked.checked and looked.kind in held.kinds:
            why = f"{looked.kind} in {looked.region} could not be listed: {looked.reason}"
            failed = failed or ProviderError(why, why="one was made")
            known_free = {r.billed for r in held.resources.values() if r.kind == looked.kind} == {False}
            costly = costly or not known_free
    if failed is not None:
        raise failed if costly else _Withheld(failed.what, why=failed.why, next=failed.next, provider_code=failed.provider_code)
    left = [r for r in found.values() if r.phase is not Phase.GONE]
    # A machine that lingers is looked at every few seconds for many minutes: the hundredth equal look is not evidence.
    if news or not left or journal.entries[-1]["kind"] != "sweep":
        journal.note("sweep", _sweep(inventory, left))
    return left


class _Withheld(ProviderError):
    """A look that was whole, but for what costs nothing and these credentials may not see."""


def _sweep(inventory: Inventory, left: list[Resource]) -> dict[str, Any]:
    classes = [
        {
            "class": looked.kind,
            "region": looked.region,
            "checked": looked.checked,
            "reason": looked.reason or None,
            "found": sum(r.kind == looked.kind and r.region == looked.region for r in left),
        }
        for looked in inventory.looked_in
    ]
    return {
        "checked": True,
        "classes": classes,
        "found": len(left),
        "requestIds": list(inventory.request_ids[:16]),
        "providerDate": inventory.provider_date,
    }


def _ask(id: str, resource: Resource, provider: Provider, journal: Journal, tell: Callable[[str], None]) -> str:
    """What came of it: asked, failed, denied; nothing where it is leaving already."""
    if resource.phase is Phase.LEAVING:
        return ""
    # One that is not shown yet is asked as well: by the time the request arrives it may be.
    asked = {"op": "remove", "class": resource.kind, "id": resource.id}
    intent = journal.note("intent", asked)
    try:
        anchor(provider, id, journal)
        answer = dict(provider.remove(resource))
    except Exception as e:
        # As in `release`: whatever breaks here, the next one is asked, and this one again.
        code, request_id = getattr(e, "provider_code", type(e).__name__), getattr(e, "request_id", "")
        journal.note("failed", {**asked, "intentSeq": intent["seq"], "code": code, "why": words(e), "requestId": request_id})
        return "denied" if isinstance(e, NotPermitted) else "failed"
    told = any(e["kind"] == "done" and asked.items() <= e["body"].items() for e in journal.entries)
    journal.note("done", {**asked, "intentSeq": intent["seq"], **answer})
    if not told:  # what is not shown is asked until it must have shown; the story says so once
        tell(f"asked {resource.kind} {resource.id} to go")
    return "asked"


def anchor(provider: Provider, lease: str, journal: Journal) -> None:
    """Let the provider's own log carry the journal's head: see `evidence`. A journal begun elsewhere, only to let go, says so."""
    elsewhere = bool(journal.entries) and bool(journal.entries[0]["body"].get("elsewhere"))
    provider.anchor = f"{'look' if elsewhere else 'run'}/{lease} jh/{journal.head[:32]}"
