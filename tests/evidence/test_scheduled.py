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
