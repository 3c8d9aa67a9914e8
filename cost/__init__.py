"""Money arithmetic: quotes, budgets, meters and break-even, in whole micro-dollars.

Floor 0: the standard library only, no I/O but its own dated price file, and nothing of `provisioner`. What every
file here holds to: an unknown price is an error and never zero, every price carries its source and its day, and
no amount is ever a float.
"""

from __future__ import annotations

from cost.budget import Budget, BudgetTooSmall
from cost.from_journal import intervals, spent, unpriced
from cost.meter import Interval, Spend, basis, meter
from cost.money import MICRO, MoneyError, amount, bill, parse, show, show_per_hour, up
from cost.prices import (
    OWN_WORD,
    SPOT_CEILING,
    STALE_DAYS,
    TOO_OLD_DAYS,
    Beside,
    Price,
    UnitPrice,
    UnknownPrice,
    age_days,
    beside,
    is_stale,
    is_too_old,
)
from cost.quote import GUARD_TAIL_SECONDS, Line, Quote, line_of, own_host, quote

__all__ = [
    "GUARD_TAIL_SECONDS",
    "MICRO",
    "OWN_WORD",
    "SPOT_CEILING",
    "STALE_DAYS",
    "TOO_OLD_DAYS",
    "Beside",
    "Budget",
    "BudgetTooSmall",
    "Interval",
    "Line",
    "MoneyError",
    "Price",
    "Quote",
    "Spend",
    "UnitPrice",
    "UnknownPrice",
    "age_days",
    "amount",
    "basis",
    "beside",
    "bill",
    "intervals",
    "is_stale",
    "is_too_old",
    "line_of",
    "meter",
    "own_host",
    "parse",
    "quote",
    "show",
    "show_per_hour",
    "spent",
    "unpriced",
    "up",
]
