"""`report.md`: the statement and the results for people, always the same bytes for the same two inputs.

`verify` renders it again and compares, so the page can say nothing that the statement and the results do not. No
clock, no locale, no environment, no journal: whoever holds the two files gets this page.

A page is where other people's text meets other people's renderers. Every value goes through `cell`: cleaned, one
line, short, with HTML and Markdown characters disarmed, so a model that answers with a script, a link or a table row
gets to see it quoted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from provisioner.evidence import canonical, measured, words
from provisioner.model import Json

VERSION = 1
"""Signed with the statement. Whoever changes a byte of the page for the same inputs adds one here (a test keeps pages),
so that a page made by another version is left to that version and not called forged."""

RESULTS_LIMIT = 16 << 20
REPORT_LIMIT = 4 << 20
ROWS = 60

# Not at the beginning of a line, where every value is, these are the characters that mean something; `://` and `www.`
# would become links by themselves.
_MARKUP = re.compile(r"[\\`*_\[\]|~$<>&\"']|:(?=//)|(?<=www)\.", re.IGNORECASE)
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}


Row = Sequence[object]


def report(statement: Json, results: bytes | None = None) -> bytes:
    """The page. `results` are the bytes of `results.json`; what cannot be read in them is left out."""
    predicate = statement["predicate"]
    read = measured.read(results)
    parts: list[str] = []
    _head(parts, predicate)
    parts += ["## Timeline", "", *table(("time (UTC)", "what", "give or take"), timeline_rows(predicate))]
    _evaluation(parts, predicate, read)
    _latency(parts, read)
    _cost(parts, predicate)
    _resources(parts, predicate)
    _guards(parts, predicate)
    parts += ["## What this does not show", "", *(f"- {cell(s, 400)}" for s in words.sentences(predicate)), ""]
    parts += ["## Check it", "", f"    gpulease verify {predicate['run']['id']}.evidence", ""]
    parts += [f"Journal: {predicate['journal']['records']} records, head `{predicate['journal']['head']}`.", ""]
    return "\n".join(parts).encode()


def cell(value: object, limit: int = 120) -> str:
    """One harmless piece of Markdown: it shows as it is, and means nothing."""
    return _MARKUP.sub(lambda m: _ENTITIES.get(m[0], f"\\{m[0]}"), words.text(value, limit))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A Markdown table, or a line that says that there is nothing in it."""
    body = [f"| {' | '.join(cell(value) for value in row)} |" for row in rows]
    if not body:
        return ["None.", ""]
    more = [f"… and {len(body) - ROWS} more, in the statement.", ""] if len(body) > ROWS else []
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *body[:ROWS], "", *more]


def _head(parts: list[str], predicate: dict[str, Any]) -> None:
    run = predicate["run"]
    parts += [f"# gpulease run {cell(run['id'])}", ""]
    if predicate["simulated"]:
        parts += [
            "**SIMULATED. A rehearsal on the user's own computer: no cloud was called, no machine was rented, nothing was billed.**",
            "",
        ]
    profile = run.get("profile", {}).get("name", "a profile without a name")
    outcome = run.get("outcome", "has no recorded outcome")
    where = ", ".join(cell(run[name]) for name in ("provider", "region", "availabilityZone", "gpu", "purchase") if name in run)
    parts += [
        f"Profile {cell(profile)} on {where}. The run {cell(outcome)}; verdict {predicate['verdict']}.",
        "",
    ]
    parts += ["In words: " + " ".join(cell(said, 400) for said in words.verdict(predicate)), ""]


