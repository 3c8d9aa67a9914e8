"""What a journal says that is held: how old it is at least, whatever somebody did to the clock."""

from __future__ import annotations

from typing import Any, cast

import pytest

from provisioner.holdings import age, holdings
from provisioner.journal import Entry, rfc3339

BORN = 1_800_000_000.0


def entry(seq: int, wall: float, counted_s: float | None, kind: str, **body: Any) -> Entry:
    at = {"wall": rfc3339(wall)} | ({} if counted_s is None else {"monoMs": int(counted_s * 1000)})
    return cast(Entry, {"seq": seq, "at": at, "kind": kind, "body": body})


def thing(kind: str, id: str, **facts: str) -> dict[str, Any]:
    return {"class": kind, "id": id, "phase": "here", "state": "running", "token": "t", "billed": True, "region": "r", "facts": facts}


def made(counted_s: float | None = 500.0) -> list[Entry]:
    """A machine made at BORN, half a thousand seconds after the computer was started, and its disk seen ten seconds later."""
    return [
        entry(1, BORN, counted_s, "intent", op="create", token="t", **{"class": "instance"}),
        entry(2, BORN, counted_s, "done", op="create", intentSeq=1, **thing("instance", "i-1")),
        entry(3, BORN + 10, None if counted_s is None else counted_s + 10, "observe", **thing("volume", "vol-1", instance="i-1")),
    ]


@pytest.mark.parametrize(
    ("wall", "counted_s", "at_least"),
    [
        pytest.param(BORN + 40, 540.0, 40.0, id="nobody set anything"),
        pytest.param(BORN + 86_400, 540.0, 40.0, id="the wall clock was set forward"),
        pytest.param(BORN - 86_360, 540.0, 40.0, id="it had been wrong, and was set back"),
        pytest.param(BORN + 300, 120.0, 120.0, id="restarted since: what it counted is all after that"),
        pytest.param(BORN + 86_400, 120.0, 120.0, id="restarted, and the wall clock set forward"),
        pytest.param(BORN - 3_600, 120.0, 120.0, id="restarted, and the wall clock set back"),
        pytest.param(BORN + 30, 900.0, 30.0, id="read on another computer, which was started long ago"),
    ],
)
def test_a_thing_is_never_older_than_what_passed(wall: float, counted_s: float, at_least: float) -> None:
    held = holdings(made())
    held.monotonic_ms = int(counted_s * 1000)
    assert age(held, "i-1", wall) == at_least


def test_a_disk_is_as_old_as_the_machine_that_it_came_with() -> None:
    held = holdings(made())
    held.monotonic_ms = 540_000
    assert age(held, "vol-1", BORN + 40) == 40.0
    assert age(held, "vol-2", BORN + 40) is None


def test_a_journal_without_that_clock_goes_by_the_wall() -> None:
    assert age(holdings(made(None)), "i-1", BORN + 40) == 40.0


def fleet(*, phase: str = "here", state: str = "active") -> dict[str, Any]:
    return {**thing("fleet", "fleet-1"), "phase": phase, "state": state}


def filled(*then: tuple[str, dict[str, Any]]) -> set[str]:
    """Of a fleet that made a machine: the tokens of what may have made one that nobody saw, after these further lines."""
    lines: list[tuple[str, dict[str, Any]]] = [
        ("intent", {"op": "create", "token": "t", "class": "fleet"}),
        ("done", {"op": "create", "intentSeq": 0, **fleet()}),
        ("observe", thing("instance", "i-1")),
        *then,
    ]
    return holdings([entry(n, BORN + n, 500.0 + n, kind, **body) for n, (kind, body) in enumerate(lines)]).unfilled


WENT = ("observe", {**thing("instance", "i-1"), "phase": "leaving", "state": "shutting-down"})
GONE = ("observe", {**thing("instance", "i-1"), "phase": "gone", "state": "terminated"})
ASKED = ("done", {"op": "remove", "class": "fleet", "id": "fleet-1", "state": "deleted-terminating"})


def test_a_fleet_whose_machine_went_before_it_may_have_another_on_its_way() -> None:
    assert filled() == set()
    assert filled(WENT) == filled(GONE) == {"t"}
    assert filled(WENT, ASKED, GONE) == {"t"}, "the old one's end says nothing of another"
    assert filled(WENT, ASKED, GONE, ("observe", thing("instance", "i-2"))) == set()


def test_that_a_fleet_is_not_found_is_no_answer_to_its_removal() -> None:
    unknown = ("done", {**ASKED[1], "state": "not-found"})
    assert filled(unknown, WENT, GONE) == {"t"}


def test_one_that_was_asked_to_go_first_took_its_machine_with_it() -> None:
    assert filled(ASKED, WENT, GONE) == set()
