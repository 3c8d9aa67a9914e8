"""AWS's rate limits, as token buckets: so many calls at once, so many a second after that, and then a refusal.

A rule is about actions by pattern; the first that fits a call counts, and each of its regions has a bucket of its own. A refused call
takes nothing. Off until the `throttle` knob says otherwise.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Rate:
    actions: str  # a pattern
    burst: int
    per_s: float


def rates(given: Mapping[str, Any]) -> tuple[Rate, ...]:
    """`{"Describe*": {"burst": 20, "per_s": 5}}`. ValueError when it is not that."""
    found = []
    for actions, rule in given.items():
        if not isinstance(rule, Mapping) or set(rule) != {"burst", "per_s"}:
            raise ValueError(f"throttle: {actions} needs burst and per_s, and nothing else")
        numbers = [rule["burst"], rule["per_s"]]
        if any(isinstance(n, bool) or not isinstance(n, (int, float)) or n < 0 for n in numbers):
            raise ValueError(f"throttle: burst and per_s of {actions} must be numbers of 0 or more")
        found.append(Rate(actions, int(rule["burst"]), float(rule["per_s"])))
    return tuple(found)


class Buckets:
    def __init__(self) -> None:
        self._left: dict[tuple[Rate, str], tuple[float, float]] = {}  # tokens, and when they were counted
        self._lock = threading.Lock()

    def take(self, rules: tuple[Rate, ...], action: str, region: str) -> bool:
        """May this call be answered?"""
        rule = next((one for one in rules if fnmatchcase(action, one.actions)), None)
        if rule is None:
            return True
        with self._lock:
            now = time.monotonic()
            tokens, at = self._left.get((rule, region), (float(rule.burst), now))
            tokens = min(float(rule.burst), tokens + (now - at) * rule.per_s)
            allowed = tokens >= 1
            self._left[(rule, region)] = (tokens - 1 if allowed else tokens, now)
            return allowed
