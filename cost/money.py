"""Dollars in, whole micro-dollars kept, dollars out; and the one place where a bill is rounded.

A number a person wrote is read exactly, through Decimal, or refused: no sign, no exponent, no NaN, and nothing
finer than a micro-dollar. Nothing here ever becomes a float, so sums are exact and may be signed.

EC2 Linux is billed per second with a minimum of 60 (see facts in docs/costs.md). A bill is always rounded up: a
figure shown or compared with a cap may be too high by a micro-dollar, never too low.
This file must not know about prices, quotes or clouds.
"""

from __future__ import annotations

import re
from decimal import Decimal

MICRO = 1_000_000
"""Micro-dollars in a dollar."""

HOUR = 3600
EC2_MINIMUM_SECONDS = 60
LARGEST = 10**12 * MICRO  # keeps every product below in exact range of what is plausible, and typing errors out

_NUMBER = re.compile(r"\$?(\d{1,13}(?:\.\d{1,12})?|\.\d{1,12})")


class MoneyError(ValueError):
    """A text that is not an amount of money we are willing to guess at."""


def parse(text: str) -> int:
    """ "5", "$1.00" or "0.5" as micro-dollars, exactly."""
    found = _NUMBER.fullmatch(text.strip()) if isinstance(text, str) and text.isascii() else None
    if found is None:
        raise MoneyError(f"{str(text)[:40]!r} is not an amount in dollars; write it like 5, 0.50 or $1.00")
    micro = Decimal(found[1]) * MICRO
    if micro != micro.to_integral_value():
        raise MoneyError(f"{text!r} is finer than a micro-dollar (six decimals)")
    if micro > LARGEST:
        raise MoneyError(f"{text!r} is more than {LARGEST // MICRO} dollars")
    return int(micro)


def amount(micro: int, *, up: bool = True) -> str:
    """ "0.53": the one way an amount is written, on the terminal and in a proof: whole cents, rounded up, so that it is never told as less
    than it is. `up=False` is for a lower bound, which is cut. Below one cent it is exact: what costs something is never 0.00."""
    if micro < 0:
        return "-" + amount(-micro, up=up)
    if 0 < micro < 10_000:
        return f"0.{micro:06d}".rstrip("0")
    cents = -(-micro // 10_000) if up else micro // 10_000
    return f"{cents // 100}.{cents % 100:02d}"


def show(micro: int, *, up: bool = True) -> str:
    """ "$0.53": the same with its sign."""
    return f"{'-' * (micro < 0)}${amount(abs(micro), up=up)}"


def show_per_hour(micro: int) -> str:
    """ "$0.8048/h": exact, with at least two decimals."""
    whole, part = divmod(micro, MICRO)
    decimals = f"{part:06d}".rstrip("0").ljust(2, "0")
    return f"${whole:,}.{decimals}/h"


def bill(micro_per_hour: int, seconds: int, *, minimum_seconds: int = EC2_MINIMUM_SECONDS) -> int:
    """What `seconds` cost, with the minimum, rounded up to a micro-dollar."""
    if micro_per_hour < 0 or seconds < 0:
        raise MoneyError(f"a bill needs a rate and a time of zero or more; got {micro_per_hour} and {seconds}")
    return up(micro_per_hour * max(seconds, minimum_seconds), HOUR)


def up(amount: int, unit: int) -> int:
    """`amount / unit`, rounded up."""
    return -(-amount // unit)
