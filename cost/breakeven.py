"""When renting beats an API, and when it cannot.

Renting is paid by the hour, whether the machine is busy or not; an API is paid by the token. So the question has
one number as its answer: the share of the machine's own measured throughput that must be in use. More than 100 %
means that renting never wins at that throughput, and then the reasons to rent are others (privacy, a model that no
API serves, a fixed revision), which should be written down as such.

All amounts are whole micro-dollars and all rates whole numbers; shares are in basis points (1/100 of a percent).
This file must not know where throughput or API prices came from: the caller quotes those sources.
"""

from __future__ import annotations

from dataclasses import dataclass

from cost.money import up

PER_MILLION = 1_000_000


@dataclass(frozen=True)
class BreakEven:
    """`busy_basis_points` over 10,000 means never; `requests_per_day` is what must be asked for renting to win."""

    rent_micro_per_million_out: int
    api_micro_per_request: int
    busy_basis_points: int
    requests_per_day: int
    capacity_requests_per_day: int

    @property
    def renting_can_win(self) -> bool:
        return self.busy_basis_points <= 10_000


def break_even(
    *,
    hourly_micro: int,
    out_tokens_per_hour: int,
    in_tokens_per_request: int,
    out_tokens_per_request: int,
    api_micro_per_million_in: int,
    api_micro_per_million_out: int,
) -> BreakEven:
    """Compare a machine at its measured throughput with an API at its price, for one shape of request."""
    if min(hourly_micro, out_tokens_per_hour, out_tokens_per_request) <= 0:
        raise ValueError("a break-even needs a rate, a measured throughput and an answer length above zero")
    # Kept in micro-dollars times a million until the end, so that a cheap request is not rounded to nothing.
    api = in_tokens_per_request * api_micro_per_million_in + out_tokens_per_request * api_micro_per_million_out
    if api <= 0:
        raise ValueError("the API price is zero or unknown; there is nothing to compare with")
    capacity = 24 * out_tokens_per_hour // out_tokens_per_request
    needed = up(24 * hourly_micro * PER_MILLION, api)
    return BreakEven(
        rent_micro_per_million_out=up(hourly_micro * PER_MILLION, out_tokens_per_hour),
        api_micro_per_request=up(api, PER_MILLION),
        busy_basis_points=up(hourly_micro * PER_MILLION * out_tokens_per_request * 10_000, api * out_tokens_per_hour),
        requests_per_day=needed,
        capacity_requests_per_day=capacity,
    )
