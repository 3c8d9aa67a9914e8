"""`report.html`: the statement and the results as one page for a phone, a screen and a sheet of paper.

Like `report.md` it follows from the two files alone and is rendered again and compared by `verify`. It holds no script,
no link and nothing to fetch: its policy allows the one style sheet in it, by hash, and nothing else, so a browser that
met a hole in the escaping would still do nothing. Every value goes through `esc`: cleaned, one line, short, escaped.

The drawings are SVG with lengths in percent, so that they become narrow on a phone and their words stay readable.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from typing import Any

from provisioner.evidence import canonical, drawing, measured, words
from provisioner.evidence.render import BESIDES, ROWS, Row, besides_rows, money_rows, note, timeline_rows
from provisioner.model import Json

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--paper:#fff;--tint:#f6f8fa;
--ok:#1a7f37;--bad:#b42318;--mark:#0b5cad;--band:#9cc6ee;--sans:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9da7b1;--line:#373e47;--paper:#12161b;--tint:#1a2027;
--ok:#57c271;--bad:#ff8a7a;--mark:#79b8ff;--band:#2c5680}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1rem;font:16px/1.5 var(--sans);color:var(--ink);background:var(--paper);overflow-wrap:anywhere}
h1{font-size:1.35rem;line-height:1.25;margin:.25rem 0 .75rem}
h2{font-size:1.05rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--line);padding-bottom:.25rem}
p,ul{margin:.5rem 0}
ul{padding-left:1.2rem}
.verdict{border-left:.4rem solid var(--ok);background:var(--tint);padding:.75rem 1rem;margin:0 0 1rem}
.verdict.open{border-color:var(--bad)}
.verdict p{margin:.35rem 0}
.tier{font-size:1.15rem;font-weight:650}
.sim{border:2px solid var(--bad);color:var(--bad);padding:.5rem .75rem;font-weight:650;margin:0 0 1rem}
.soft{color:var(--soft);font-size:.875rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--line);min-width:4.5rem}
th{font-weight:600;color:var(--soft)}
td,th{overflow-wrap:break-word}
.t{white-space:nowrap}
pre{background:var(--tint);border:1px solid var(--line);padding:.6rem .75rem;margin:.5rem 0;white-space:pre-wrap;
font:.875rem/1.5 ui-monospace,Menlo,Consolas,monospace}
svg{display:block;width:100%;overflow:visible;margin:.75rem 0}
svg text{font:12px var(--sans);fill:var(--ink)}
svg .dim{fill:var(--soft)}
svg .base{fill:var(--line)}
svg .ran{fill:var(--mark)}
svg .maybe{fill:var(--band)}
svg .guard{fill:var(--ok)}
svg .bad{fill:var(--bad)}
svg .rule{stroke:var(--ink);stroke-width:2}
svg .cap{stroke:var(--bad);stroke-width:2}
svg .none{fill:var(--paper);stroke:var(--ok);stroke-width:2}
@media print{
:root{color-scheme:light}
body{max-width:none;padding:0;font-size:10pt;print-color-adjust:exact;-webkit-print-color-adjust:exact}
h2{break-after:avoid}
tr,svg,.verdict{break-inside:avoid}
.wide{overflow:visible}
}
"""
HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{HASH}'; base-uri 'none'; form-action 'none'"


def page(statement: Json, results: bytes | None = None) -> bytes:
    """The page. `results` are the bytes of `results.json`; what cannot be read in them is left out."""
    predicate = statement["predicate"]
    read = measured.read(results)
    run = predicate["run"]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">',
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="referrer" content="no-referrer">',
        f"<title>{esc(run['id'])}: {esc(predicate['verdict'])}</title><style>{STYLE}</style></head><body>",
    ]
    _head(parts, predicate)
    parts += ["<h2>Timeline</h2>", drawing.timeline(predicate), _table(("time (UTC)", "what", "give or take"), timeline_rows(predicate))]
    parts += ["<h2>Cost</h2>", drawing.cost(predicate), *_cost(predicate)]
    _looked(parts, predicate)
    _guards(parts, predicate)
    _evaluation(parts, predicate, read)
    parts += ["<h2>What this does not show</h2><ul>", *(f"<li>{esc(said, 400)}</li>" for said in words.sentences(predicate)), "</ul>"]
    parts += [
        "<h2>Check it</h2><p>Do not believe this page: it is made from a signed statement, and this checks both.</p>",
        f"<pre>gpulease verify {esc(run['id'])}.evidence</pre>",
        "<p class=soft>Without gpulease: the single file verify_shutdown.py, whose hash README.md gives. Journal: "
        f"{predicate['journal']['records']} records, head {predicate['journal']['head']}.</p></body></html>\n",
    ]
    return "\n".join(part for part in parts if part).encode()


def esc(value: object, limit: int = 120) -> str:
    """One harmless line of text in HTML, in an element as in an attribute."""
    return html.escape(words.text(value, limit))


