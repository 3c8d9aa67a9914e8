"""Money is exact, rounded up, and never unknown."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost import MoneyError, Price, UnknownPrice, age_days, amount, bill, is_stale, is_too_old, parse, quote, show, show_per_hour
from cost.breakeven import break_even
from cost.prices import unit_price


@pytest.mark.parametrize(
    ("text", "micro"),
    [
        ("5", 5_000_000),
        ("$1.00", 1_000_000),
        ("0.5", 500_000),
        (" 3 ", 3_000_000),
        (".25", 250_000),
        ("0.000001", 1),
        ("0", 0),
        ("0.1000000", 100_000),
    ],
)
def test_an_amount_is_read_exactly(text: str, micro: int) -> None:
    assert parse(text) == micro


@pytest.mark.parametrize(
    "text",
    ["-1", "+1", "nan", "NaN", "inf", "-inf", "Infinity", "1e3", "1E-2", "1_000", "1,000", "", "$", ".", "5.", "0x10", "1 2", "\u20ac5",
     "$-1", "0.0000001", "9" * 14, "1000000000001", "\u0663", "\uff11", "5 USD", "\u20145"],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(MoneyError):
        parse(text)


def test_only_text_is_read_never_a_float() -> None:
    with pytest.raises(MoneyError):
        parse(0.1)  # type: ignore[arg-type]


@given(st.integers(0, 10**15))
def test_what_is_read_is_what_was_written(micro: int) -> None:
    assert parse(f"{micro // 10**6}.{micro % 10**6:06d}") == micro


@pytest.mark.parametrize(
    ("micro", "text"),
    [(210_000, "$0.21"), (209_001, "$0.21"), (1_000_000, "$1.00"), (0, "$0.00"), (1, "$0.000001"), (4_200, "$0.0042"), (9_999, "$0.009999"),
     (10_000, "$0.01"), (10_001, "$0.02"), (1_234_567_890_000, "$1234567.89"), (-210_000, "-$0.21")],
)  # fmt: skip
def test_money_is_shown_rounded_up(micro: int, text: str) -> None:
    assert show(micro) == text


@given(st.integers(1, 10**12))
def test_what_costs_something_is_never_shown_as_less_nor_as_nothing(micro: int) -> None:
    assert Decimal(show(micro).replace("$", "")) * 10**6 >= micro


@given(st.integers(0, 10**12))
def test_a_lower_bound_is_never_shown_as_more_than_it_is(micro: int) -> None:
    assert Decimal(show(micro, up=False).replace("$", "")) * 10**6 <= micro
    assert show(micro, up=False) == f"${amount(micro, up=False)}" and show(micro) == f"${amount(micro)}"


def test_a_rate_is_shown_exactly() -> None:
    assert [show_per_hour(m) for m in (804_800, 2_242_080, 1_000_000, 109_590)] == ["$0.8048/h", "$2.24208/h", "$1.00/h", "$0.10959/h"]


def test_a_minute_is_billed_at_least_and_every_fraction_up() -> None:
    assert bill(3_600_000, 1) == bill(3_600_000, 60) == 60_000
    assert bill(3_600_000, 61) == 61_000
    assert bill(1, 61) == 1  # a sixtieth of a micro-dollar is one
    with pytest.raises(MoneyError):
        bill(-1, 60)


@given(st.integers(0, 10**9), st.integers(0, 10**6))
def test_a_bill_is_never_below_the_exact_amount(rate: int, seconds: int) -> None:
    assert bill(rate, seconds) * 3600 >= rate * seconds
    assert (bill(rate, seconds) - 1) * 3600 < rate * max(seconds, 60)


def test_a_price_that_nobody_wrote_down_is_an_error() -> None:
    for name, region in [("disk", "eu-west-1"), ("nat-gateway", "us-east-1")]:
        with pytest.raises(UnknownPrice, match="the snapshot has"):
            unit_price(name, region)
    with pytest.raises(UnknownPrice):
        quote(Price(804_800, "x", "2026-07-20"), region="eu-west-1", disk_gib=60)
    for price in (Price(-1, "x", "2026-07-20"), Price(1, "", "2026-07-20"), Price(1, "x", "")):
        with pytest.raises(UnknownPrice, match="lacks"):
            quote(price, region="us-east-1", disk_gib=60)


def test_every_price_in_the_snapshot_has_a_source_and_a_day() -> None:
    for name in ("disk", "public-ipv4", "egress"):
        price = unit_price(name, "us-east-1")
        assert price.micro_usd > 0 and len(price.source) > 20 and age_days(price.as_of, "2026-11-21") >= 0


def test_a_price_grows_old() -> None:
    assert age_days("2026-07-20", "2026-11-21") == 124
    assert not is_stale("2026-07-20", "2026-10-18") and is_stale("2026-07-20", "2026-10-19")
    assert not is_too_old("2026-07-20", "2027-07-20") and is_too_old("2026-07-20", "2027-07-21")
    with pytest.raises(ValueError):
        age_days("last summer", "2026-11-21")


def test_break_even_agrees_with_the_worked_example() -> None:
    """Qwen3-8B on g6e.xlarge at 1,957 tokens/s: $0.264 per million out; 132 % busy against $0.20, 29 % against $0.90."""
    shape = {"hourly_micro": 1_861_000, "out_tokens_per_hour": 1957 * 3600, "in_tokens_per_request": 0, "out_tokens_per_request": 1000}
    cheap = break_even(**shape, api_micro_per_million_in=0, api_micro_per_million_out=200_000)
    dear = break_even(**shape, api_micro_per_million_in=0, api_micro_per_million_out=900_000)
    assert cheap.rent_micro_per_million_out == 264_152 and cheap.busy_basis_points == 13_208 and not cheap.renting_can_win
    assert dear.busy_basis_points == 2_936 and dear.renting_can_win and dear.requests_per_day == 49_627
    with pytest.raises(ValueError):
        break_even(**shape, api_micro_per_million_in=0, api_micro_per_million_out=0)
