"""What was spent, as bounds that hold the truth."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost import OWN_WORD, SPOT_CEILING, Interval, Line, Price, UnknownPrice, basis, intervals, meter, quote, spent
from cost.from_journal import lines

START = datetime(2026, 11, 21, 14, 0, 0, tzinfo=UTC)
QUOTE = quote(Price(3_600_000, "price table", "2026-07-20"), region="us-east-1", disk_gib=100)  # one micro-dollar per ms


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def ms(seconds: float) -> int:
    return int((START - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000 + seconds * 1000)


class Diary:
    """A journal as its readers see it: a list of entries, each at a second of the run."""

    def __init__(self, wrong_by: float = 0.0) -> None:
        self.entries: list[dict[str, Any]] = []
        self.wrong_by = wrong_by  # how far this machine's clock is ahead of the provider's
        self.write(
            0,
            "genesis",
            offer={"type": "g6.xlarge", "price": {"microUsdPerHour": 3_600_000, "source": "price table", "asOf": "2026-07-20"}},
            quote=QUOTE.record(600, 2700),
        )

    def write(self, seconds: float, kind: str, **body: Any) -> int:
        seq = len(self.entries)
        self.entries.append({"seq": seq, "at": {"wall": at(seconds + self.wrong_by), "monoMs": seq}, "kind": kind, "body": body})
        return seq

    def launch(self, seconds: float = 1, id: str = "i-1", token: str = "t1") -> None:
        intent = self.write(seconds, "intent", op="create", **{"class": "instance"}, token=token, params={"type": "g6.xlarge"})
        facts = {"launchTime": at(seconds + 1)[:-5] + "Z", "providerDate": at(seconds + 2)[:-5] + "Z"}
        self.write(
            seconds + 2, "done", op="create", intentSeq=intent, **{"class": "instance"}, id=id, phase="coming", token=token, facts=facts
        )

    def see(self, seconds: float, phase: str, id: str = "i-1", kind: str = "instance", token: str | None = "t1", **facts: str) -> None:
        date = {"providerDate": at(seconds)[:-5] + "Z"}
        self.write(
            seconds, "observe", **{"class": kind}, id=id, phase=phase, state=phase, billed=True, token=token, facts={**date, **facts}
        )

    def remove(self, seconds: float, id: str = "i-1", **answer: str) -> None:
        intent = self.write(seconds, "intent", op="remove", **{"class": "instance"}, id=id)
        answer = {"providerDate": at(seconds + 1)[:-5] + "Z", **answer}
        self.write(seconds + 1, "done", op="remove", intentSeq=intent, **{"class": "instance"}, id=id, **answer)

    def machine(self, now: float) -> Interval:
        return next(i for i in intervals(self.entries, ms(now)) if i.kind == "instance")


def test_the_bounds_are_the_answers_before_and_after() -> None:
    diary = Diary()
    diary.launch(1)
    diary.see(20, "here")
    diary.remove(100, previousState="running")
    diary.see(130, "gone")
    i = diary.machine(9999)
    assert (i.start_lo, i.start_hi) == (ms(2), ms(21))  # LaunchTime; the second after the first "running"
    assert (i.end_lo, i.end_hi) == (ms(100), ms(102))  # announced; accepted, and its second
    assert (i.seconds_lo, i.seconds_hi, i.certain, i.open) == (79, 100, True, False)


def test_what_is_sent_is_counted_for_each_machine() -> None:
    diary = Diary()
    diary.launch(1)
    one = meter([diary.machine(9999)], lines(diary.entries[0]["body"]))
    two = meter([diary.machine(9999)] * 2, lines(diary.entries[0]["body"]))
    assert two.hi == 2 * one.hi and sum(line.hi for line in two.lines if line.name == "egress") == 2 * 8_790


def test_spend_is_every_line_over_its_interval() -> None:
    diary = Diary()
    diary.launch(1)
    diary.see(20, "here")
    diary.remove(100, previousState="running")
    diary.see(130, "gone")
    money = spent(diary.entries, ms(9999))
    names = {line.name: line for line in money.lines}
    assert names["instance"].lo == 79_000 and names["instance"].hi == 100_000 and 79_000 < names["instance"].best < 100_000
    assert names["egress"].lo == 0 and names["egress"].hi == 8_790
    assert names["disk"].lo == 10_752 * 79 // 3600 and names["public-ipv4"].hi == -(-5000 * 100 // 3600)
    assert money.lo <= money.best <= money.hi and not money.open
    assert money.record()["hiMicroUsd"] == money.hi == sum(line.hi for line in money.lines)


def test_without_the_calls_own_word_it_ran_only_as_long_as_it_was_seen_running() -> None:
    diary = Diary()
    diary.launch(1)
    diary.see(20, "here")
    diary.remove(500)
    assert diary.machine(9999).end_lo == ms(20) and diary.machine(9999).end_hi == ms(502)


def test_a_power_off_from_inside_is_dated_by_the_providers_own_reason() -> None:
    diary = Diary()
    diary.launch(1)
    diary.see(20, "here")
    reason = {"stateReason": "Client.InstanceInitiatedShutdown", "stateTransitionReason": "User initiated (2026-11-21 14:05:00 GMT)"}
    diary.see(900, "gone", **reason)
    i = diary.machine(9999)
    assert (i.end_lo, i.end_hi) == (ms(300), ms(301))


def test_what_still_runs_is_billed_until_now() -> None:
    diary = Diary()
    diary.launch(1)
    diary.see(20, "here")
    money = spent(diary.entries, ms(3602))
    machine = next(line for line in money.lines if line.name == "instance")
    assert money.open and machine.hi == 3_600_000 and machine.lo == 60_000 and machine.best > 3_580_000


def test_a_machine_never_seen_running_counts_from_nothing_to_everything() -> None:
    diary = Diary()
    diary.launch(1)
    diary.see(50, "gone")
    money = spent(diary.entries, ms(9999))
    assert money.lo == 0 and next(line for line in money.lines if line.name == "instance").hi == 60_000


def test_a_create_without_an_answer_may_be_billed_until_somebody_has_looked() -> None:
    diary = Diary()
    diary.write(1, "intent", op="create", **{"class": "instance"}, token="t1", params={"type": "g6.xlarge"})
    diary.write(2, "unknown", op="create", intentSeq=1, **{"class": "instance"}, why="read timeout")
    money = spent(diary.entries, ms(3601))
    assert money.open and money.lo == money.best == 0 and money.hi >= 3_600_000
    diary.write(400, "verdict", verdict="unproven")
    assert spent(diary.entries, ms(3601)).open
    diary.write(800, "verdict", verdict="released")
    assert spent(diary.entries, ms(3601)).hi == 0


def test_a_refused_create_costs_nothing() -> None:
    diary = Diary()
    diary.write(1, "intent", op="create", **{"class": "instance"}, token="t1", params={"type": "g6.xlarge"})
    diary.write(2, "failed", op="create", intentSeq=1, **{"class": "instance"}, code="InsufficientInstanceCapacity", why="none")
    assert spent(diary.entries, ms(3601)).hi == 0 and not spent(diary.entries, ms(3601)).open


def test_a_machine_found_after_a_lost_answer_is_billed_from_its_launch() -> None:
    diary = Diary()
    diary.write(1, "intent", op="create", **{"class": "instance"}, token="t1", params={"type": "g6.xlarge"})
    diary.write(30, "unknown", op="create", intentSeq=1, **{"class": "instance"}, why="read timeout")
    diary.see(60, "here", launchTime=at(3)[:-5] + "Z", type="g6.xlarge")
    i = diary.machine(1000)
    assert (i.resource, i.start_lo, i.open) == ("i-1", ms(3), True)
    assert len([x for x in intervals(diary.entries, ms(1000)) if x.kind == "instance"]) == 1


def test_a_disk_that_outlives_its_machine_is_billed_longer() -> None:
    diary = Diary()
    diary.launch(1)
    diary.see(20, "here")
    diary.see(21, "here", id="vol-1", kind="volume", token=None, instance="i-1")
    diary.remove(100, previousState="running")
    diary.see(130, "gone")
    diary.see(500, "gone", id="vol-1", kind="volume", token=None)
    found = {i.kind: i for i in intervals(diary.entries, ms(9999))}
    assert found["instance"].end_hi == ms(102) and found["volume"].end_hi == ms(501) and found["volume"].resource == "vol-1"
    assert len(intervals(diary.entries, ms(9999))) == 2


def test_a_stray_disk_is_billed_on_its_own() -> None:
    diary = Diary()
    diary.see(21, "here", id="vol-9", kind="volume", token=None)
    (stray,) = intervals(diary.entries, ms(100))
    assert stray.kind == "volume" and stray.open and spent(diary.entries, ms(100)).hi > 0


def test_a_clock_that_is_wrong_widens_the_bars_and_does_not_move_them() -> None:
    for wrong_by in (-7200.0, 7200.0):
        diary = Diary(wrong_by)
        diary.launch(1)
        diary.see(20, "here")
        diary.remove(100, previousState="running")
        i = diary.machine(9999 + wrong_by)
        assert ms(97) <= i.end_lo <= ms(100) and ms(101) <= i.end_hi <= ms(104) and i.start_lo == ms(2)


def test_a_machine_of_another_type_has_no_price_here() -> None:
    diary = Diary()
    diary.launch(1)
    diary.see(20, "here", type="p5.48xlarge")
    with pytest.raises(UnknownPrice, match=r"p5\.48xlarge.*g6\.xlarge"):
        spent(diary.entries, ms(100))
    with pytest.raises(UnknownPrice, match="no first line"):
        spent(diary.entries[1:], ms(100))


def test_an_empty_lease_has_spent_nothing() -> None:
    money = spent(Diary().entries, ms(100))
    assert (money.lo, money.best, money.hi, money.open) == (0, 0, 0, False)


@given(st.integers(2, 300), st.integers(0, 400), st.integers(0, 7200), st.integers(0, 60), st.integers(1, 20))
def test_the_truth_is_always_inside(boot: int, seen_after: int, ran: int, late: int, poll: int) -> None:
    """A machine billed from `boot` for `ran` seconds, looked at late and rarely: its true bill lies within the bounds."""
    began, ended = 3 + boot, 3 + boot + seen_after + poll + ran
    diary = Diary()
    diary.launch(1)
    diary.see(began + seen_after, "here")
    diary.remove(ended - 1, previousState="running")
    diary.see(ended + late, "gone")
    money = meter(intervals(diary.entries, ms(99_999)), [Line("instance", 3_600_000, "s", "2026-07-20")])
    truth = 1000 * max(60, ended - began)
    assert money.lo <= truth <= money.hi and money.lo <= money.best <= money.hi


def through_a_fleet(diary: Diary, seconds: float = 1, token: str = "f1", answered: bool = True) -> None:
    """A machine asked for through a fleet, at the price of its own request."""
    params = {"type": "g6.xlarge", "quote": QUOTE.record(600, 2700)}
    intent = diary.write(seconds, "intent", op="create", **{"class": "fleet"}, token=token, params=params)
    if answered:
        facts = {"providerDate": at(seconds + 1)[:-5] + "Z"}
        diary.write(
            seconds + 1, "done", op="create", intentSeq=intent, **{"class": "fleet"}, id="fleet-1", phase="coming", token=token, facts=facts
        )


@pytest.mark.parametrize("answered", [True, False])
def test_a_fleet_may_cost_what_its_machine_does_until_that_is_seen(answered: bool) -> None:
    diary = Diary()
    through_a_fleet(diary, answered=answered)
    i = diary.machine(100)
    assert (i.start_lo, i.end_hi, i.certain, i.open) == (ms(1), ms(100), False, True)
    assert spent(diary.entries, ms(100)).hi >= 99_000 and spent(diary.entries, ms(100)).lo == 0


def test_its_machine_is_billed_from_its_launch_at_the_price_the_fleet_was_asked_at() -> None:
    diary = Diary()
    through_a_fleet(diary)
    diary.see(10, "here", token="f1", launchTime=at(5), type="g6.xlarge")
    diary.see(70, "gone", token="f1")
    (i,) = [one for one in intervals(diary.entries, ms(9999)) if one.kind == "instance"]
    assert (i.start_lo, i.end_hi, i.priced, i.certain) == (ms(5), ms(71), "g6.xlarge", True) and i.lines


def test_a_fleet_that_made_two_is_paid_for_twice() -> None:
    diary = Diary()
    through_a_fleet(diary)
    for number, start in ((1, 5), (2, 40)):
        diary.see(start + 5, "here", id=f"i-{number}", token="f1", launchTime=at(start), type="g6.xlarge")
        diary.see(start + 30, "gone", id=f"i-{number}", token="f1")
    found = [one for one in intervals(diary.entries, ms(9999)) if one.kind == "instance"]
    assert [(one.resource, one.start_lo, one.priced) for one in found] == [("i-1", ms(5), "g6.xlarge"), ("i-2", ms(40), "g6.xlarge")]
    assert all(one.lines for one in found)


def test_a_fleet_seen_gone_without_a_machine_cost_at_most_until_then_and_nothing_once_released() -> None:
    diary = Diary()
    through_a_fleet(diary)
    diary.see(20, "gone", id="fleet-1", kind="fleet", token="f1")
    i = diary.machine(9999)
    assert (i.start_lo, i.end_hi, i.certain, i.open) == (ms(1), ms(21), False, False)
    diary.write(30, "verdict", verdict="released")
    assert not intervals(diary.entries, ms(9999))


def test_amounts_are_called_what_they_were_reckoned_with() -> None:
    disk, listed = ("disk", "Vantage, EBS", "2026-11-01"), ("instance", "AWS Price List", "2026-11-02")
    ceiling = ("instance", f"{SPOT_CEILING}needs.spot_max_usd_per_hour", "2026-11-02")
    assert basis([]) == "" and basis([listed, disk]) == "public list price"
    spot = "public list price; a spot machine at the market's price, its ceiling is needs.spot_max_usd_per_hour, 2026-11-02"
    assert basis([ceiling, disk]) == basis([ceiling, listed]) == spot
    assert basis([("instance", OWN_WORD, "2026-11-02")]) == "the user's own word for a machine of theirs, 2026-11-02"