def _table(head: Sequence[str], rows: Iterable[Row]) -> str:
    body = [f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows]
    if not body:
        return "<p>None.</p>"
    more = f"<p class=soft>… and {len(body) - ROWS} more, in the statement.</p>" if len(body) > ROWS else ""
    heads = "".join(map(_cell, head)).replace("<td", "<th").replace("</td>", "</th>")
    return f"<div class=wide><table><thead><tr>{heads}</tr></thead><tbody>{''.join(body[:ROWS])}</tbody></table></div>{more}"


def _cell(value: object) -> str:
    """A time does not break inside its date, which has hyphens; between date and hour it may."""
    if canonical.milliseconds(value) is not None:
        date, _, hour = str(value).partition("T")
        return f"<td><span class=t>{date}</span>T<wbr><span class=t>{hour}</span></td>"
    return f"<td>{esc(value)}</td>"


def _head(parts: list[str], predicate: dict[str, Any]) -> None:
    run = predicate["run"]
    if predicate["simulated"]:
        parts.append(
            "<p class=sim>SIMULATED. A rehearsal on the user’s own computer: no cloud was called, no machine was rented, "
            "nothing was billed.</p>"
        )
    tier, *said = words.first(predicate)
    kind = "" if predicate["clean"] else " open"
    where = ", ".join(esc(run[name]) for name in ("provider", "region", "availabilityZone", "gpu", "purchase") if name in run)
    parts += [
        f"<h1>gpulease run {esc(run['id'])}</h1>",
        f'<div class="verdict{kind}"><p class=tier>{esc(tier, 400)}</p>{"".join(f"<p>{esc(line, 400)}</p>" for line in said)}</div>',
        f"<p class=soft>Profile {esc(run.get('profile', {}).get('name', 'without a name'))} on {where}. "
        f"The run {esc(run.get('outcome', 'has no recorded outcome'))}; verdict {esc(predicate['verdict'])}.</p>",
    ]


def _cost(predicate: dict[str, Any]) -> list[str]:
    cost = predicate["cost"]
    used = "; ".join(sorted({f"{p['component']}: {p['source']}, {p['asOf']}" for p in cost["prices"]})) or "none"
    return [
        _table(("what", "of", "at least (USD)", "best guess", "at most"), money_rows(predicate)),
        f"<p class=soft>Basis: {esc(cost['basis'])}. Prices: {esc(used, 1000)}. Not in it: {esc(', '.join(cost['excluded']), 400)}.</p>",
    ]


def _looked(parts: list[str], predicate: dict[str, Any]) -> None:
    rows = [(r["class"], r.get("id", "(answer lost)"), r.get("region", ""), r["final"], r["firstSeq"]) for r in predicate["resources"]]
    parts += ["<h2>What there was</h2>", _table(("kind", "id", "region", "at the end", "journal record"), rows)]
    parts.append("<h2>What was looked for</h2>")
    looks = predicate["sweeps"][-2:]
    if not looks:
        parts.append("<p>Nobody looked.</p>")
        return
    found = [{(c["class"], ", ".join(c["regions"])): c for c in look["classes"]} for look in looks]
    rows = [
        (kind, where, *(_seen(one.get((kind, where))) for one in found), found[-1].get((kind, where), {}).get("reason", ""))
        for kind, where in dict.fromkeys(key for one in found for key in one)
    ]
    parts.append(_table(("kind", "regions", *(look["at"] for look in looks), "why not"), rows))

    if "unfiltered" in predicate:
        listed = predicate["unfiltered"]
        parts.append(f"<p>Whosever it is, listed {listed['baselineAt']} and {listed.get('at', 'not again')}:</p>")
        parts.append(_table(BESIDES, besides_rows(listed)))


def _seen(looked: dict[str, Any] | None) -> str:
    if looked is None or not looked["checked"]:
        return "not checked"
    return "empty" if not looked["ours"] else f"{looked['ours']} found"


def _guards(parts: list[str], predicate: dict[str, Any]) -> None:
    names = ("armedAt", "readBackAt", "firesAt", "removedAt")
    rows = [(g["kind"], *(g.get(name, "") for name in names), note(g)) for g in predicate["guards"]]
    parts += ["<h2>Guards</h2>", _table(("guard", "armed", "read back", "would fire", "removed", "note"), rows)]


def _evaluation(parts: list[str], predicate: dict[str, Any], results: dict[str, Any]) -> None:
    if "evaluation" in predicate:
        parts += ["<h2>Answers</h2>", f"<p>{esc(words.evaluated(predicate['evaluation']))}</p>"]
        parts.append(_table(("tag", "from", "cases", "correct", "percent", "95 % interval"), measured.answers(results)))
        if rows := measured.thresholds(results):
            parts.append(_table(("threshold", "limit", "measured", "kept"), rows))
    for vantage, stats in measured.vantages(results):
        parts.append(f"<h2>Measured {esc(measured.WHERE.get(vantage, vantage))}</h2>")
        parts.append(_table(("milliseconds", *(f"p{p}" for p in measured.PERCENTILES)), measured.times(stats)))
        parts.append(_table(("count", "value"), measured.counts(stats)))
