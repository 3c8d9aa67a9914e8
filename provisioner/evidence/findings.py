"""Is everything gone, and what stays open? The conclusions a history supports, drawn here and nowhere else.

Clean means: the verdict says released; the last looks, two at least, were complete and found nothing, one after the
other, with nothing of ours created or sighted in between; they were far enough apart; nothing that was ever ours was
last seen present; and no create is open. A create whose answer was lost is settled only by waiting longer than the
provider needs to list what it made.

A complete look lists every mandatory kind in every region this lease touched: on EC2 the four kinds that a launch can
leave behind, elsewhere every kind that this lease made or met. Less than that is a weaker claim, never a failure.

This file must not know why anybody asks, nor how it is said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from provisioner.evidence.history import FOREIGN, Ask, History, Thing
from provisioner.evidence.messages import Problem, problem
from provisioner.journal import Entry
from provisioner.model import MAKES_MACHINES, Json

EC2_KINDS = ("instance", "volume", "network-interface", "security-group")
APART_S = 1
"""Two looks closer than this are one look (the engine keeps two seconds and more)."""

SETTLE_S = {"aws": 300, "static": 5}
"""How long a provider may take to list what a lost request made (`Traits.settle_s`); see docs/how-it-lets-go.md."""


@dataclass
class Findings:
    history: History
    verdict: str
    simulated: bool
    quiet: list[Entry] = field(default_factory=list)  # the complete and empty looks at the end, with nothing in between
    settle_s: int = 0
    waited_out: bool = False
    finals: dict[tuple[str, str], str] = field(default_factory=dict)
    clean: bool = False

    @property
    def foreign(self) -> bool:
        return self.history.genesis["provider"] in FOREIGN

    def limits(self, cost: Json, beside: Json, *, omitted: bool) -> list[Json]:
        """The codes of what all this does not show, in order of the alphabet."""
        history, genesis = self.history, self.history.genesis
        guards = {body["state"] for body in history.of("guard")}
        armed = {body["guard"] for body in history.of("guard") if body["state"] in ("armed", "read-back")}
        last_looks = [row for e in history.lines("sweep")[-2:] for row in e["body"]["classes"]]
        dated = history.offset is not None
        said = {
            "account-not-recorded": not self.simulated and not self.foreign,
            "class-unchecked": any(not row["checked"] for row in last_looks),
            "client-observed": beside["tier"] in ("recorded", "corroborated"),
            "client-signed-only": beside["tier"] in ("client", "identified"),
            "clock-was-set": history.steps > 0,
            "cost-open": "totalHiMicroUsd" not in cost and "unpriced" not in cost and not self.foreign,
            "cost-unpriced": "unpriced" in cost,
            "digest-gap": beside["digestChain"] == "gap",
            "guard-failed": "failed" in guards,
            "guard-waived": "waived" in guards or bool(genesis.get("waived")),
            "guards-not-drilled": not armed or not armed <= {body["guard"] for body in history.of("guard") if "drilled" in body},
            "host-not-ours": self.foreign,
            "identity-is-static": beside["iid"] == "present",
            "identity-unchecked": beside["iid"].startswith("unchecked("),
            "journal-elsewhere": bool(genesis.get("elsewhere")),
            "journal-rebuilt": bool(genesis.get("rebuilt")),
            "list-price-only": True,
            "listed-classes-only": True,
            "listed-regions-only": not self.foreign,
            "local-clock": not dated,
            "lost-answer": bool(history.unanswered) and self.waited_out,
            "never-launched": not history.asks and not genesis.get("rebuilt") and not genesis.get("elsewhere"),
            "no-cloudtrail": beside["cloudtrailEvents"] == 0,
            "no-identity-document": beside["iid"] == "partial" or beside["iid"].startswith("absent("),
            "no-outcome": not history.lines("outcome"),
            "no-verdict": not history.lines("verdict"),
            "not-billed-figures": True,
            "not-quiet-long-enough": len(self.quiet) >= 2 and not self.quiet_enough,
            "not-sealed": not history.lines("seal"),
            "open-intent": bool(history.unanswered) and not self.waited_out,
            "owner-died": _taken_over(history),
            "records-are-copies": beside["cloudtrailEvents"] > 0 and beside["tier"] != "corroborated",
            "records-incomplete": beside["records"] == "incomplete",
            "resource-not-gone": any(final in ("present", "unknown") for final in self.finals.values()),
            "simulated": self.simulated,
            "sweeps-omitted": omitted,
            "too-few-sweeps": len(self.quiet) < 2,
            "torn-tail": any("tornSha256" in body for body in history.of("recovered")),
        }
        return sorted(code for code, holds in said.items() if holds)

    @property
    def needed_s(self) -> int:
        """How far apart the first and the last empty look have to be."""
        if self.simulated:
            return 0  # a rehearsal's cloud lists at once, and its clock may be a test's
        lost = bool(self.history.unanswered) or bool(self.history.genesis.get("elsewhere"))
        return SETTLE_S.get(self.history.genesis["provider"], APART_S) if lost else APART_S

    @property
    def quiet_enough(self) -> bool:
        return self.settle_s >= self.needed_s

    def objections(self) -> list[Problem]:
        """Why a claim of "clean" would be false, each with its own message."""
        found = [
            problem("E302", seq=ask.seq, op="create " + str(ask.body["class"])) for ask in self.history.unanswered if not self.waited_out
        ]
        looks = self.history.lines("sweep")
        if looks and len(self.quiet) < 2:
            missed = _unchecked(looks[-1], _mandatory(self.history))
            found += [problem("E303", class_=kind, region=region or "(no region)", reason=reason) for kind, region, reason in missed]
        if not self.quiet_enough or len(self.quiet) < 2:
            found.append(problem("E304", s=self.settle_s, min=max(self.needed_s, APART_S)))
        for (kind, id), final in self.finals.items():
            if final not in ("deleted", "absent"):
                found.append(problem("E305", class_=kind, id=id, seq=self.history.things[kind, id].seen[0]["seq"]))
        return found


def examine(history: History) -> Findings:
    verdicts = history.of("verdict")
    findings = Findings(history, verdicts[-1]["verdict"] if verdicts else "unproven", _simulated(history))
    findings.quiet = _quiet(history)
    findings.settle_s = _apart(history, findings.quiet)
    findings.waited_out = len(findings.quiet) >= 2 and findings.quiet_enough and all(_before(findings.quiet, a) for a in history.unanswered)
    findings.finals = {key: _final(thing, findings.quiet) for key, thing in history.things.items()}
    findings.clean = (
        findings.verdict == "released"
        and len(findings.quiet) >= 2
        and findings.quiet_enough
        and (findings.waited_out or not history.unanswered)
        and all(final in ("deleted", "absent") for final in findings.finals.values())
        and not history.genesis.get("rebuilt")
        and not history.genesis.get("elsewhere")  # what it had asked for is not known here, so not that all of it is gone
    )
    return findings


def _taken_over(history: History) -> bool:
    """Somebody else began to look after it before there was a verdict; a later look by anybody is no takeover."""
    first = [[e["seq"] for e in history.lines(kind)][:1] for kind in ("recovered", "verdict")]
    return bool(first[0]) and (not first[1] or first[0] < first[1])


def _simulated(history: History) -> bool:
    """Said so, or the calls went to an endpoint that somebody named: only the provider's own is the real thing."""
    settings = history.genesis.get("settings")
    return bool(history.genesis.get("simulated")) or (isinstance(settings, dict) and bool(settings.get("endpoint")))


