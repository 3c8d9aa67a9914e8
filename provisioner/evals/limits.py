"""Thresholds against figures: what a profile asks for, and whether it was seen.

A threshold that could not be measured is not met; the reason is the figure's own. Accuracy, errors and JSON must hold
at every vantage that was measured, and the worst is shown. Speed is judged at the host's vantage when there is one,
else at the tunnel's; the two are never mixed. Where a run was cut short the figure is over what it did ask, says how much
that was, and keeps no threshold: the first cases are no sample of all of them. Limits and figures are exact
decimals in the unit the name ends in, written as text, because a percentage may have a fraction and a float may not be signed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from provisioner.errors import UsageError
from provisioner.evals.stats import LATENCIES, PERCENTILES

Limit = int | str | Decimal


@dataclass(frozen=True)
class Threshold:
    figure: str  # the name in `stats.figures`
    per: int  # figure units per threshold unit
    at_least: bool
    everywhere: bool  # judged at every vantage


THRESHOLDS: dict[str, Threshold] = {
    "accuracy_percent": Threshold("accuracyPerMille", 10, at_least=True, everywhere=True),
    "error_percent": Threshold("errorsPerMille", 10, at_least=False, everywhere=True),
    "json_valid_percent": Threshold("jsonValidPerMille", 10, at_least=True, everywhere=True),
    "goodput_percent": Threshold("goodPerMille", 10, at_least=True, everywhere=False),
    "tokens_per_s": Threshold("outputMilliTokensPerS", 1000, at_least=True, everywhere=False),
    "requests_per_s": Threshold("milliRequestsPerS", 1000, at_least=True, everywhere=False),
} | {
    f"{latency}_p{per_mille // 10}_ms": Threshold(f"{latency}P{per_mille // 10}Ns", 1_000_000, at_least=False, everywhere=False)
    for latency in LATENCIES
    for per_mille in PERCENTILES
}


def known(name: str) -> None:
    """Raise UsageError for a threshold that is none, with the nearest that is."""
    if name not in THRESHOLDS:
        near = difflib.get_close_matches(name, THRESHOLDS, 1)
        raise UsageError(
            f"there is no threshold {name[:60]!r}", why=f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(THRESHOLDS)}"
        )


def decimal(name: str, value: Limit) -> Decimal:
    """The limit as an exact number, or UsageError."""
    try:
        number = Decimal(value)
    except (InvalidOperation, TypeError, ValueError):
        number = Decimal("NaN")
    if isinstance(value, bool | float) or not number.is_finite() or number < 0 or abs(number.adjusted()) > 20:
        raise UsageError(f"the threshold {name} is {str(value)[:40]!r}", why='a number of 0 or more is needed, like 50 or "99.5"')
    return number


def judge(
    thresholds: Mapping[str, Limit], figures: Mapping[str, Mapping[str, Any]], asked: Mapping[str, tuple[int, int]] | None = None
) -> list[dict[str, Any]]:
    """One line per threshold: {name, limit, got, ok, why, vantage}. `figures` is by vantage; `got` is None when not measured.

    `asked` is for a run that was cut short: by vantage, how many requests of how many. Each line then has `over`, like "3 of 32",
    and is not ok.
    """
    if asked is None:
        return [_judge(name, limit, figures) for name, limit in thresholds.items()]
    return [_cut_short(name, limit, figures, asked) for name, limit in thresholds.items()]


def objectives(thresholds: Mapping[str, Limit]) -> dict[str, int]:
    """The latency thresholds as objectives for single requests, in ns: the strictest of each kind. For goodput."""
    found: dict[str, int] = {}
    for name, limit in thresholds.items():
        known(name)
        latency = name.partition("_")[0]
        if latency in LATENCIES:
            ns = int(decimal(name, limit) * 1_000_000)
            found[latency] = min(ns, found.get(latency, ns))
    return found


def _judge(name: str, limit: Limit, figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    known(name)
    wanted, rule = decimal(name, limit), THRESHOLDS[name]
    vantages = _judged_at(rule, figures)
    said = {"name": name, "limit": format(wanted, "f"), "got": None, "ok": False, "why": "nothing was measured", "vantage": None}
    seen: list[tuple[Decimal, str]] = []
    for vantage in vantages:
        figure = figures[vantage].get(rule.figure)
        if figure is None:
            absent = figures[vantage].get("absent", {})
            return {**said, "vantage": vantage, "why": f"not measured: {absent.get(rule.figure) or absent.get('all') or 'no such figure'}"}
        seen.append((Decimal(figure) / rule.per, vantage))
    if not seen:
        return said
    got, vantage = min(seen) if rule.at_least else max(seen)
    ok = got >= wanted if rule.at_least else got <= wanted
    why = "" if ok else f"{format(got, 'f')} is {'below' if rule.at_least else 'above'} {format(wanted, 'f')}"
    return {**said, "got": format(got, "f"), "ok": ok, "why": why, "vantage": vantage}


def _cut_short(name: str, limit: Limit, figures: Mapping[str, Mapping[str, Any]], asked: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    known(name)
    vantages = _judged_at(THRESHOLDS[name], asked)
    begun = {vantage: figures[vantage] for vantage in vantages if vantage in figures}
    # A vantage whose turn had not come takes nothing from one where something was measured.
    judged = _judge(name, limit, {v: seen for v, seen in begun.items() if THRESHOLDS[name].figure in seen} or begun)
    counts = [asked[vantage] for vantage in vantages]
    over = f"{sum(n for n, _ in counts)} of {sum(of for _, of in counts)}"
    why = judged["why"] if judged["got"] is None else f"the run was cut short: {over} requests"
    return {**judged, "ok": False, "why": why, "over": over}


def _judged_at(rule: Threshold, vantages: Iterable[str]) -> list[str]:
    each = list(vantages)
    first = "host" if "host" in each else "tunnel"
    return each if rule.everywhere else [first] if first in each else each[:1]
