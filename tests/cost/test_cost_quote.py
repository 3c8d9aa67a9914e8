"""What it will cost, and how long a budget lasts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost import GUARD_TAIL_SECONDS, Budget, BudgetTooSmall, Line, Price, Quote, own_host, parse, quote

L4 = Price(804_800, "price table", "2026-07-20")


def g6(disk_gib: int = 100) -> Quote:
    return quote(L4, region="us-east-1", disk_gib=disk_gib)


def test_a_quote_names_all_that_is_billed_each_with_its_source_and_day() -> None:
    lines = {line.name: line for line in g6().lines}
    assert list(lines) == ["instance", "disk", "public-ipv4", "egress"]
    assert lines["instance"].micro_usd_per_hour == 804_800 and lines["instance"].as_of == "2026-07-20"
    assert lines["disk"].micro_usd_per_hour == 11_905 and lines["disk"].micro_usd_per_hour_low == 10_752  # facts: about $0.011/h
    assert lines["public-ipv4"].micro_usd_per_hour == 5_000
    assert lines["egress"].micro_usd_per_hour == 0 and lines["egress"].fixed_micro_usd == 8_790
    assert all(line.source and line.as_of for line in lines.values()) and g6().oldest == "2026-07-20"


def test_at_most_includes_the_guard_tail() -> None:
    q = g6()
    assert q.at_most(2700) == q.expected(2700 + GUARD_TAIL_SECONDS) > q.expected(2700)
    assert q.expected(3600) == 804_800 + 11_905 + 5_000 + 8_790


def test_the_record_is_json_without_floats_and_adds_up() -> None:
    record = json.loads(json.dumps(g6().record(600, 2700)), parse_float=lambda text: pytest.fail(f"a float: {text}"))
    assert record["expectedMicroUsd"] == g6().expected(600) and record["atMostMicroUsd"] == g6().at_most(2700)
    assert record["expectedSeconds"] == 600 and record["lines"][0]["name"] == "instance"


def test_a_dollar_on_an_l4_lasts_about_fifty_six_minutes() -> None:
    seconds = Budget(parse("1.00")).seconds(g6())
    assert 3350 < seconds < 3400
    assert g6().at_most(seconds) <= 1_000_000 < g6().at_most(seconds + 2)


def test_the_time_limit_wins_when_it_is_shorter() -> None:
    assert Budget(parse("1.00")).seconds(g6(), limit_seconds=2700) == 2700
    assert Budget(parse("1.00")).seconds(g6(), limit_seconds=86_400) == Budget(parse("1.00")).seconds(g6())


def test_a_budget_too_small_to_boot_says_what_would_do() -> None:
    with pytest.raises(BudgetTooSmall, match=r"\$0\.30 lasts \d+ s at \$0\.821705/h.*need 600 s.*a budget of \$0\.37") as e:
        Budget(parse("0.30")).seconds(g6(), need_seconds=600)
    enough = str(e.value).rpartition("$")[2]
    assert Budget(parse(enough)).seconds(g6(), need_seconds=600) >= 600
    with pytest.raises(BudgetTooSmall, match="time limit is 60 s"):
        Budget(parse("5")).seconds(g6(), limit_seconds=60, need_seconds=600)
    for nothing in ("0", "0.01"):
        with pytest.raises(BudgetTooSmall):
            Budget(parse(nothing)).seconds(g6())


def test_a_host_that_costs_nothing_to_us_lasts_a_week_at_most() -> None:
    assert Budget(0).seconds(own_host(Price(0, "the user says so", "2026-11-21"))) == 7 * 24 * 3600


lines = st.lists(
    st.builds(
        Line, st.just("x"), st.integers(0, 200_000_000), st.just("s"), st.just("2026-01-01"), fixed_micro_usd=st.integers(0, 100_000)
    ),
    min_size=1,
    max_size=6,
)


@given(lines, st.integers(0, 5000), st.integers(0, 10**9), st.one_of(st.none(), st.integers(1, 10**6)), st.integers(0, 4000))
def test_at_most_never_exceeds_the_cap(lines: list[Line], tail: int, cap: int, limit: int | None, need: int) -> None:
    q = Quote(tuple(lines), tail)
    try:
        seconds = Budget(cap).seconds(q, limit_seconds=limit, need_seconds=need)
    except BudgetTooSmall:
        return
    assert q.at_most(seconds) <= cap
    assert seconds >= max(need, 1) and (limit is None or seconds <= limit)


@given(lines, st.integers(0, 5000), st.integers(0, 10**9))
def test_a_budget_is_not_refused_for_lack_of_trying(lines: list[Line], tail: int, cap: int) -> None:
    """What is refused would not have lasted long: one micro-dollar a line of rounding and a second at most are given away."""
    q = Quote(tuple(lines), tail)
    try:
        seconds = Budget(cap).seconds(q)
    except BudgetTooSmall:
        assert q.at_most(2) > cap - len(lines) or q.micro_usd_per_hour > 0
        seconds = 0
    if q.micro_usd_per_hour and seconds < 7 * 24 * 3600 and seconds + tail >= 60:
        slack = 2 + len(lines) * 3600 // q.micro_usd_per_hour + 1
        assert q.at_most(seconds + slack) > cap or seconds == 0
