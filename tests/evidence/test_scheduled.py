"""What a proof says of the schedule at the provider: armed, read back, removed; and no more than that its end fits."""

from __future__ import annotations

from typing import Any

import pytest

from provisioner import closing
from provisioner.evidence import words
from provisioner.journal import instant, rfc3339
from provisioner.model import Outcome
from tests.evidence.journals import INST, Tape
from tests.evidence.test_statement import said

DRILL = {"date": "2026-11-01T10:00:00Z", "region": "us-east-1", "secondsLate": 2}
NAME = "r-20261118t120640z-7f3a9k2m-7-20261118t115140z"


def armed(tape: Tape, in_s: int = 180, **more: Any) -> str:
    """The guard lines of a schedule that fires so many seconds from now by the provider's clock."""
    fires = rfc3339(instant(tape.date()) + in_s)
    tape.add("guard", guard="schedule", state="armed", firesAt=fires, **more)
    tape.add("guard", guard="schedule", state="read-back", firesAt=fires)
    return fires


def ended(tape: Tape, reason: str = "Client.UserInitiatedShutdown", transition: str = "User initiated") -> Tape:
    """Somebody comes back and finds it gone; nothing of ours was answered yes."""
    tape.add("recovered", by="release")
    tape.observe("instance", INST, "gone", "terminated", stateReason=reason, stateTransitionReason=transition)
    return tape.quiet().verdict()


def of_machine(tape: Tape) -> dict[str, Any]:
    found: dict[str, Any] = said(tape)["instances"][0]
    return found


def test_an_end_that_nobody_here_asked_for_after_its_time_fits_the_schedule_and_is_not_called_more() -> None:
    tape = Tape().genesis().launch()
    fires = armed(tape)
    tape.wait(400)
    ended(tape)
    assert of_machine(tape)["stopCause"] == "guard-schedule"
    assert closing.ended_by(tape.entries) is Outcome.GUARD_FIRED
    [sentence] = [line for line in words.verdict(said(tape)) if "schedule" in line]
    assert fires in sentence and "that fits" in sentence and "only the provider's own log says who called" in sentence


@pytest.mark.parametrize("seconds", [-30, 30])
def test_the_providers_own_time_of_the_end_decides_not_when_somebody_looked(seconds: int) -> None:
    tape = Tape().genesis().launch()
    fires = instant(armed(tape))
    tape.wait(7200)
    at = rfc3339(fires + seconds)
    ended(tape, transition=f"User initiated ({at[:10]} {at[11:19]} GMT)")
    assert of_machine(tape)["stopCause"] == ("guard-schedule" if seconds > 0 else "external")


def test_an_end_before_its_time_was_somebody_else() -> None:
    tape = Tape().genesis().launch()
    armed(tape, in_s=3600)
    assert of_machine(ended(tape.wait(60)))["stopCause"] == "external"
    assert closing.ended_by(tape.entries) is Outcome.RECOVERED


def test_without_a_schedule_nothing_fits_one() -> None:
    assert of_machine(ended(Tape().genesis().launch().wait(4000)))["stopCause"] == "external"


def test_a_power_off_from_within_is_the_machines_own_guard() -> None:
    tape = Tape().genesis().launch()
    armed(tape)
    assert of_machine(ended(tape.wait(400), reason="Client.InstanceInitiatedShutdown"))["stopCause"] == "guard-guest"


def test_what_we_were_answered_yes_to_was_us() -> None:
    tape = Tape().genesis().launch()
    armed(tape)
    tape.run().release().quiet().verdict()
    assert of_machine(tape)["stopCause"] == "client"


def test_the_removal_of_the_schedule_is_the_guards() -> None:
    tape = Tape().genesis().launch()
    intent = tape.intent("schedule")
    tape.done(intent, NAME, "asked for", "coming")
    armed(tape)
    tape.run().release()
    tape.remove("schedule", NAME)
    tape.observe("schedule", NAME, "gone", "not-found")
    [guard] = [g for g in said(tape.quiet().verdict())["guards"] if g["kind"] == "schedule"]
    assert guard["armedAt"] < guard["readBackAt"] < guard["removedAt"] and guard["firesAt"]


