"""Amounts in a server's log: what they look like, and as whole numbers.

The log is written by a machine that is not ours. The forms are closed and bounded, so that whatever matches is a number that can be
written down; what does not match is a figure that is not there, and no error.
"""

from __future__ import annotations

from decimal import Decimal

NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,9})?"
COUNT = r"[0-9]{1,3}(?:,?[0-9]{3}){0,3}(?![0-9A-Za-z]|\.\S)"


def whole(count: str) -> int:
    """ "29,648" -> 29648."""
    return int(count.replace(",", ""))


def mib(gib: str) -> int:
    return int(Decimal(gib) * 1024)


def milli(amount: str) -> int:
    return int(Decimal(amount) * 1000)
