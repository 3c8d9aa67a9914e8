"""Tables for a terminal: plain text, no colour, nothing that needs a wide screen or a font.

Columns are as wide as their widest cell, counted in screen cells, so that a model's name in Chinese does not push the
numbers out of line. Every value is cleaned: a table is made of one harmless line a row, whatever a model answered.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import cost
from provisioner.evidence import measured, words
from provisioner.report import Record
from provisioner.report import load as load

Row = Sequence[object]
WIDEST = 48
GOING_ON = "It is still going on: this is what its journal has so far, and says nothing of how it ends."


def lease(record: Record) -> str:
    """Everything about one lease: verdict, answers, latency, cost, guards, what is left and what is not shown."""
    predicate, results = record.predicate, record.measured
    said_of = words.verdict(predicate | {"clean": True} if record.going_on else predicate)  # no verdict of what has not ended
    blocks = [headline(record), *(f"  {said}" for said in ([GOING_ON] if record.going_on else []) + said_of)]
    blocks += [*(f"  {words.text(said, 400)}." for said in record.interruptions[:20]), ""]
    blocks += _measured(results)
    blocks += titled("cost in USD", table(("what", "of", "at least", "best", "at most"), cost_rows(predicate)))
    basis = cost.basis(
        (p["component"], p["source"], p["asOf"]) for p in predicate["cost"]["prices"] if p["microUsdPerHour"] or p["fixedMicroUsd"]
    )
    blocks[-1:] = [f"  reckoned with: {words.text(basis, 400)}", ""] if basis else [""]
    blocks += titled("guards", table(("guard", "state", "would fire"), guard_rows(predicate)))
    left = [
        (r["class"], r.get("id", "(answer lost)"), r["final"]) for r in predicate["resources"] if r["final"] not in ("deleted", "absent")
    ]
    blocks += titled("not shown to be gone", table(("kind", "id", "at the end"), left))
    if record.doubts:
        blocks += ["the samples do not confirm:", *(f"  {words.text(doubt, 200)}" for doubt in record.doubts[:20]), ""]
    return "\n".join([*blocks, f"not shown: {words.not_shown(predicate)}"]) + "\n"


def report_text(records: Sequence[Record]) -> str:
    """One lease in full, or several compared."""
    return lease(records[0]) if len(records) == 1 else compare(records)


def results_text(results: dict[str, Any]) -> str:
    """What was measured, on one screen at the end of a run; `gpulease report` has the rest."""
    seen = measured.vantages(results)
    names = [words.text(name) for name, _ in seen]
    each = {(tag, vantage): f"{right} of {scored}" for tag, vantage, scored, right, *_ in measured.answers(results)}
    tags = list(dict.fromkeys(tag for tag, _ in each))
    blocks = titled(
        "answers", table(("tag", *(f"{n}: correct" for n in names)), ([t, *(each.get((t, n), "") for n, _ in seen)] for t in tags))
    )
    times = [{row[0]: row[1:] for row in measured.times(stats)} for _, stats in seen]
    heads = [f"{n} p{p}" for n in names for p in measured.PERCENTILES]
    none = [measured.DASH] * len(measured.PERCENTILES)
    timed = [name for name in measured.TIMES.values() if any(name in by_name for by_name in times)]
    rows = [[name, *(cell for by_name in times for cell in by_name.get(name, none))] for name in timed]
    # A column in which nothing could be measured says nothing here; `report` gives the reason.
    kept = [i for i in range(len(heads)) if any(row[i + 1] != measured.DASH for row in rows)]
    shown = table(("", *(heads[i] for i in kept)), ([row[0], *(row[i + 1] for i in kept)] for row in rows))
    blocks += titled("latency in ms", shown if kept else [f"{words.text(n)}: {why_no_times(stats)}" for n, stats in seen])
    blocks += titled("thresholds", table(("threshold", "limit", "measured", "kept"), measured.thresholds(results)))
    blocks += titled("machines, one after the other: latency is of them all", table(("machine", "type"), measured.machines(results)))
    return "\n".join(blocks).rstrip()


def _measured(results: dict[str, Any]) -> list[str]:
    blocks: list[str] = []
    blocks += titled("answers", table(("tag", "from", "cases", "correct", "%", "95 % interval"), measured.answers(results)))
    blocks += titled("thresholds", table(("threshold", "limit", "measured", "kept"), measured.thresholds(results)))
    for vantage, stats in measured.vantages(results):
        where = words.text(measured.WHERE.get(vantage, vantage))
        rows = measured.times(stats)
        had = any(cell != measured.DASH for row in rows for cell in row[1:])
        shown = table(("", *(f"p{p}" for p in measured.PERCENTILES)), rows) if had else [why_no_times(stats)]
        blocks += titled(f"latency in ms, {where}", shown)
        blocks += titled(f"counts, {where}", table(("", ""), measured.counts(stats)))
    blocks += titled("machines, one after the other: latency is of them all", table(("machine", "type"), measured.machines(results)))
    blocks += titled("the tunnel adds (ms, median)", table(("", ""), measured.tunnel_cost(results)))
    return blocks


def why_no_times(stats: dict[str, Any]) -> str:
    """Instead of a table of dashes: why there is not even a median."""
    absent = measured.absent(stats)
    return words.text(absent.get("all") or absent.get("ttftP50Ns") or "nothing was timed", 200)


def headline(record: Record) -> str:
    predicate = record.predicate
    run = predicate["run"]
    simulated = "SIMULATED  " if predicate["simulated"] else ""
    parts = [run["id"], run.get("profile", {}).get("name", ""), run["provider"], run.get("region", ""), machine(predicate)]
    outcome = f"{run.get('outcome', 'no outcome')}, {predicate['verdict']}" + ("" if predicate["clean"] else ", NOT CLEAN")
    outcome = "going on" if record.going_on else outcome
    return simulated + "  ".join(words.text(part) for part in parts if part) + f"  {outcome}"


def compare(records: Sequence[Record]) -> str:
    """Several leases, one a row."""
    return "\n".join(table(COLUMNS, compare_rows(records))) + "\n"


COLUMNS = (
    "lease",
    "profile",
    "machine",
    "verdict",
    "correct %",
    "ttft p50",
    "ttft p95",
    "tokens/s",
    "errors %",
    "USD at most",
    "USD/1000 correct",
)


def compare_rows(records: Sequence[Record]) -> list[list[str]]:
    return [_compared(record) for record in records]


def _compared(record: Record) -> list[str]:
    predicate = record.predicate
    seen = dict(measured.vantages(record.measured))
    # Speed is the machine's own where it was measured there; through the tunnel it is another figure.
    vantage = "host" if "host" in seen else next(iter(seen), "")
    stats = seen.get(vantage, {})
    right, scored = measured.whole(stats, "right"), measured.whole(stats, "scored")
    rate = measured.whole(stats, "outputMilliTokensPerS")
    errors = measured.whole(stats, "errorsPerMille")
    cost = predicate["cost"].get("totalHiMicroUsd")
    all_right = sum(measured.whole(s, "right") or 0 for s in seen.values())
    each = None if cost is None or not all_right else -(-cost * 1000 // all_right)
    return [
        record.id[-8:] + (" SIMULATED" if predicate["simulated"] else ""),
        predicate["run"].get("profile", {}).get("name", ""),
        machine(predicate),
        predicate["verdict"] if predicate["clean"] else f"{predicate['verdict']}, not clean",
        measured.DASH if right is None or not scored else measured.tenths(right * 1000 // scored),
        *(measured.DASH if (ns := measured.whole(stats, f"ttftP{p}Ns")) is None else measured.ms(ns) for p in (50, 95)),
        measured.DASH if rate is None else measured.milli(rate),
        measured.DASH if errors is None else measured.tenths(errors),
        "no bound" if cost is None else words.usd(cost),
        measured.DASH if each is None else words.usd(each),
    ]


def machine(predicate: dict[str, Any]) -> str:
    """`g6.xlarge (L4)`, of the last machine that there was."""
    types = [i["type"] for i in predicate["instances"] if "type" in i and "id" in i]
    gpu = predicate["run"].get("gpu", "")
    return f"{types[-1]} ({gpu})" if types and gpu else types[-1] if types else gpu


def cost_rows(predicate: dict[str, Any]) -> list[tuple[str, ...]]:
    cost = predicate["cost"]
    rows = [(c["component"], c["resource"], c["loMicroUsd"], c["bestMicroUsd"], c.get("hiMicroUsd")) for c in cost["components"]]
    rows.append(("total", "", cost["totalLoMicroUsd"], cost.get("totalBestMicroUsd"), cost.get("totalHiMicroUsd")))
    return [
        (what, of, words.usd(lo, up=False), "unknown" if best is None else words.usd(best), "no bound" if hi is None else words.usd(hi))
        for what, of, lo, best, hi in rows
    ]


def guard_rows(predicate: dict[str, Any]) -> list[tuple[str, ...]]:
    states = (
        ("waivedAt", "WAIVED"),
        ("failedAt", "FAILED"),
        ("removedAt", "removed"),
        ("readBackAt", "armed and read back"),
        ("armedAt", "armed"),
    )
    return [(g["kind"], next((word for name, word in states if name in g), ""), g.get("firesAt", "")) for g in predicate["guards"]]


def titled(title: str, rows: list[str]) -> list[str]:
    return [title, *(f"  {row}" for row in rows), ""] if rows else []


def table(head: Sequence[str], rows: Iterable[Row]) -> list[str]:
    """Aligned lines, or none when there is nothing to show. Numbers stand at the right of their column."""
    body = [[words.text(value, WIDEST) for value in row] for row in rows]
    if not body:
        return []
    lines = [list(head), *body] if any(head) else body
    widths = [max(width(line[n]) for line in lines) for n in range(len(body[0]))]
    right = [all(_number(row[n]) for row in body) for n in range(len(body[0]))]
    return ["  ".join(_pad(cell, widths[n], right[n]) for n, cell in enumerate(line)).rstrip() for line in lines]


def width(text: str) -> int:
    """Screen cells: East Asian wide characters take two, combining marks none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, size: int, right: bool) -> str:
    blank = " " * (size - width(text))
    return blank + text if right else text + blank


def _number(text: str) -> bool:
    return text in ("", measured.DASH, "unknown", "no bound") or text.lstrip("-").replace(".", "", 1).isdigit()
