"""What must be true of every history, held against the ground truth. Each finding is one sentence; none is the aim.

`false-released` is the number that is published: a process said, or a journal says, that everything is gone, and
something of ours was there then or came later.
"""

from __future__ import annotations

from collections.abc import Iterator

from provisioner.errors import Exit
from provisioner.journal import Broken
from provisioner.journal_fields import LEFT_OUT
from provisioner.lease import holdings
from provisioner.model import Verdict
from tests.sim import process as P
from tests.sim.install import CANARY
from tests.sim.play import LEASE, Claim, History, journal_of, plan_of
from tests.sim.script import FLEETS
from tests.sim.world import BILLED, FLEET_LATE_S, MACHINE, SCHEDULE, SCHEDULE_LATE_S, TIMER_LATE_S, Thing

MONEY = {int(Exit.UNPROVEN), int(Exit.HELD), int(Exit.LEAVING)}


def findings(h: History) -> list[str]:
    return [
        *h.bugs,
        *_false_released(h),
        *_silent(h),
        *_calm(h),
        *h.world.unwritten,
        *_strangers(h),
        *_journal(h),
        *_odd(h),
        *_twice(h),
        *_guards(h),
        *_spend(h),
        *_words(h),
        *_secrets(h),
    ]


def _false_released(h: History) -> Iterator[str]:
    for claim in h.claims:
        if claim.verdict is Verdict.RELEASED:
            yield from (f"false-released: {what} after the {claim.who} said released at {claim.t:.0f}" for what in _left(h, claim))


def _left(h: History, claim: Claim) -> Iterator[str]:
    for thing in h.world.of(LEASE):
        if thing.kind == h.script.tagged and _unlisted(h, thing.kind):
            continue
        if (thing.gone_at is None or thing.gone_at > claim.t) and not (claim.beside and thing.born >= claim.t):
            yield f"{thing.kind} {thing.id} born {thing.born:.0f}, gone {thing.gone_at}"


def _unlisted(h: History, kind: str) -> bool:
    """Did the look behind a "released" say that this kind, which no launch makes, could not be listed? Then it does not speak of it."""
    for computer in (h.laptop, h.other):
        try:
            entries = journal_of(h, computer).entries
        except (OSError, Broken):
            continue
        last: dict[str, bool] = {}
        for e in entries:
            if e["kind"] == "sweep" and e["body"]["checked"]:
                last = {one["class"]: one["checked"] for one in e["body"]["classes"]}
            elif e["kind"] == "verdict" and e["body"]["verdict"] == "released" and not last.get(kind, True):
                return True
    return False


def _silent(h: History) -> Iterator[str]:
    """Something that costs, and an exit code that does not say so."""
    for claim in h.claims:
        bills = [
            t for t in h.world.of(LEASE) if t.kind in BILLED and t.born <= claim.t and (_until(t) is None or (_until(t) or 0.0) > claim.t)
        ]
        if bills and claim.exit not in MONEY:
            yield f"silent: the {claim.who} ended with {claim.exit} while {bills[0].id} was billed"


def _until(thing: Thing) -> float | None:
    return thing.bills_until()


def _calm(h: History) -> Iterator[str]:
    """Once nothing is in the way any more, letting go must let go of everything, and may say so unless a journal was lost."""
    left = [t for t in h.world.of(LEASE) if t.there(h.world.t)]
    if left:
        yield f"left: {left[0].kind} {left[0].id} is still there after a calm day ({h.calm_verdict})"
    if h.calm_verdict is not None and h.calm_verdict is not Verdict.RELEASED and not _lost(h):
        yield f"stuck: nothing was in the way, and letting go ended {h.calm_verdict}"


def _lost(h: History) -> bool:
    """Was its journal lost, or did its owner die before it had one? Then nothing here can ever prove that nothing is left."""
    try:
        entries = journal_of(h, h.laptop).entries
    except (OSError, Broken):
        return True
    return not entries or holdings(entries).rebuilt


def _strangers(h: History) -> Iterator[str]:
    for thing in h.world.things.values():
        if thing.theirs and (thing.touched or thing.asked_at is not None):
            yield f"touched: {thing.kind} {thing.id} is not ours"


def _journal(h: History) -> Iterator[str]:
    for computer in (h.laptop, h.other):
        try:
            read = journal_of(h, computer)
        except FileNotFoundError:
            continue
        except Broken as e:
            yield f"journal: {e.what}"
            continue
        yield from (f"journal: {e['kind']} has no place for {e['body'][LEFT_OUT]}" for e in read.entries if LEFT_OUT in e["body"])
        asked = {e["body"]["token"] for e in read.entries if e["kind"] == "intent" and e["body"]["op"] == "create"}
        ours = {t.token for t in h.world.of(LEASE) if t.token}
        if computer is h.laptop and not ours <= asked and not _lost(h):
            yield f"journal: {sorted(ours - asked)} were made, and it does not know of them"


