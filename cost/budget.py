"""Dollars become a duration, before anything is asked for.

Billing data lag by hours, so a cap in dollars cannot be watched; it can only be turned into a time:
`(cap - fixed) / rate - tail`. The tail is the time until the last line of defence has acted (see quote.py), so the
promise "never more than the cap" holds even when every earlier one failed. The result is rounded down until the
quote's own `at_most` agrees, and a budget too small to boot the machine and load the model is refused with the
numbers, because money spent on a run that cannot finish is spent for nothing.
This file must not know about clocks: the caller adds the duration to an instant.
"""

from __future__ import annotations

from dataclasses import dataclass

from cost.money import HOUR, show, show_per_hour
from cost.quote import Quote


class BudgetTooSmall(ValueError):
    """The cap, or the time limit, ends before the run could do anything useful. The text quotes both numbers."""


@dataclass(frozen=True)
class Budget:
    """A cap in micro-dollars on everything one lease may cost."""

    limit_micro: int

    def seconds(self, quote: Quote, *, limit_seconds: int | None = None, need_seconds: int = 0) -> int:
        """The longest deadline, in seconds from launch, for which `quote.at_most` stays within the cap.

        `limit_seconds` is the user's own time limit; `need_seconds` is the least that boot and model load take.
        """
        affordable = self._affordable(quote)
        if affordable < max(need_seconds, 1):
            # The least cap that would do, so that the message can name it.
            enough = quote.at_most(max(need_seconds, 1))
            raise BudgetTooSmall(
                f"{show(self.limit_micro)} lasts {max(affordable, 0)} s at {show_per_hour(quote.micro_usd_per_hour)} with a guard tail of "
                f"{quote.tail_seconds} s; booting and loading need {max(need_seconds, 1)} s, which takes a budget of {show(enough)}"
            )
        if limit_seconds is None:
            return affordable
        if limit_seconds < max(need_seconds, 1):
            raise BudgetTooSmall(f"the time limit is {limit_seconds} s; booting and loading need {max(need_seconds, 1)} s")
        return min(affordable, limit_seconds)

    def _affordable(self, quote: Quote) -> int:
        rate, lines = quote.micro_usd_per_hour, len(quote.lines)
        if quote.at_most(0) > self.limit_micro:
            return -1
        if rate == 0:
            return LONGEST
        # Each line is rounded up on its own, so as many micro-dollars as there are lines may be lost to rounding.
        spare = self.limit_micro - quote.fixed_micro_usd - lines
        return min(max(spare * HOUR // rate - quote.tail_seconds, 0), LONGEST)


LONGEST = 7 * 24 * HOUR
"""No lease is longer than a week, whatever the budget: a forgotten one must end while somebody still remembers it."""
