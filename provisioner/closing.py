"""The end of a lease: let go, say how it went, seal the journal, and leave a proof.

Used by whoever ends a lease: the run itself, its watchdog, `gpulease release`, `gpulease reap`. Sealing never decides
anything about money and never raises into the way out: a proof that could not be written is a missing paper, and the
verdict stands without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cost
from provisioner import __version__, baseline, ledger, providers
from provisioner.errors import Exit, GpuleaseError, Interrupted, MissedThreshold, NotCreated, ProviderError, RefusedError
from provisioner.journal import Entry, Journal
from provisioner.lease import LINGER_S, PATIENCE_S, Holdings, anchor, holdings, release
from provisioner.ledger import LeaseFolder
from provisioner.model import MAKES_MACHINES, Clock, Outcome, Phase, Provider, Verdict, Witness
from provisioner.scope import Cancelled, SystemClock

SIMULATED_PATIENCE_S = 120.0
MONEY = {Verdict.UNPROVEN: Exit.UNPROVEN, Verdict.HELD: Exit.HELD, Verdict.LEAVING: Exit.LEAVING}
SIGNALS = {"SIGHUP": Exit.SIGHUP, "SIGINT": Exit.SIGINT, "SIGTERM": Exit.SIGTERM, "deadline": Exit.BUDGET}


def let_go(
    folder: LeaseFolder,
    journal: Journal,
    *,
    patience: float = PATIENCE_S,
    linger: float = LINGER_S,
    provider: Provider | None = None,
    clock: Clock | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Verdict:
    """Release a lease whose owner is gone, and seal it. Closes the journal."""
    with journal:
        provider = provider or _reached(folder, journal.entries)
        if provider.traits.simulated:
            # A simulated cloud that does not answer has ended, and nothing in it is real.
            patience, linger = min(patience, SIMULATED_PATIENCE_S), 0.0
        verdict = release(folder.id, provider, journal, clock or SystemClock(), patience=patience, linger=linger, tell=tell)
        sealed = conclude(folder, journal, ended_by(journal.entries), exit_code(verdict, None, journal), provider)
        if sealed.before:
            tell(sealed.before)
        if new := baseline.words(journal.entries):
            tell(new)
        return verdict


def _reached(folder: LeaseFolder, entries: Sequence[Entry]) -> Provider:
    """The lease's cloud, as the journal's first line says, which nobody can have changed; else as the card does."""
    genesis: dict[str, Any] = next((e["body"] for e in entries if e["kind"] == "genesis"), {})
    said = genesis if "provider" in genesis and "settings" in genesis else folder.card()
    return providers.connect(said["provider"], said["settings"])


def ended_by(entries: Sequence[Entry]) -> Outcome:
    """How a recovered lease had ended: by us, or by a guard on the machine before we came."""
    held = holdings(list(entries))
    if not held.asked and not held.resources:
        return Outcome.NEVER_LAUNCHED
    reasons = [
        str(e["body"]["facts"].get("stateReason", "")) for e in entries if e["kind"] == "observe" and e["body"]["class"] == "instance"
    ]
    if any(reason.startswith("Client.InstanceInitiatedShutdown") for reason in reasons):
        return Outcome.GUARD_FIRED
    from provisioner.evidence import scheduled

    return Outcome.GUARD_FIRED if scheduled.ended_so(entries) else Outcome.RECOVERED


def launched(entries: Sequence[Entry]) -> bool:
    """Was there, or may there have been, something that is billed? A refusal answers no; a lost answer does not."""
    held = holdings(list(entries))
    # What is free (a security group, a schedule) is no machine, and a create of it is followed by no bill.
    free = {e["body"]["class"] for e in entries if e["kind"] in ("done", "observe") and e["body"].get("billed") is False}
    asked = {e["seq"]: e["body"]["class"] for e in entries if e["kind"] == "intent" and e["body"]["op"] == "create"}
    # What makes machines and went without having made one was none either.
    billed = [r for r in held.resources.values() if r.billed and not (r.kind in MAKES_MACHINES and r.phase is Phase.GONE)]
    return bool(billed) or any(asked[seq] not in free for seq in held.intents)


def outcome_of(error: BaseException | None, entries: Sequence[Entry]) -> Outcome:
    match error:
        case None | MissedThreshold():
            return Outcome.COMPLETED
        case _ if not launched(entries):
            return Outcome.NEVER_LAUNCHED
        case Cancelled() | Interrupted():
            return Outcome.INTERRUPTED
        case _:
            return Outcome.FAILED


def worst(verdicts: Collection[Verdict | None]) -> Exit:
    """The exit code of several leases: what is seen to cost first, then what nobody could see, then what is on its way."""
    return next((MONEY[verdict] for verdict in (Verdict.HELD, Verdict.UNPROVEN, Verdict.LEAVING) if verdict in verdicts), Exit.OK)


def exit_code(verdict: Verdict, error: BaseException | None, journal: Journal) -> Exit:
    """Money outranks everything: what may still cost is said before what went wrong."""
    if verdict in MONEY:
        return MONEY[verdict]
    if journal.unwritten is not None:
        return Exit.UNPROVEN  # gone, but what was seen could not be recorded
    match error:
        case None:
            return Exit.OK
        case Cancelled():
            return SIGNALS.get(error.reason, Exit.FAILED)
        case NotCreated() | RefusedError() if launched(journal.entries):
            return Exit.FAILED  # 4 says that no machine was made
        case NotCreated():
            return Exit.REFUSED
        case GpuleaseError():
            return error.code
        case _:
            return Exit.BUG


@dataclass(frozen=True)
class Sealed:
    """What `conclude` left: the evidence folder, or why there is none."""

    evidence: Path | None
    why_not: str = ""
    before: str = ""  # where the proof is kept whose place was taken by one that shows less, in words


SPENT_SECRETS = ("api.key", "keys/client_ed25519", "keys/host_ed25519")


def conclude(folder: LeaseFolder, journal: Journal, outcome: Outcome, code: Exit, provider: Provider | None = None) -> Sealed:
    """What is there besides, outcome, seal, the sealed head shown to the provider's log, and proof.

    Whatever goes wrong here is told, not raised: everything that costs money is behind us.
    """
    with contextlib.suppress(Exception):  # the proof then says that nobody looked, which is what happened
        _besides(folder, journal, provider)
    try:
        return _seal(folder, journal, outcome, code, provider)
    except Exception as e:
        # The program ends here, and its exit code speaks of money: no paper may take its place.
        return Sealed(None, _why_none(e))


def _why_none(e: Exception) -> str:
    if isinstance(e, GpuleaseError):
        return e.what
    if isinstance(e, OSError):
        return f"it could not be written: {e.strerror or e}" + (f": {e.filename}" if e.filename else "")
    return f"a bug in gpulease: {type(e).__name__}: {e}"


def _besides(folder: LeaseFolder, journal: Journal, provider: Provider | None) -> None:
    """What is there now that was not there before the launch and is not ours; only where the provider answers."""
    if provider is not None and launched(journal.entries) and holdings(journal.entries).verdict is not Verdict.UNPROVEN:
        baseline.look_again(folder, provider, journal, SystemClock().sleep)


def _seal(folder: LeaseFolder, journal: Journal, outcome: Outcome, code: Exit, provider: Provider | None) -> Sealed:
    from provisioner.evidence.bundle import covered

    there = [str(path.relative_to(folder.path)) for path in (*folder.path.iterdir(), *folder.path.glob("aws/iid/*.p7")) if path.is_file()]
    files = {name: (folder.path / name).read_bytes() for name in covered(there)}
    journal.note("outcome", {"outcome": str(outcome), "exit": int(code)})
    if holdings(journal.entries).verdict is Verdict.RELEASED:
        for name in SPENT_SECRETS:  # they open nothing any more; what is not kept cannot leak
            with contextlib.suppress(OSError):
                (folder.path / name).unlink(missing_ok=True)
    costs = spent(journal.entries)
    journal.note("seal", {"files": {name: sha256(data) for name, data in files.items()}, "spend": costs and costs.record()})
    if journal.unwritten is not None:
        return Sealed(None, f"the journal could not be written: {journal.unwritten}")
    if isinstance(provider, Witness) and launched(journal.entries) and holdings(journal.entries).verdict is not Verdict.UNPROVEN:
        _witnessed(folder, journal, provider)
    proved = prove(folder)
    again = f"; `gpulease proof corroborate {folder.id}` asks AWS about the longer journal"
    return Sealed(proved.evidence, before=proved.words() + again if proved.before else "")


def _witnessed(folder: LeaseFolder, journal: Journal, provider: Provider) -> None:
    """Show the sealed head to the provider's log: from then on nobody can write another journal of this lease unseen."""
    assert isinstance(provider, Witness)
    head = journal.head[:32]
    anchor(provider, folder.id, journal)
    # Expected where the network or the login ended just now: the proof then has one anchor less, and says so.
    with contextlib.suppress(ProviderError):
        journal.note("anchor", {"call": "GetCallerIdentity", "head": head, **provider.witness()})