def _quiet(history: History) -> list[Entry]:
    mandatory = _mandatory(history)
    quiet: list[Entry] = []
    for entry in history.entries:
        body = entry["body"]
        match entry["kind"]:
            case "sweep":
                empty = body["found"] == 0 and not any(row["found"] for row in body["classes"])
                whole = body["checked"] and "error" not in body and bool(body["classes"]) and not _unchecked(entry, mandatory)
                quiet = [*quiet, entry] if empty and whole else []
            case "intent" if body["op"] == "create":
                quiet = []
            case "done" if body["op"] == "create":
                quiet = []
            case "observe" if body["phase"] != "gone":
                quiet = []
            case _:
                pass
    return quiet


def _mandatory(history: History) -> set[tuple[str, str]]:
    """The kinds and regions that a complete look has in it."""
    met = {(t.kind, t.region) for t in history.things.values()}
    asked = {(str(a.body["class"]), _region(a, history)) for a in history.asks}
    if history.genesis["provider"] != "aws":
        return met | {pair for pair in asked if pair[1]}
    regions = {region for _, region in met | asked if region} or {str(history.genesis.get("offer", {}).get("region", ""))}
    makers = {pair for pair in asked if pair[0] in MAKES_MACHINES and pair[1]}
    return {(kind, region) for kind in EC2_KINDS for region in regions} | met | makers


def _region(ask: Ask, history: History) -> str:
    params: Any = ask.body.get("params", {})
    said = params.get("region") or history.genesis.get("offer", {}).get("region")
    return said if isinstance(said, str) else ""


def _unchecked(sweep: Entry, mandatory: set[tuple[str, str]]) -> list[tuple[str, str, str]]:
    rows = {(row["class"], row["region"]): row for row in sweep["body"]["classes"]}
    missed: list[tuple[str, str, str]] = []
    for kind, region in sorted(mandatory):
        row = rows.get((kind, region))
        if row is None or not row["checked"]:
            missed.append(
                (kind, region, sweep["body"].get("error", "not in the list") if row is None else row.get("reason", "no reason given"))
            )
    return missed


def _apart(history: History, quiet: list[Entry]) -> int:
    """Whole seconds between the first and the last of them: the best lower bound that the clocks give."""
    if len(quiet) < 2:
        return 0
    first, last = quiet[0], quiet[-1]
    bounds = [0]
    dates = history.date(first), history.date(last)
    if dates[0] is not None and dates[1] is not None:
        bounds.append(dates[1] - dates[0] - 1000)
    wall = history.local(last) - history.local(first)
    mono = last["at"].get("monoMs", 0) - first["at"].get("monoMs", 0)
    # A wall clock that was set forward must not make a wait longer than it was; one process's other clock knows better, and
    # between two processes the provider's dates do.
    handed_over = any(first["seq"] < e["seq"] < last["seq"] for e in history.lines("recovered"))
    if mono >= 0 and not handed_over:
        bounds.append(min(wall, mono))
    elif len(bounds) == 1:
        bounds.append(wall)
    return max(bounds) // 1000


def _before(quiet: list[Entry], ask: Ask) -> bool:
    return ask.seq < int(quiet[0]["seq"])


def _final(thing: Thing, quiet: list[Entry]) -> str:
    """deleted: shown gone. absent: no longer listed, twice, after it was last shown. Otherwise present or unknown."""
    if thing.phase == "gone":
        return "deleted"
    if len(quiet) >= 2 and thing.last_seq < int(quiet[0]["seq"]):
        return "absent"
    return "unknown" if thing.accepted is not None and thing.phase != "leaving" else "present"
