"""Rows out of `results.json`, for the report and for the terminal alike; every cell is text, and nothing is recomputed.

The file is bound to the statement by its digest, so what is read here is what was measured or what somebody signed;
it may also be malformed in any way, since it comes with a stranger's bundle. A value of another type than expected is
left out: a report with a hole in it is better than a verifier that falls over.

Whole numbers in, decimal text out. Percentages are cut and never rounded up: 99.96 % is not 100 %. Latency is given to
a tenth of a millisecond. A figure that could not be had is a dash, and its reason is in the list of what is absent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from provisioner.evidence.canonical import Malformed, parse
from provisioner.evidence.history import Nonsense
from provisioner.evidence.messages import problem
from provisioner.model import Json

PERCENTILES = (50, 90, 95, 99)
TIMES = {
    "ttft": "time to first token",
    "itl": "between tokens",
    "tpot": "time per output token",
    "e2e": "whole answer",
    "connect": "connecting",
    "sendLag": "client's own delay",
}
RATES = {
    "outputMilliTokensPerS": "output tokens/s",
    "steadyOutputMilliTokensPerS": "output tokens/s, steady",
    "milliRequestsPerS": "requests/s",
    "goodMilliRequestsPerS": "good requests/s",
}
SHARES = {
    "errorsPerMille": "errors (%)",
    "goodPerMille": "within objectives (%)",
    "jsonValidPerMille": "valid JSON (%)",
    "jsonValidAfterRetryPerMille": "valid JSON after a retry (%)",
}
WHERE = {"host": "on the machine itself", "tunnel": "through the tunnel"}
DASH = "-"

Results = Mapping[str, Any]


def read(results: bytes | None) -> dict[str, Any]:
    """The document, or nothing when there is none that can be read."""
    try:
        value = parse(results) if results is not None else {}
    except Malformed:
        return {}
    return value if isinstance(value, dict) else {}


def vantages(results: Results) -> list[tuple[str, dict[str, Any]]]:
    stats: Any = results.get("stats")
    if not isinstance(stats, dict):
        return []
    return [(name, stats[name]) for name in sorted(stats) if isinstance(stats[name], dict)]


def answers(results: Results) -> list[tuple[str, ...]]:
    """Tag, vantage, answers scored, correct, percent and its 95 % interval; all the cases first."""
    rows: list[tuple[str, ...]] = []
    for vantage, stats in vantages(results):
        rows += _right("(all)", vantage, stats)
        tags: Any = stats.get("tags")
        for tag in sorted(tags) if isinstance(tags, dict) else ():
            rows += _right(tag, vantage, tags[tag])
    return rows


def _right(tag: str, vantage: str, counted: object) -> list[tuple[str, ...]]:
    if not isinstance(counted, dict):
        return []
    right, scored = whole(counted, "right"), whole(counted, "scored")
    if right is None or scored is None:
        return []
    low, high = whole(counted, "accuracyLowPerMille"), whole(counted, "accuracyHighPerMille")
    spread = DASH if low is None or high is None else f"{tenths(low)} to {tenths(high)}"
    return [(tag, vantage, str(scored), str(right), tenths(right * 1000 // scored) if scored else DASH, spread)]


def times(stats: Results) -> list[tuple[str, ...]]:
    """One row for each thing that was timed: its name, then its percentiles in milliseconds."""
    rows = []
    for name, words in TIMES.items():
        cells = [whole(stats, f"{name}P{p}Ns") for p in PERCENTILES]
        if any(value is not None for value in cells) or f"{name}P50Ns" in absent(stats):
            rows.append((words, *(DASH if value is None else ms(value) for value in cells)))
    return rows


def counts(stats: Results) -> list[tuple[str, str]]:
    """The plain numbers of one vantage."""
    rows = [
        (words, str(value))
        for name, words in (("sent", "requests sent"), ("failed", "failed"))
        if (value := whole(stats, name)) is not None
    ]
    rows += [(words, milli(value)) for name, words in RATES.items() if (value := whole(stats, name)) is not None]
    rows += [(words, tenths(value)) for name, words in SHARES.items() if (value := whole(stats, name)) is not None]
    return rows


def absent(stats: Results) -> dict[str, str]:
    """Figures that could not be had, with the reason."""
    said = stats.get("absent")
    return {name: why for name, why in said.items() if isinstance(why, str)} if isinstance(said, dict) else {}


def reasons(stats: Results) -> list[str]:
    """Why there are dashes: each reason once, with the figures it holds for."""
    by_why: dict[str, list[str]] = {}
    for name, why in sorted(absent(stats).items()):
        by_why.setdefault(why, []).append(name)
    return [f"{', '.join(names)}: {why}" for why, names in sorted(by_why.items())]


def tunnel_cost(results: Results) -> list[tuple[str, str]]:
    """What the tunnel adds to each median, where both vantages have one."""
    stats = dict(vantages(results))
    rows = []
    for name in ("ttft", "itl", "tpot", "e2e"):
        ends = [whole(stats.get(vantage, {}), f"{name}P50Ns") for vantage in ("host", "tunnel")]
        if ends[0] is not None and ends[1] is not None:
            rows.append((TIMES[name], ms(ends[1] - ends[0])))
    return rows


def machines(results: Results) -> list[tuple[str, str]]:
    """Id and type of each machine it was measured on, where there was more than one."""
    listed = results.get("machines")
    return (
        [(str(one.get("id", "")), str(one.get("type", ""))) for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    )


def thresholds(results: Results) -> list[tuple[str, str, str, str]]:
    """Name, limit, measured, kept."""
    listed = results.get("thresholds")
    rows = []
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, dict):
            got = "not measured" if one.get("got") is None else str(one["got"])
            if isinstance(over := one.get("over"), str):
                got = f"{got}, over {over} requests"  # the run was cut short
            rows.append(
                (
                    str(one.get("name", "")),
                    str(one.get("limit", "")),
                    got,
                    "yes" if one.get("ok") is True else "NO",
                )
            )
    return rows


def whole(holder: Results, name: str) -> int | None:
    value = holder.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def tenths(per_mille: int) -> str:
    """Per mille as percent."""
    return f"{per_mille // 10}.{per_mille % 10}"


def milli(value: int) -> str:
    """Thousandths, cut to one decimal."""
    return f"{value // 1000}.{value % 1000 // 100}"


def ms(ns: int) -> str:
    """Nanoseconds as milliseconds, cut to one decimal."""
    tenths_of_ms = abs(ns) // 100_000
    sign = "-" if ns < 0 and tenths_of_ms else ""  # no one has measured a negative zero
    return f"{sign}{tenths_of_ms // 10}.{tenths_of_ms % 10}"


def evaluation(results: bytes, digests: Mapping[str, str]) -> dict[str, Json]:
    """What a statement counts of the results, whose digest is among those that it names."""
    digest = hashlib.sha256(results).hexdigest()
    if digests.get("results.json") != digest:
        raise Nonsense(problem("E120", file="results.json", got=digest, want=digests.get("results.json", "nothing about it")))
    scores = scores_of(results)
    ok = sum(score["ok"] for score in scores)
    return {"promptsTotal": len(scores), "ok": ok, "failed": len(scores) - ok, "resultsSha256": digest}


def scores_of(results: bytes) -> list[dict[str, Any]]:
    """The scores in a `results.json`, or `Nonsense` when it holds none that can be counted."""
    try:
        value = parse(results)
    except Malformed as e:
        raise Nonsense(problem("E110", jsonpath="$results", why=str(e))) from None
    scores = value.get("scores") if isinstance(value, dict) else None
    if not isinstance(scores, list) or not all(isinstance(s, dict) and isinstance(s.get("ok"), bool) for s in scores):
        raise Nonsense(problem("E110", jsonpath="$results.scores", why="is not a list of scores with ok"))
    return scores