@dataclass(frozen=True)
class Proved:
    """`before` is where the proof is kept that stood there and showed more; its tier, and that of the new one."""

    evidence: Path
    before: Path | None = None
    was: str = ""
    tier: str = ""

    def words(self) -> str:
        return f"the proof was {self.was}, and {self.tier} is what this one shows; the one before is kept: {self.before}"


def prove(folder: LeaseFolder, *, supersedes: bool = False) -> Proved:
    """(Re)write `<lease>.evidence/` from the journal on disk and the files beside it; `supersedes`: it names the one before.

    What AWS said later (its log, the bill) speaks of the journal as it was then. A proof with such files is kept as a zip, unless the new
    one shows at least as much: AWS forgets after 90 days, and then nobody could make it again.
    """
    from provisioner.evidence import archive, bill, bundle, tiers, verify
    from provisioner.evidence.files import Unreadable

    there: dict[str, bytes] = {}
    with contextlib.suppress(Unreadable):  # what cannot be read any more cannot be kept, and must not stand in the way of a new one
        there = bundle.members(folder.evidence) if (folder.evidence / "statement.dsse.json").is_file() else {}
    later = {name for name in there if name.startswith(bundle.ADDED) or name == bill.FILE}
    kept = folder.path.with_name(f"{folder.id}.before-{sha256(there['statement.dsse.json'])[:8]}.zip") if later else None
    was = verify.verify(folder.evidence).tier if later else ""
    if kept is not None:
        ledger.write_private(kept, archive.packed(there, folder.evidence.name))
    bundle.seal(folder.path, folder.evidence, ledger.private(ledger.root() / "keys"), version=__version__, supersedes=supersedes)
    if kept is None:
        return Proved(folder.evidence)
    tier = verify.verify(folder.evidence).tier
    if later <= bundle.members(folder.evidence).keys() and was and tier and tiers.reaches(tier, was):
        kept.unlink()
        return Proved(folder.evidence)
    return Proved(folder.evidence, kept, tiers.NAMES.get(was, "of no tier"), tiers.NAMES.get(tier, "of no tier"))


