"""Figures from samples: against a second, independent way to reach them, and absent rather than wrong."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.errors import UsageError
from provisioner.evals import limits, stats
from provisioner.evals.cases import Case
from provisioner.evals.score import Checked, Score
from provisioner.evals.stats import Absent
from provisioner.evidence import measured
from tests.evals.made import MS, sample


@given(st.lists(st.integers(0, 10**12), min_size=20, max_size=300), st.sampled_from(stats.PERCENTILES))
def test_percentiles_agree_with_the_standard_library(values: list[int], per_mille: int) -> None:
    got = stats.percentile(values, per_mille)
    if len(values) * (1000 - per_mille) < 10_000:
        assert isinstance(got, Absent)
    else:
        assert isinstance(got, int)
        exact = statistics.quantiles(map(int, values), n=1000, method="inclusive")[per_mille - 1]
        assert math.isclose(got, exact, rel_tol=1e-12, abs_tol=0.5001)


@pytest.mark.parametrize("per_mille, needed", [(500, 20), (900, 100), (950, 200), (990, 1000)])
def test_a_percentile_needs_ten_samples_beyond_it(per_mille: int, needed: int) -> None:
    assert isinstance(stats.percentile([1] * needed, per_mille), int)
    assert stats.percentile([1] * (needed - 1), per_mille) == Absent(f"needs {needed} samples; there are {needed - 1}")


def test_a_failed_request_is_slower_than_any_that_succeeded() -> None:
    values = list(range(60))
    assert stats.percentile(values, 500, failures=40) == 50  # halfway between the 50th and the 51st of 100: 49.5, rounded
    assert stats.percentile(values, 500, failures=60) == Absent("falls among the 60 of 120 that failed")


def test_each_latency_is_its_formula() -> None:
    one = sample(sent=100, ttft=10, gaps=(4, 6), tokens=5)
    assert (stats.ttft_ns(one), stats.e2e_ns(one), stats.itl_ns(one), stats.tpot_ns(one)) == (10, 20, [4, 6], 10 // 4)
    late = sample(sent=100, ttft=10, gaps=(), intended_ns=70)
    assert (stats.ttft_ns(late), stats.e2e_ns(late), stats.itl_ns(late), stats.tpot_ns(late)) == (40, 40, [], None)


def test_throughput_counts_whole_answers_from_the_first_send_to_the_last_chunk() -> None:
    two = [sample(sent=0, ttft=MS, gaps=(MS,)), sample(sent=2 * MS, ttft=MS, gaps=(MS,), case="b")]
    broken = sample(sent=MS, error="reset: x", case="c", done_ns=3 * MS)
    assert stats.milli_tokens_per_s([*two, broken]) == 4 * 1000 * 1_000_000_000 // (4 * MS)
    assert stats.milli_requests_per_s([*two, broken]) == 2 * 1000 * 1_000_000_000 // (4 * MS)
    assert stats.milli_tokens_per_s([*two, sample(tokens=None)]) == Absent("1 of 3 answers came without a token count")
    assert stats.milli_tokens_per_s([broken]) == Absent("no request succeeded")


def test_the_steady_part_leaves_out_ramp_up_and_ramp_down() -> None:
    # Two workers; the second starts late and the first ends early: both are busy from 10 to 30 ms only.
    first = sample(sent=0, ttft=10 * MS, gaps=(10 * MS, 10 * MS))
    second = sample(sent=10 * MS, ttft=10 * MS, gaps=(10 * MS, 10 * MS), case="b")
    # first: chunks at 10, 20, 30; second: at 20, 30, 40. In (10, 30]: four of the six tokens.
    assert stats.steady_milli_tokens_per_s([first, second]) == 4 * 1000 * 1_000_000_000 // (20 * MS)
    brief = [sample(sent=0, gaps=(100 * MS,)), sample(sent=0, gaps=(), case="b")]
    assert isinstance(stats.steady_milli_tokens_per_s(brief), Absent)


def test_goodput_is_what_meets_every_objective() -> None:
    fast, slow, broken = sample(ttft=5 * MS), sample(ttft=50 * MS), sample(error="timeout: x")
    assert [stats.meets(s, {"ttft": 10 * MS, "itl": 5 * MS}) for s in (fast, slow, broken)] == [True, False, False]
    assert stats.meets(fast, {"e2e": 10 * MS, "tpot": 5 * MS}) and not stats.meets(fast, {"itl": MS})
    assert stats.goodput([fast, slow, broken], {"ttft": 10 * MS})[0] == 333
    assert stats.goodput([fast], {}) == (Absent("no objectives were given"),) * 2


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_interval_agrees_with_floating_point(pair: tuple[int, int]) -> None:
    right, n = pair
    low, high = stats.wilson(right, n)
    z, p = statistics.NormalDist().inv_cdf(0.975), right / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert low <= 1000 * right / n <= high
    assert low == max(0, math.floor(1000 * (middle - half) + 1e-9)) and high == min(1000, math.ceil(1000 * (middle + half) - 1e-9))


def scored(case: str, ok: bool, n: int = 0, json: bool | None = None) -> Score:
    return Score(case, n, "host", ok, (Checked("json_schema" if json is not None else "exact", ok, "", json),))


def test_accuracy_has_an_interval_and_repeats_do_not_narrow_it() -> None:
    once = stats.accuracy([scored(f"c{i}", i < 20) for i in range(30)])
    thrice = stats.accuracy([scored(f"c{i}", i < 20, n) for i in range(30) for n in range(3)])
    assert once == {"right": 20, "scored": 30, "accuracyPerMille": 666, "accuracyLowPerMille": 487, "accuracyHighPerMille": 808}
    assert thrice == {**once, "right": 60, "scored": 90}


def test_json_validity_is_of_the_samples_and_after_one_retry() -> None:
    tries = [
        scored("a", True, 0, True),
        scored("a", False, 1, False),
        scored("b", False, 2, False),
        scored("b", True, 3, True),
        scored("x", False),
    ]
    assert stats.json_valid_per_mille(tries) == 500 and stats.json_valid_after_retry_per_mille(tries) == 1000
    assert stats.json_valid_after_retry_per_mille(tries[:1]) == Absent("no JSON case was asked twice")
    assert stats.json_valid_per_mille([scored("x", True)]) == Absent("no case asks for JSON")


def many(n: int, errors: int = 0, vantage: str = "host", **more: Any) -> list[Any]:
    made = [sample(sent=i * 20 * MS, n=i, case=f"c{i}", vantage=vantage, **more) for i in range(n)]
    return made + [sample(sent=i * MS, n=n + i, case=f"e{i}", vantage=vantage, error="http-500: x") for i in range(errors)]


def test_all_figures_are_integers_and_what_cannot_be_had_says_why() -> None:
    cases = [Case(f"c{i}", (), (), ("even",) if i % 2 == 0 else ("odd",)) for i in range(30)]
    got = stats.figures([*many(30, 2), sample(warmup=True)], [scored(f"c{i}", i % 2 == 0) for i in range(30)], cases=cases)
    assert (got["sent"], got["succeeded"], got["failed"], got["warmup"], got["errorCodes"]) == (32, 30, 2, 1, {"http-500": 2})
    assert (got["ttftP50Ns"], got["errorsPerMille"], got["accuracyPerMille"]) == (10 * MS, 63, 500)
    assert got["tags"]["even"]["accuracyPerMille"] == 1000 and got["tags"]["odd"]["accuracyPerMille"] == 0
    assert got["absent"]["ttftP95Ns"] == "needs 200 samples; there are 32" and "ttftP95Ns" not in got

    def whole(value: Any) -> bool:
        return all(map(whole, value.values())) if isinstance(value, dict) else isinstance(value, int | str) and not isinstance(value, bool)

    assert whole(got)


def test_vantages_are_never_mixed_and_their_difference_is_of_medians() -> None:
    host, tunnel = many(20), many(20, vantage="tunnel", ttft=13 * MS)
    with pytest.raises(ValueError, match="never mixed"):
        stats.figures(host + tunnel)
    cost = stats.tunnel_cost(stats.figures(host), stats.figures(tunnel))
    assert (cost["ttftP50Ns"], cost["itlP50Ns"], cost["e2eP50Ns"], cost["absent"]) == (3 * MS, 0, 3 * MS, {})
    assert stats.tunnel_cost(stats.figures(host[:5]), stats.figures(tunnel))["absent"]["ttftP50Ns"] == "host: needs 20 samples; there are 5"


def test_nothing_sent_is_nothing_known() -> None:
    assert stats.figures([sample(warmup=True)]) == {"sent": 0, "warmup": 1, "absent": {"all": "no request was sent"}}


FIGURES = {
    "host": stats.figures(many(200, ttft=12_345_678), [scored(f"c{i}", i < 180) for i in range(200)]),
    "tunnel": stats.figures(many(200, 2, "tunnel"), [scored(f"c{i}", i < 170) for i in range(200)]),
}


@pytest.mark.parametrize(
    "name, limit, ok, got, vantage",
    [
        ("ttft_p50_ms", 12, False, "12.345678", "host"),
        ("ttft_p95_ms", "12.345678", True, "12.345678", "host"),
        ("accuracy_percent", 85, True, "85", "tunnel"),
        ("accuracy_percent", "85.1", False, "85", "tunnel"),
        ("error_percent", 0, False, "1", "tunnel"),
        ("error_percent", 1, True, "1", "tunnel"),
        ("tokens_per_s", 1, True, None, "host"),
        ("ttft_p99_ms", 10_000, False, None, "host"),
        ("goodput_percent", 0, False, None, "host"),
        ("json_valid_percent", 0, False, None, "host"),
    ],
)
def test_a_threshold_is_met_only_by_what_was_measured(name: str, limit: Any, ok: bool, got: str | None, vantage: str) -> None:
    (line,) = limits.judge({name: limit}, FIGURES)
    assert (line["ok"], line["vantage"], line["limit"]) == (ok, vantage, str(limit))
    assert got is None or line["got"] == got
    assert line["ok"] == (line["why"] == "")


def test_a_threshold_that_could_not_be_measured_says_why() -> None:
    assert limits.judge({"ttft_p99_ms": 1}, FIGURES)[0]["why"] == "not measured: needs 1000 samples; there are 200"
    assert limits.judge({"error_percent": 1}, {})[0] == {
        "name": "error_percent", "limit": "1", "got": None, "ok": False, "why": "nothing was measured", "vantage": None
    }  # fmt: skip
    nothing = {"host": stats.figures([])}
    assert limits.judge({"error_percent": 1}, nothing)[0]["why"] == "not measured: no request was sent"


CUT_SHORT = {"host": {"accuracyPerMille": 900, "ttftP50Ns": 5}, "tunnel": {"sent": 0, "absent": {"all": "no request was sent"}}}


@pytest.mark.parametrize(
    ("name", "asked", "got", "over"),
    [
        ("accuracy_percent", {"host": (3, 32)}, "90", "3 of 32"),
        ("accuracy_percent", {"host": (32, 32), "tunnel": (0, 32)}, "90", "32 of 64"),
        ("ttft_p50_ms", {"host": (32, 32), "tunnel": (0, 32)}, "0.000005", "32 of 32"),
        ("ttft_p90_ms", {"host": (32, 32), "tunnel": (0, 32)}, None, "32 of 32"),
        ("error_percent", {"tunnel": (0, 32)}, None, "0 of 32"),
    ],
)
def test_in_a_run_that_was_cut_short_a_threshold_says_over_how_much_and_is_not_kept(
    name: str, asked: dict[str, tuple[int, int]], got: str | None, over: str
) -> None:
    (line,) = limits.judge({name: 50}, CUT_SHORT, asked)
    assert (line["got"], line["over"], line["ok"]) == (got, over, False) and line["why"]
    ((_, _, measured_, kept),) = measured.thresholds({"thresholds": [line]})
    assert kept == "NO" and measured_ == f"{got or 'not measured'}, over {over} requests"


def test_cut_short_before_the_host_was_asked_speed_is_not_judged_through_the_tunnel() -> None:
    (line,) = limits.judge({"ttft_p50_ms": 50}, {"tunnel": CUT_SHORT["host"]}, {"tunnel": (32, 32), "host": (0, 32)})
    assert (line["got"], line["over"], line["why"]) == (None, "0 of 32", "nothing was measured")


def test_a_threshold_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="no threshold 'ttft_p95'") as refused:
        limits.judge({"ttft_p95": 1}, {})
    assert "did you mean" in refused.value.why
    for bad in (-1, "x", 1.5, True, "NaN", "1e99"):
        with pytest.raises(UsageError, match="the threshold error_percent is"):
            limits.judge({"error_percent": bad}, {})  # type: ignore[dict-item]


def test_latency_thresholds_are_the_objectives_of_single_requests() -> None:
    assert limits.objectives({"ttft_p95_ms": 200, "ttft_p50_ms": "99.5", "itl_p99_ms": 20, "error_percent": 0}) == {
        "ttft": 99_500_000,
        "itl": 20_000_000,
    }
