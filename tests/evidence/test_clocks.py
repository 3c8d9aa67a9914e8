"""Clocks that lie: set forwards and backwards, asleep, without AWS's dates. What is stated still holds the truth between its bounds."""

from __future__ import annotations

import random
from typing import Any

import pytest

from cost import intervals
from provisioner.evidence.canonical import milliseconds
from provisioner.evidence.history import read
from tests.evidence.bundles import state
from tests.evidence.journals import INST
from tests.evidence.tape import KINDS, REGION, START_MS, Tape, text

HOUR_MS = 3_600_000


class Unsteady(Tape):
    """A tape on a machine whose clock is not AWS's: `true` is AWS's own time, which every date is cut from."""

    def __init__(self, seed: int, *, troubled: bool = True) -> None:
        self.troubled = troubled
        self.random = random.Random(seed)
        self.true = START_MS
        self.seen: dict[int, int] = {}  # record -> when it was truly written
        super().__init__(START_MS + self.random.randint(-HOUR_MS, HOUR_MS))

    def wait(self, seconds: float) -> Tape:
        self.true += int(seconds * 1000)
        return super().wait(seconds)

    def date(self) -> str:
        return text(self.true, whole=True)

    def add(self, kind: str, **body: Any) -> int:
        if self.random.random() < 0.1 and isinstance(body.get("facts"), dict):
            body["facts"] = {name: value for name, value in body["facts"].items() if name != "providerDate"}
        if self.random.random() < 0.1:
            body.pop("providerDate", None)
        seq = super().add(kind, **body)
        self.seen[seq] = self.true
        trouble = self.random.random() if self.troubled else 1.0
        if trouble < 0.05:
            self.now += self.random.randint(-HOUR_MS, HOUR_MS)  # somebody sets the clock
        elif trouble < 0.08:
            asleep = self.random.randint(1000, 2 * HOUR_MS)  # the lid is closed: the counting clock stands still
            self.true += asleep
            self.now += asleep
        return seq


def unsteady(seed: int) -> Unsteady:
    tape = Unsteady(seed)
    tape.genesis().guards().launch().run().release().quiet().verdict()
    return tape


@pytest.mark.parametrize("seeds", [range(n, n + 60) for n in range(0, 300, 60)], ids=str)
def test_the_bounds_of_what_was_billed_hold_the_truth_whatever_the_clock_did(seeds: range) -> None:
    for seed in seeds:
        tape = unsteady(seed)
        launched = next(milliseconds(e["body"]["facts"]["launchTime"]) for e in tape.entries if "launchTime" in e["body"].get("facts", {}))
        accepted = next(e["seq"] for e in tape.entries if e["kind"] == "done" and e["body"]["op"] == "remove" and e["body"]["id"] == INST)
        billed_s = (tape.seen[accepted] - (launched or 0)) / 1000
        [found] = [i for i in intervals(tape.entries, tape.now) if i.resource == INST]
        assert found.seconds_lo - 1 <= billed_s <= found.seconds_hi + 1, (seed, found.seconds_lo, billed_s, found.seconds_hi)


@pytest.mark.parametrize("seeds", [range(n, n + 60) for n in range(0, 300, 60)], ids=str)
def test_every_time_that_is_stated_is_off_by_no_more_than_it_says(seeds: range) -> None:
    """A clock that was set between two dated answers is known only by them: that much is the limit, and it is said."""
    for seed in seeds:
        tape = unsteady(seed)
        history = read(tape.entries)
        for entry in tape.entries:
            moment = history.moment(entry)
            dated = history.date(entry) is not None
            assert moment.unc is not None
            if dated:  # the answer's own second
                assert abs(moment.ms - tape.seen[entry["seq"]]) <= moment.unc + 1500, (seed, entry["seq"])


@pytest.mark.parametrize("by", [HOUR_MS, -HOUR_MS])
def test_a_clock_that_was_set_widens_what_is_stated_and_backwards_it_is_said(by: int) -> None:
    tape = Unsteady(1, troubled=False)
    tape.genesis().guards().launch()
    tape.now += by
    tape.run().release().quiet().verdict()
    predicate = state(tape)["predicate"]
    assert predicate["clock"]["awsOffsetUncertaintyMs"] >= HOUR_MS // 2
    assert ("clock-was-set" in predicate["limits"]) is (by < 0)


def test_a_clock_set_forwards_while_another_process_takes_over_does_not_stretch_a_wait() -> None:
    tape = Tape().genesis()
    tape.intent("instance")
    tape.wait(30)
    tape.sweep()
    date = tape.date()
    tape.wait(5)
    tape.add("recovered", by="watchdog")
    tape.mono = 1000  # another process after the machine was started anew, and its clock is an hour ahead of AWS's
    tape.now += HOUR_MS
    rows = [{"class": kind, "region": REGION, "checked": True, "found": 0} for kind in KINDS]
    tape.add("sweep", checked=True, classes=rows, found=0, requestIds=[], providerDate=text((milliseconds(date) or 0) + 6000))
    predicate = state(tape.verdict(intents=1))["predicate"]
    assert predicate["settleSeconds"] <= 6 and not predicate["clean"] and "open-intent" in predicate["limits"]
