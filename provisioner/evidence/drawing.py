"""Two drawings in SVG: when everything was, and what it cost between which bounds.

Every length is in thousandths of the width, as whole numbers, so the same statement gives the same bytes everywhere.
A bar says what was seen: dark where the machine was seen to run, light where it may have. This file must not know
where the drawing is shown; text in it is escaped here.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

from provisioner.evidence import words
from provisioner.evidence.canonical import milliseconds, rfc3339

ROW = 38
MOST = 16
"""Bars of one kind; more would be a poster, and the tables have them all."""


def timeline(predicate: dict[str, Any]) -> str:
    """One bar for each machine, one for each guard, and a dot for each look."""
    run = predicate["run"]
    times = sorted(at for at in map(milliseconds, _times(predicate)) if at is not None)
    begin, end = times[0], max(times[-1], times[0] + 1000)
    axis = _Axis(begin, end)
    rows = [*_machines(predicate, axis), *_guards(predicate, axis), *_looks(predicate, axis)]
    parts = [f'<svg height="{len(rows) * ROW + 24}" role="img" aria-label="timeline of {_text(run["id"])}">']
    for n, (label, marks) in enumerate(rows):
        y = n * ROW
        parts.append(f'<text x="0" y="{y + 12}">{_text(label, 160)}</text><rect class="base" x="0" y="{y + 20}" width="100%" height="2"/>')
        parts += [mark.replace("{y}", str(y + 16)).replace("{c}", str(y + 21)) for mark in marks]
    y = len(rows) * ROW + 14
    parts.append(f'<text class="dim" x="0" y="{y}">{rfc3339(begin)[11:19]} UTC</text>')
    parts.append(f'<text class="dim" x="100%" y="{y}" text-anchor="end">{rfc3339(end)[11:19]} UTC</text></svg>')
    return "".join(parts)


def cost(predicate: dict[str, Any]) -> str:
    """From nothing to the most it can have cost or to the budget, whichever is more; without an upper bound, no bar."""
    figures = predicate["cost"]
    lo, best, hi = figures["totalLoMicroUsd"], figures.get("totalBestMicroUsd"), figures.get("totalHiMicroUsd")
    budget = predicate["run"].get("budgetMicroUsd")
    if hi is None or best is None:
        return ""
    axis = _Axis(0, max(hi, budget or 0, 1))
    said = f"{words.usd(lo, up=False)} to {words.usd(hi)} USD"
    parts = [
        f'<svg height="58" role="img" aria-label="cost: {said}"><text x="0" y="12">{said}, best guess {words.usd(best)}</text>',
        '<rect class="base" x="0" y="20" width="100%" height="12"/>',
        _bar("ran", axis, 0, lo, 20, 12),
        _bar("maybe", axis, lo, hi, 20, 12),
        f'<line class="rule" x1="{axis.at(best)}" x2="{axis.at(best)}" y1="17" y2="35"/>',
        '<text class="dim" x="0" y="50">0</text>',
    ]
    if budget:
        parts.append(f'<line class="cap" x1="{axis.at(budget)}" x2="{axis.at(budget)}" y1="15" y2="37"/>')
    last = f"budget {words.usd(budget, up=False)} USD" if budget and budget >= hi else f"{words.usd(hi)} USD"
    parts.append(f'<text class="dim" x="100%" y="50" text-anchor="end">{last}</text></svg>')
    return "".join(parts)


class _Axis:
    def __init__(self, begin: int, end: int) -> None:
        self.begin, self.end = begin, end

    def share(self, value: int) -> int:
        return min(max((value - self.begin) * 10_000 // (self.end - self.begin), 0), 10_000)

    def at(self, value: int) -> str:
        return _percent(self.share(value))


def _percent(share: int) -> str:
    return f"{share // 100}.{share % 100:02d}%"


def _bar(kind: str, axis: _Axis, begin: int, end: int, y: int | str, height: int) -> str:
    # Never thinner than can be seen: what was there for a second of an hour was there.
    wide = max(axis.share(end) - axis.share(begin), 30 if end > begin else 0)
    left = min(axis.share(begin), 10_000 - wide)
    return f'<rect class="{kind}" x="{_percent(left)}" y="{y}" width="{_percent(wide)}" height="{height}"/>'


def _times(predicate: dict[str, Any]) -> Iterator[str]:
    run = predicate["run"]
    yield from (run[name] for name in ("startedAt", "endedAt") if name in run)
    for one in predicate["instances"]:
        yield from (one[name] for name in ("requestedAt", "launchTime", "terminateAcceptedAt", "terminatedFirstSeenAt") if name in one)
    yield from (guard[name] for guard in predicate["guards"] for name in ("armedAt", "removedAt") if name in guard)
    yield from (sweep["at"] for sweep in predicate["sweeps"])


Drawn = tuple[str, list[str]]


def _machines(predicate: dict[str, Any], axis: _Axis) -> Iterator[Drawn]:
    for one in predicate["instances"][:MOST]:
        at = {name: ms for name in one if isinstance(one[name], str) and (ms := milliseconds(one[name])) is not None}
        name = str(one.get("id", one.get("type", "machine")))
        if "id" not in one:
            yield (f"{name}: {'refused' if one.get('answer') == 'failed' else 'answer lost'}", _dot("bad", axis, at.get("requestedAt")))
            continue
        begin = at.get("launchTime", at.get("requestedAt", axis.begin))
        seen = at.get("runningFirstSeenAt")
        stop = at.get("terminateAcceptedAt", at.get("terminatedFirstSeenAt", axis.end))
        gone = at.get("terminatedFirstSeenAt", axis.end)
        marks = [_bar("maybe", axis, begin, gone, "{y}", 10)]
        if seen is not None:
            marks.append(_bar("ran", axis, seen, min(max(stop, seen), gone), "{y}", 10))
        ended = "seen terminated" if "terminatedFirstSeenAt" in at else "not seen terminated"
        yield (f"{name} {one.get('type', '')}: {ended}", marks)
    if len(predicate["instances"]) > MOST:
        yield (f"and {len(predicate['instances']) - MOST} more machines", [])


def _guards(predicate: dict[str, Any], axis: _Axis) -> Iterator[Drawn]:
    for guard in predicate["guards"][:MOST]:
        at = {name: ms for name in guard if isinstance(guard[name], str) and (ms := milliseconds(guard[name])) is not None}
        if "waivedAt" in guard or "failedAt" in guard:
            yield (f"guard {guard['kind']}: {'waived' if 'waivedAt' in guard else 'failed'}", _dot("bad", axis, axis.begin))
            continue
        fires = f", would fire {guard['firesAt'][:19]}Z" if "firesAt" in guard else ""
        begin = at.get("armedAt", at.get("readBackAt"))
        marks = [] if begin is None else [_bar("guard", axis, begin, at.get("removedAt", axis.end), "{y}", 10)]
        yield (f"guard {guard['kind']}{fires}", marks)


def _looks(predicate: dict[str, Any], axis: _Axis) -> Iterator[Drawn]:
    looks = predicate["sweeps"]
    if looks:
        marks = [m for s in looks for m in _dot("bad" if s["found"] or "error" in s else "none", axis, milliseconds(s["at"]))]
        yield ("looks at the account (ring: nothing found)", marks)


def _dot(kind: str, axis: _Axis, at: int | None) -> list[str]:
    return [] if at is None else [f'<circle class="{kind}" cx="{axis.at(at)}" cy="{{c}}" r="5"/>']


def _text(value: object, limit: int = 120) -> str:
    return html.escape(words.text(value, limit))
