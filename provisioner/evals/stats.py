"""Samples to figures: pure, exact, all integers, each with its unit in its name.

Every figure is over the *measured* samples: warm-up is left out, everything else that was sent is in. A request that
failed has no latency; in a percentile it counts as slower than any that succeeded, so a server cannot look fast by
failing. A figure that cannot be had is not there: `absent` holds its name and why. A percentile needs ten samples
beyond it: p50 needs 20, p90 100, p95 200 and p99 1000.

Latency counts from `intended_ns`: in the closed loop that is the send of the request's last byte, in the open loop the
instant at which the request was due, so that a stalled client cannot hide a stalled server. Two vantages are never
mixed: `figures` refuses them, and `tunnel_cost` is a difference of medians.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Any

from provisioner.evals.cases import Case
from provisioner.evals.samples import Sample
from provisioner.evals.score import Score

PERCENTILES = (500, 900, 950, 990)  # in per mille
BEYOND = 10  # samples that must lie beyond a percentile
LATENCIES = ("ttft", "itl", "tpot", "e2e")
_TINY = Decimal("1e-30")
_Z = Decimal("1.959963984540054")  # the normal distribution's 97.5 % point


@dataclass(frozen=True)
class Absent:
    """A figure that could not be had, and why. Never zero."""

    why: str


Figure = int | Absent


def ttft_ns(sample: Sample) -> int:
    """Time to first token: first content chunk - intended. An empty role chunk is no content; reasoning is."""
    return sample.chunks[0][0] - sample.intended_ns


def e2e_ns(sample: Sample) -> int:
    """End to end: last content chunk - intended."""
    return sample.chunks[-1][0] - sample.intended_ns


def itl_ns(sample: Sample) -> list[int]:
    """Inter-token latency: the gaps between successive content chunks (a chunk may hold several tokens, see tokensPerMilleChunks)."""
    return [after[0] - before[0] for before, after in zip(sample.chunks, sample.chunks[1:], strict=False)]


def tpot_ns(sample: Sample) -> int | None:
    """Time per output token: (last chunk - first chunk) / (output tokens - 1), rounded down. None below two tokens or without usage."""
    if sample.tokens_out is None or sample.tokens_out < 2:
        return None
    return (sample.chunks[-1][0] - sample.chunks[0][0]) // (sample.tokens_out - 1)


def percentile(values: Sequence[int], per_mille: int, failures: int = 0) -> Figure:
    """By rank with linear interpolation over all sent: position (n-1)*p among the sorted values, failures after all values."""
    n = len(values) + failures
    if n * (1000 - per_mille) < BEYOND * 1000:
        return Absent(f"needs {-(-BEYOND * 1000 // (1000 - per_mille))} samples; there are {n}")
    low, part = divmod((n - 1) * per_mille, 1000)
    high = low + 1 if part else low
    if high >= len(values):
        return Absent(f"falls among the {failures} of {n} that failed")
    ordered = sorted(values)
    return (ordered[low] * (1000 - part) + ordered[high] * part + 500) // 1000


def milli_tokens_per_s(samples: Sequence[Sample]) -> Figure:
    """Output tokens of whole answers / (first send .. last content chunk), in thousandths. Ramp-up and ramp-down are in."""
    good = _good(samples)
    if not good:
        return Absent("no request succeeded")
    if unknown := sum(s.tokens_out is None for s in good):
        return Absent(f"{unknown} of {len(good)} answers came without a token count")
    span = max(s.chunks[-1][0] for s in good) - min(s.sent_ns for s in samples)
    return _per_s(sum(s.tokens_out or 0 for s in good), span)


def steady_milli_tokens_per_s(samples: Sequence[Sample]) -> Figure:
    """As above between the first and the last instant of greatest concurrency: ramp-up and ramp-down are out.

    A request's tokens are spread evenly over its chunks. Absent when that window is under half of the whole span.
    """
    good = _good(samples)
    if not good:
        return Absent("no request succeeded")
    if unknown := sum(s.tokens_out is None for s in good):
        return Absent(f"{unknown} of {len(good)} answers came without a token count")
    begin, end = _steady(samples)
    span = max(s.done_ns for s in samples) - min(s.sent_ns for s in samples)
    if 2 * (end - begin) < span:
        return Absent(f"greatest concurrency lasted {end - begin} ns of {span} ns; at least half is needed")
    milli = sum((s.tokens_out or 0) * 1000 * sum(begin < at <= end for at, _ in s.chunks) // len(s.chunks) for s in good)
    return _per_s(milli, end - begin, milli=1)


def milli_requests_per_s(samples: Sequence[Sample]) -> Figure:
    """Whole answers / (first send .. last end), in thousandths."""
    return _per_s(len(_good(samples)), max(s.done_ns for s in samples) - min(s.sent_ns for s in samples))


def errors_per_mille(samples: Sequence[Sample]) -> int:
    """Requests that ended in an error / requests sent, rounded up."""
    return -(-1000 * sum(s.error is not None for s in samples) // len(samples))


def meets(sample: Sample, objectives: Mapping[str, int]) -> bool:
    """Did one request succeed within every objective? Objectives: ttft, tpot, e2e and itl (its greatest gap), in ns."""
    if sample.error is not None:
        return False
    got = {"ttft": ttft_ns(sample), "e2e": e2e_ns(sample), "tpot": tpot_ns(sample), "itl": max(itl_ns(sample), default=0)}
    return all((got[name] or 0) <= limit for name, limit in objectives.items())


def goodput(samples: Sequence[Sample], objectives: Mapping[str, int]) -> tuple[Figure, Figure]:
    """Requests that meet every objective: per mille of those sent (rounded down), and per second in thousandths."""
    if not objectives:
        return Absent("no objectives were given"), Absent("no objectives were given")
    met = sum(meets(s, objectives) for s in samples)
    span = max(s.done_ns for s in samples) - min(s.sent_ns for s in samples)
    return 1000 * met // len(samples), _per_s(met, span)


def accuracy(scores: Sequence[Score]) -> dict[str, int]:
    """Right / scored, rounded down, and its 95 % Wilson interval, rounded outwards; all in per mille.

    Repeats of a case are not independent: the interval's n is the number of cases, the proportion is over all.
    """
    sent, right, n = len(scores), sum(s.ok for s in scores), len({s.case for s in scores})
    low, high = wilson(right, sent, n)
    return {
        "right": right,
        "scored": sent,
        "accuracyPerMille": 1000 * right // sent,
        "accuracyLowPerMille": low,
        "accuracyHighPerMille": high,
    }


def wilson(right: int, sent: int, n: int | None = None) -> tuple[int, int]:
    """The 95 % Wilson score interval of right/sent as if from n trials, in per mille, rounded outwards."""
    with localcontext() as context:
        context.prec = 40
        size, p, z2 = Decimal(n or sent), Decimal(right) / sent, _Z * _Z
        middle = p + z2 / (2 * size)
        half = _Z * (p * (1 - p) / size + z2 / (4 * size * size)).sqrt()
        scale = 1000 / (1 + z2 / size)
        low, high = (middle - half) * scale, (middle + half) * scale
        # The square root is rounded in its 40th digit; a bound that is exactly 0 or 1000 must stay so.
        floor, ceiling = (low + _TINY).to_integral_value(ROUND_FLOOR), (high - _TINY).to_integral_value(ROUND_CEILING)
        return max(0, int(floor)), min(1000, int(ceiling))


def json_valid_per_mille(scores: Sequence[Score]) -> Figure:
    """Samples of JSON cases whose answer is JSON (whatever it says) / all samples of JSON cases, rounded down."""
    asked = [flags for s in scores if (flags := _json(s)) is not None]
    return 1000 * sum(asked) // len(asked) if asked else Absent("no case asks for JSON")


def json_valid_after_retry_per_mille(scores: Sequence[Score]) -> Figure:
    """JSON cases of which one of the first two samples is JSON / JSON cases with two samples, rounded down. Measured, not modelled."""
    tries: dict[str, list[bool]] = {}
    for s in sorted(scores, key=lambda s: s.n):
        if (valid := _json(s)) is not None:
            tries.setdefault(s.case, []).append(valid)
    twice = [any(flags[:2]) for flags in tries.values() if len(flags) >= 2]
    return 1000 * sum(twice) // len(twice) if twice else Absent("no JSON case was asked twice")


def figures(
    samples: Sequence[Sample], scores: Sequence[Score] = (), *, cases: Sequence[Case] = (), objectives: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """All of it for one vantage. `cases` gives the tags; `objectives` (ns) make goodput."""
    if len(vantages := {s.vantage for s in samples}) > 1:
        raise ValueError(f"samples of {len(vantages)} vantages are never mixed: {sorted(vantages)}")
    measured = [s for s in samples if not s.warmup]
    said: dict[str, Any] = {"sent": len(measured), "warmup": len(samples) - len(measured)}
    absent: dict[str, str] = {}
    if not measured:
        return {**said, "absent": {"all": "no request was sent"}}
    good = _good(measured)
    failed = len(measured) - len(good)
    said |= {"succeeded": len(good), "failed": failed, "errorsPerMille": errors_per_mille(measured)}
    said["errorCodes"] = dict(sorted(Counter(s.code or "" for s in measured if s.error is not None).items()))
    figures: dict[str, Figure] = {}
    values = {
        "ttft": ([ttft_ns(s) for s in good], failed),
        "itl": ([gap for s in good for gap in itl_ns(s)], 0),
        "tpot": ([t for s in good if (t := tpot_ns(s)) is not None], failed),
        "e2e": ([e2e_ns(s) for s in good], failed),
        "connect": ([s.connect_ns for s in measured], 0),
        "sendLag": ([s.sent_ns - s.intended_ns for s in measured], 0),
    }
    for name, (numbers, failures) in values.items():
        for per_mille in PERCENTILES:
            figures[f"{name}P{per_mille // 10}Ns"] = percentile(numbers, per_mille, failures)
    figures["outputMilliTokensPerS"] = milli_tokens_per_s(measured)
    figures["steadyOutputMilliTokensPerS"] = steady_milli_tokens_per_s(measured)
    figures["milliRequestsPerS"] = milli_requests_per_s(measured)
    figures["goodPerMille"], figures["goodMilliRequestsPerS"] = goodput(measured, objectives or {})
    counted = [s for s in good if s.tokens_out is not None]
    said |= {"tokensIn": sum(s.tokens_in or 0 for s in good), "tokensOut": sum(s.tokens_out or 0 for s in good)}
    chunks = sum(len(s.chunks) for s in counted)
    figures["milliTokensPerChunk"] = 1000 * sum(s.tokens_out or 0 for s in counted) // chunks if chunks else Absent("no token counts")
    figures["jsonValidPerMille"] = json_valid_per_mille(scores)
    figures["jsonValidAfterRetryPerMille"] = json_valid_after_retry_per_mille(scores)
    if scores:
        said |= accuracy(scores)
        tags = {case.id: case.tags for case in cases}
        each = sorted({tag for s in scores for tag in tags.get(s.case, ())})
        said["tags"] = {tag: accuracy([s for s in scores if tag in tags.get(s.case, ())]) for tag in each}
    else:
        absent["accuracyPerMille"] = "nothing was scored"
    for name, figure in figures.items():
        if isinstance(figure, Absent):
            absent[name] = figure.why
        else:
            said[name] = figure
    return {**said, "absent": absent}


def tunnel_cost(host: Mapping[str, Any], tunnel: Mapping[str, Any]) -> dict[str, Any]:
    """What the tunnel adds, as the difference of the vantages' medians (tunnel - host); it may be negative on a noisy line."""
    said: dict[str, Any] = {}
    absent: dict[str, str] = {}
    for name in (f"{latency}P50Ns" for latency in LATENCIES):
        for vantage, seen in (("host", host), ("tunnel", tunnel)):
            if name not in seen:
                absent.setdefault(name, f"{vantage}: {seen.get('absent', {}).get(name, 'not measured')}")
        if name not in absent:
            said[name] = tunnel[name] - host[name]
    return {**said, "absent": absent}


def _good(samples: Sequence[Sample]) -> list[Sample]:
    return [s for s in samples if s.error is None]


def _per_s(count: int, span_ns: int, milli: int = 1000) -> Figure:
    return count * milli * 1_000_000_000 // span_ns if span_ns > 0 else Absent("all of it at one instant")


def _json(score: Score) -> bool | None:
    flags = [c.json for c in score.checks if c.json is not None]
    return all(flags) if flags else None


def _steady(samples: Sequence[Sample]) -> tuple[int, int]:
    """The first and the last instant at which as many requests were under way as ever were."""
    moves = sorted([(s.done_ns, -1) for s in samples] + [(s.sent_ns, 1) for s in samples])
    under_way = greatest = begin = end = 0
    for at, change in moves:
        if under_way == greatest and change < 0:
            end = at
        under_way += change
        if under_way > greatest:
            greatest, begin = under_way, at
    return begin, end