def spent(entries: Sequence[Entry], now: float | None = None) -> cost.Spend | None:
    """What a lease has cost, from its journal alone; None when the journal holds no price for what it shows."""
    if not touched(holdings(list(entries))):
        return cost.Spend(0, 0, 0, False)
    try:
        return cost.spent(entries, int((time.time() if now is None else now) * 1000))
    except (LookupError, ValueError, TypeError):
        return None  # no quote, another type than the one that was priced, or a time from the provider that is none


def touched(held: Holdings) -> bool:
    """May there ever have been anything of this lease?"""
    return held.asked or held.rebuilt or held.elsewhere or bool(held.resources)


def hourly(entries: Sequence[Entry]) -> int | None:
    """What it costs per hour while it runs, in micro-dollars; None when the journal does not say.

    The last machine that was asked for, at its own offer's prices: after a refusal that is no longer the first offer.
    """
    genesis: dict[str, Any] = next((e["body"] for e in entries if e["kind"] == "genesis"), {})
    asked = [e["body"] for e in entries if asks_for_a_machine(e)]
    quote = next((body["params"]["quote"] for body in reversed(asked) if body.get("params", {}).get("quote")), genesis.get("quote", {}))
    lines = quote.get("lines", [])
    return sum(int(line["microUsdPerHour"]) for line in lines) if lines else None


def asks_for_a_machine(entry: Entry) -> bool:
    return entry["kind"] == "intent" and entry["body"]["op"] == "create" and entry["body"]["class"] in ("instance", *MAKES_MACHINES)


def now_line(entries: Sequence[Entry]) -> str:
    """What it costs right now, as the journal knows it. The last line of every error after a lease is open."""
    held = holdings(list(entries))
    costs, hour = spent(entries), hourly(entries)
    sofar = "what was spent cannot be told: no price for it is known"
    if costs is not None:
        sofar = f"spent {cost.show(costs.best)}" + (f" (at most {cost.show(costs.hi)})" if costs.hi != costs.best else "")
    rate = "at a price that is not known" if hour is None else cost.show_per_hour(hour)
    match held.verdict:
        case Verdict.RELEASED if not touched(held):
            return "nothing was rented, nothing was spent"
        case Verdict.RELEASED:
            when = next((e["at"]["wall"][11:19] for e in reversed(entries) if e["kind"] == "verdict"), "")
            return f"nothing is running; everything seen gone {when} UTC; {sofar}"
        case Verdict.LEAVING:
            return f"asked to go, no longer billed, not yet seen gone; {sofar}"
        case _ if not touched(held):
            return "nothing was rented, nothing was spent"
        case _:
            simulated = any(e["kind"] == "genesis" and e["body"].get("simulated") for e in entries)
            return f"assume it is running: {rate}, {sofar}{ends_without_us(entries)}" + (" (SIMULATED)" if simulated else "")


def ends_without_us(entries: Sequence[Entry]) -> str:
    """Which guards that were seen armed will end it if nobody here can: with their times, in the order in which they fire."""
    seen: dict[str, dict[str, Any]] = {}
    for e in entries:
        if e["kind"] == "guard":
            seen[e["body"]["guard"]] = e["body"]
        elif asks_for_a_machine(e):
            seen.clear()  # what stands on one machine says nothing of the next
    words = {
        "guest-lease": "the machine itself, when it does not hear from us",
        "guest-timer": "its own timer",
        "schedule": "the schedule at the provider",
        "fleet": "the fleet that made it",
    }
    stand = [name for name in words if seen.get(name, {}).get("state") in ("armed", "read-back")]
    if not stand:
        return ""
    when = {name: str(seen[name].get("firesAt") or "")[11:16] for name in stand}
    return "; what ends it without us: " + ", ".join(f"{words[name]}" + (f" at {when[name]} UTC" if when[name] else "") for name in stand)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