def test_a_guard_is_drilled_when_its_line_says_so_and_the_limit_stays_until_all_are() -> None:
    tape = Tape().genesis().launch()
    armed(tape, drilled=DRILL)
    p = said(tape)
    assert [g["drilled"] for g in p["guards"]] == [DRILL] and "guards-not-drilled" not in p["limits"]
    tape.add("guard", guard="watchdog", state="armed")
    assert "guards-not-drilled" in said(tape)["limits"]


FLEET = "fleet-0123456789abcdef0"


def through_a_fleet(tape: Tape) -> str:
    """A fleet is asked for, and its machine is seen; the end that AWS keeps for both."""
    tape.genesis()
    intent = tape.intent("fleet", fleet=True)
    tape.done(intent, FLEET, "asked for")
    fires = rfc3339(instant(tape.date()) + 240)
    tape.add("guard", guard="fleet", state="armed", firesAt=fires)
    token = tape.entries[intent]["body"]["token"]
    tape.observe("fleet", FLEET, "here", "active", token=token)
    tape.observe("instance", INST, "here", "running", token=token, type="g6.xlarge", fleet=FLEET, launchTime=tape.date())
    tape.add("guard", guard="fleet", state="read-back", firesAt=fires)
    return fires


def fleet_gone(tape: Tape) -> Tape:
    tape.observe("fleet", FLEET, "gone", "deleted")
    kinds = ("instance", "volume", "network-interface", "security-group", "fleet")
    tape.wait(5)
    for _ in range(2):
        tape.sweep(kinds=kinds)
        tape.wait(5)
    return tape.verdict()


def test_an_end_that_nobody_here_asked_for_after_the_fleets_time_fits_the_fleet() -> None:
    tape = Tape()
    fires = through_a_fleet(tape)
    tape.wait(400)
    tape.add("recovered", by="release")
    tape.observe("instance", INST, "gone", "terminated", stateReason="Client.UserInitiatedShutdown")
    p = said(fleet_gone(tape))
    (instance,) = p["instances"]
    assert (instance["stopCause"], instance["answer"], instance["requestIds"]["run"]) == ("guard-fleet", "done", "req-1")
    assert closing.ended_by(tape.entries) is Outcome.GUARD_FIRED
    [sentence] = [line for line in words.verdict(p) if "fleet was to end" in line]
    assert fires in sentence and "that fits" in sentence
    assert p["verdict"] == "released" and p["clean"], p["limits"]


def test_the_removal_of_its_fleet_is_an_end_by_us_and_the_guards_removal() -> None:
    tape = Tape()
    through_a_fleet(tape)
    tape.wait(60)
    tape.remove("fleet", FLEET)
    tape.wait(400)
    tape.observe("instance", INST, "gone", "terminated", stateReason="Client.UserInitiatedShutdown")
    p = said(fleet_gone(tape))
    assert p["instances"][0]["stopCause"] == "client", "DeleteFleets ends the machines too, whenever they are seen gone"
    (guard,) = [one for one in p["guards"] if one["kind"] == "fleet"]
    assert guard["armedAt"] < guard["readBackAt"] < guard["removedAt"]


def test_every_machine_of_a_fleet_is_told_of_and_a_look_without_fleets_is_none() -> None:
    tape = Tape()
    through_a_fleet(tape)
    token = next(e["body"]["token"] for e in tape.entries if e["kind"] == "intent")
    second = INST[:-1] + "b"
    tape.observe("instance", second, "here", "running", token=token, type="g6.xlarge", fleet=FLEET, launchTime=tape.date())
    for id in (INST, second):
        tape.observe("instance", id, "gone", "terminated", stateReason="Client.UserInitiatedShutdown")
    tape.observe("fleet", FLEET, "gone", "deleted")
    p = said(tape.quiet().verdict())
    assert {one["id"] for one in p["instances"]} == {INST, second} and {one["answer"] for one in p["instances"]} == {"done"}
    assert not p["clean"], "the looks of this journal did not list fleets, and one was made"


def test_a_fleet_that_made_nothing_is_said_to_have_made_nothing() -> None:
    tape = Tape().genesis()
    intent = tape.intent("fleet", fleet=True)
    tape.done(intent, FLEET, "asked for")
    tape.observe("fleet", FLEET, "here", "active", token=tape.entries[intent]["body"]["token"])
    tape.remove("fleet", FLEET)
    p = said(fleet_gone(tape))
    assert [line for line in words.verdict(p) if "no machine of it was ever seen" in line]
    assert p["cost"]["totalHiMicroUsd"] == 0