def timeline_rows(predicate: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Time, what, and how far off it may be, in the order of time."""
    run = predicate["run"]
    names = {
        "requestedAt": "launch asked for",
        "launchTime": "launch time, as the provider gives it",
        "runningFirstSeenAt": "first seen running",
        "terminateRequestedAt": "termination asked for",
        "terminateAcceptedAt": "termination accepted",
        "terminatedFirstSeenAt": "first seen terminated",
    }
    rows: list[tuple[str, str, str]] = []
    for instance in predicate["instances"]:
        fate = {"failed": "refused", "done": "no id"}.get(instance.get("answer", ""), "answer lost")
        who = instance.get("id", f"{instance.get('type', 'machine')} ({fate})")
        rows += [(instance[name], f"{who}: {what}", _unc(instance, name)) for name, what in names.items() if name in instance]
    for sweep in predicate["sweeps"]:
        rows.append((sweep["at"], "could not look" if "error" in sweep else f"looked: {sweep['found']} found", _unc(sweep, "at")))
    rows.sort(key=lambda row: canonical.milliseconds(row[0]) or 0)
    rows.insert(0, (run["startedAt"], "run started", _unc(run, "startedAt")))
    if "endedAt" in run:
        rows.append((run["endedAt"], f"verdict: {predicate['verdict']}", _unc(run, "endedAt")))
    return rows


def _unc(holder: dict[str, Any], name: str) -> str:
    ms = holder.get(f"{name}UncertaintyMs")
    return "" if ms is None else f"{ms} ms"


def _evaluation(parts: list[str], predicate: dict[str, Any], results: dict[str, Any]) -> None:
    if "evaluation" not in predicate:
        return
    parts += ["## Answers", "", words.evaluated(predicate["evaluation"]), ""]
    parts += table(("tag", "from", "cases", "correct", "percent", "95 % interval"), measured.answers(results))
    if rows := measured.thresholds(results):
        parts += ["Thresholds of the profile:", "", *table(("threshold", "limit", "measured", "kept"), rows)]


def _latency(parts: list[str], results: dict[str, Any]) -> None:
    for vantage, stats in measured.vantages(results):
        parts += [f"## Measured {cell(measured.WHERE.get(vantage, vantage))}", ""]
        parts += table(("milliseconds", *(f"p{p}" for p in measured.PERCENTILES)), measured.times(stats))
        parts += table(("count", "value"), measured.counts(stats))
        if reasons := measured.reasons(stats):
            parts += ["Not to be had:", "", *(f"- {cell(reason, 400)}" for reason in reasons[:ROWS]), ""]
    if added := measured.tunnel_cost(results):
        parts += ["What the tunnel adds to the median:", "", *table(("of", "milliseconds"), added)]


def _cost(parts: list[str], predicate: dict[str, Any]) -> None:
    cost = predicate["cost"]
    parts += ["## Cost", "", *table(("what", "of", "at least (USD)", "best guess", "at most"), money_rows(predicate))]
    used = sorted({f"{p['component']}: {p['source']}, {p['asOf']}" for p in cost["prices"]})
    prices = "; ".join(cell(price, 200) for price in used) or "none"
    parts += [f"Basis: {cell(cost['basis'])}. Prices: {prices}. Not in it: {cell(', '.join(cost['excluded']), 400)}.", ""]


def money_rows(predicate: dict[str, Any]) -> list[tuple[str, ...]]:
    """What each component cost, and the sum: at least, best guess, at most."""
    cost = predicate["cost"]
    rows = [_money(c["component"], c["resource"], c["loMicroUsd"], c["bestMicroUsd"], c.get("hiMicroUsd")) for c in cost["components"]]
    return [*rows, _money("total", "", cost["totalLoMicroUsd"], cost.get("totalBestMicroUsd"), cost.get("totalHiMicroUsd"))]


def _money(what: str, of: str, lo: int, best: int | None, hi: int | None) -> tuple[str, str, str, str, str]:
    return (
        what,
        of,
        words.usd(lo, up=False),
        "unknown" if best is None else words.usd(best),
        "no upper bound" if hi is None else words.usd(hi),
    )


def _resources(parts: list[str], predicate: dict[str, Any]) -> None:
    rows = [(r["class"], r.get("id", "(answer lost)"), r.get("region", ""), r["final"], r["firstSeq"]) for r in predicate["resources"]]
    parts += ["## What there was", "", *table(("kind", "id", "region", "at the end", "journal record"), rows)]
    if predicate["sweeps"]:
        last = predicate["sweeps"][-1]
        looked = [
            (c["class"], ", ".join(c["regions"]), c["ours"] if c["checked"] else "not checked", c.get("reason", ""))
            for c in last["classes"]
        ]
        parts += [f"Last look, at {last['at']}:", "", *table(("kind", "regions", "found", "why not"), looked)]

    if "unfiltered" in predicate:
        listed = predicate["unfiltered"]
        parts += [f"Whosever it is, listed {listed['baselineAt']} and {listed.get('at', 'not again')}:", ""]
        parts += table(BESIDES, besides_rows(listed))


BESIDES = ("kind", "regions", "new and not of this run", "of this run", "why not")


def besides_rows(listed: dict[str, Any]) -> list[Row]:
    """The two lists without a filter: the kinds of which there is something to say, and how many others there were."""
    rows: list[Row] = []
    others = 0
    for c in listed["classes"]:
        where = ", ".join(c["regions"])
        if not c["checked"] or "newUnexplained" not in c:
            rows.append((c["class"], where, "not looked at", c["ours"], c.get("reason", "")))
        elif c["newUnexplained"] or c["ours"]:
            rows.append((c["class"], where, c["newUnexplained"], c["ours"], ""))
        else:
            others += 1
    return rows + ([(f"{others} {'other kinds' if rows else 'kinds'}", "", 0, 0, "")] if others else [])


def _guards(parts: list[str], predicate: dict[str, Any]) -> None:
    names = ("armedAt", "readBackAt", "firesAt", "removedAt")
    rows = [(g["kind"], *(g.get(name, "") for name in names), note(g)) for g in predicate["guards"]]
    parts += ["## Guards", "", *table(("guard", "armed", "read back", "would fire", "removed", "note"), rows)]


def note(guard: dict[str, Any]) -> str:
    """Waived, failed, or when it was last made to fire in this account."""
    if "waivedAt" in guard or "failedAt" in guard:
        return "waived" if "waivedAt" in guard else "failed"
    return f"drilled {guard['drilled']['date']}, {guard['drilled']['secondsLate']} s late" if "drilled" in guard else ""