ODD = ("AttributeError", "TypeError", "NameError", "NotImplementedError", "IndexError", "KeyError", "AssertionError")
"""What a provider never raises by itself: the product took it for an answer that was lost, and here it is a bug of somebody's."""


def _odd(h: History) -> Iterator[str]:
    for computer in (h.laptop, h.other):
        try:
            entries = journal_of(h, computer).entries
        except (OSError, Broken):
            continue
        for e in entries:
            said = str(e["body"].get("error") or e["body"].get("why") or "")
            if said.startswith(ODD) and e["kind"] != "failure":
                yield f"bug: {said}"
    yield from (f"bug: {line}" for line in h.story if any(f"{name}:" in line for name in ODD) and "a bug of ours" not in line)


def _twice(h: History) -> Iterator[str]:
    if h.asked_again > sum(t.kind == h.script.tagged and _unlisted(h, t.kind) for t in h.world.of(LEASE)):
        yield f"twice: letting go once more changed {h.asked_again} things"


def _guards(h: History) -> Iterator[str]:
    """An abandoned machine is ended by whichever guard works, within what that one promises."""
    if h.deadline is None:
        return
    w = h.script.weather
    for thing, until in h.abandoned_seen:
        bounds = []
        if w.guest in ("right", "twice", "early") and not w.odd:
            bounds.append(max(thing.facts["deadline_t"], thing.born + w.boot_s) + TIMER_LATE_S)
        for schedule in h.world.of(LEASE):
            if (
                schedule.kind == SCHEDULE
                and schedule.facts.get("armed")
                and schedule.facts["instance"] == thing.id
                and schedule.asked_at is None
            ):
                bounds.append(max(h.deadline, schedule.born) + SCHEDULE_LATE_S)
        if "fleet" in thing.facts and thing.facts["fleet"].facts["armed"]:
            bounds.append(max(h.deadline, thing.born) + FLEET_LATE_S)
        if bounds and min(bounds) <= h.abandoned_at and (until is None or until > min(bounds)):
            yield f"guard: {thing.id} was billed until {until}, and its guards promise {min(bounds):.0f}"


def _spend(h: History) -> Iterator[str]:
    """Never two machines at once, and where a guard of the machine works, never more than was promised."""
    if h.world.most_at_once > 1:
        yield f"spend: {h.world.most_at_once} machines of one lease were billed at once"
    w = h.script.weather
    machines = [t for t in h.world.of(LEASE) if t.kind == MACHINE]
    if h.script.level == FLEETS and w.refills and w.fleet != "right":
        return  # it makes one machine after the other and its end does not come: nothing that a machine does by itself ends that
    if w.guest not in ("right", "twice", "early") or w.odd or any(cut.what == "clock" for cut in h.script.cuts):
        return
    plan = plan_of(h.script)
    seconds = sum((t.bills_until() or h.world.t) - t.born for t in machines)
    spent = plan.quote.lines[0].micro_usd_per_hour * seconds / 3600
    if spent > plan.at_most_micro_usd:
        yield f"spend: {spent:.0f} micro-dollars for {seconds:.0f} s, and at most {plan.at_most_micro_usd} was promised"


def _words(h: History) -> Iterator[str]:
    """Every failure prints one message, with the lease's id and what to do next."""
    for claim in h.claims:
        if claim.who == "owner" and claim.verdict is not None and claim.exit != 0:
            yield from _said(claim, "\n".join(h.story))


def _said(claim: Claim, story: str) -> Iterator[str]:
    if LEASE not in claim.text and LEASE not in story:
        yield f"words: exit {claim.exit}, and no id in {claim.text!r}"
    if "next" not in claim.text:
        yield f"words: exit {claim.exit}, and nothing to do next in {claim.text!r}"


def _secrets(h: History) -> Iterator[str]:
    if any(CANARY in line for line in h.story) or any(CANARY in claim.text for claim in h.claims):
        yield "secret: it was told"
    secret = CANARY.encode()
    for computer in (h.laptop, h.other):
        for path, data in _files(computer):
            if secret in data:
                yield f"secret: it is in {path}"


def _files(computer: P.Computer) -> Iterator[tuple[str, bytes]]:
    todo = [("", computer.disk.root)]
    while todo:
        path, inode = todo.pop()
        if inode.children is None:
            yield path, bytes(inode.data)
        else:
            todo += [(f"{path}/{name}", child) for name, child in inode.children.items() if name != "ballast"]
