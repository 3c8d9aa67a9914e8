"""The end of a lease: the exit code speaks of money first, and no paper can take its place."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import Any

import pytest

from provisioner import closing, ledger
from provisioner.errors import Exit, HostError, MissedThreshold, NotCreated, ProviderError, RefusedError
from provisioner.journal import Journal
from provisioner.model import Outcome, Verdict
from provisioner.scope import Cancelled, SystemClock
from tests.core.torture import LEASE, FullDisk

CLOCK = SystemClock()

STOPS = [None, Cancelled("SIGINT"), Cancelled("deadline"), NotCreated("x"), RefusedError("x")]
ERRORS = [*STOPS, HostError("x"), MissedThreshold("x"), KeyError("x")]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def journal(tmp_path: Path) -> Any:
    with FullDisk(tmp_path / "j", CLOCK) as journal:
        yield journal


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize(("verdict", "code"), [(Verdict.UNPROVEN, 20), (Verdict.HELD, 21), (Verdict.LEAVING, 22)])
def test_what_may_still_cost_outranks_what_went_wrong(verdict: Verdict, code: int, error: Any, journal: Journal) -> None:
    assert closing.exit_code(verdict, error, journal) == code


def test_once_released_the_error_is_the_exit_code(journal: Journal) -> None:
    codes = [int(closing.exit_code(Verdict.RELEASED, error, journal)) for error in ERRORS]
    assert codes == [0, 130, 6, 4, 4, 5, 3, 1]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_gone_but_not_recorded_is_not_proven(error: Any, journal: FullDisk) -> None:
    journal.left = 0
    journal.note("verdict", {"verdict": "released"})
    assert closing.exit_code(Verdict.RELEASED, error, journal) == Exit.UNPROVEN


def test_of_several_leases_the_one_that_costs_is_the_exit_code() -> None:
    held, unproven, leaving, released = Verdict.HELD, Verdict.UNPROVEN, Verdict.LEAVING, Verdict.RELEASED
    assert closing.worst([leaving, held, unproven]) == Exit.HELD
    assert closing.worst([leaving, unproven, released]) == Exit.UNPROVEN
    assert closing.worst([released, leaving]) == Exit.LEAVING
    assert closing.worst([released, None]) == Exit.OK


GENESIS = {"lease": LEASE, "provider": "sim", "settings": {}, "simulated": True}
MADE = {"op": "create", "class": "instance", "token": "t"}
SEEN = {"class": "instance", "id": "i-1", "phase": "here", "state": "running", "billed": True, "region": "r", "facts": {}}


@pytest.mark.parametrize(
    "facts",
    [{}, {"launchTime": "yesterday"}, {"providerDate": "2026-11-21T14:02:10"}, {"type": "another"}],
    ids=lambda f: "".join(f) or "no quote",
)
@pytest.mark.parametrize("verdict", list(Verdict))
def test_no_journal_is_too_odd_to_conclude(verdict: Verdict, facts: dict[str, str], tmp_path: Path) -> None:
    folder = ledger.create({"provider": "sim", "settings": {}})
    with Journal(folder.journal, CLOCK) as journal:
        priced = {} if not facts else {"offer": {"type": "sim"}, "quote": {"lines": [{"name": "instance", "microUsdPerHour": 1}]}}
        journal.append("genesis", {**GENESIS, "lease": folder.id, **priced})
        journal.append("intent", MADE)
        journal.append("observe", {**SEEN, "token": "t", "facts": facts})
        journal.append("verdict", {"verdict": str(verdict)})
        closing.conclude(folder, journal, Outcome.RECOVERED, Exit.OK)
        assert journal.entries[-1]["kind"] == "seal"
        assert closing.now_line(journal.entries)


def test_files_that_cannot_be_read_cost_the_paper_only(tmp_path: Path) -> None:
    folder = ledger.create({"provider": "sim", "settings": {}})
    with Journal(folder.journal, CLOCK) as journal:
        journal.append("genesis", GENESIS)
        (folder.path / "results.json").write_bytes(b"{}")
        folder.evidence.write_text("a file where the folder should be")
        sealed = closing.conclude(folder, journal, Outcome.FAILED, Exit.FAILED)
    assert sealed.evidence is None and sealed.why_not


def test_why_there_is_no_paper_is_said_in_words() -> None:
    assert closing._why_none(OSError(28, "No space left on device", "/x")) == "it could not be written: No space left on device: /x"
    assert closing._why_none(ValueError("y")) == "a bug in gpulease: ValueError: y"


def test_a_full_disk_is_named_as_the_reason_for_no_paper(journal: FullDisk, tmp_path: Path) -> None:
    folder = ledger.create({"provider": "sim", "settings": {}})
    journal.left = 0
    sealed = closing.conclude(folder, journal, Outcome.FAILED, Exit.FAILED)
    assert sealed.evidence is None and "No space left" in sealed.why_not


@pytest.mark.parametrize("verdict", [None, Verdict.UNPROVEN, Verdict.HELD])
@pytest.mark.parametrize("body", [{"rebuilt": True}, {}])
def test_what_may_be_running_is_never_told_as_nothing_was_rented(body: dict[str, Any], verdict: Verdict | None, journal: Journal) -> None:
    journal.append("genesis", {**GENESIS, **body})
    if not body:
        journal.append("observe", SEEN)
    if verdict:
        journal.append("verdict", {"verdict": str(verdict)})
    said = closing.now_line(journal.entries)
    assert said.startswith("assume it is running: at a price that is not known") and "$0" not in said


def test_what_ends_a_machine_that_nobody_here_can_see_is_told_with_its_times(journal: Journal) -> None:
    journal.append("genesis", GENESIS)
    journal.append("observe", SEEN)
    for guard, state, fires in (
        ("watchdog", "armed", "2026-11-21T15:01:00Z"),
        ("guest-timer", "read-back", "2026-11-21T15:00:00Z"),
        ("guest-twin", "failed", None),
        ("guest-lease", "waived", None),
        ("schedule", "read-back", "2026-11-21T15:03:00Z"),
    ):
        journal.append("guard", {"guard": guard, "state": state, "firesAt": fires})
    assert "what ends it without us: its own timer at 15:00 UTC, the schedule at the provider at 15:03 UTC" in closing.now_line(
        journal.entries
    )


def test_a_lease_that_asked_for_nothing_says_so(journal: Journal) -> None:
    journal.append("genesis", GENESIS)
    assert closing.now_line(journal.entries) == "nothing was rented, nothing was spent"
    assert closing.ended_by(journal.entries) is Outcome.NEVER_LAUNCHED


def test_a_machine_found_by_its_tag_alone_was_launched(journal: Journal) -> None:
    journal.append("genesis", {**GENESIS, "rebuilt": True})
    journal.append("observe", SEEN)
    assert closing.ended_by(journal.entries) is Outcome.RECOVERED


def test_an_unwritten_error_number_is_kept(journal: FullDisk) -> None:
    journal.left = 0
    journal.note("stage", {})
    assert journal.unwritten is not None and journal.unwritten.errno == errno.ENOSPC


def test_a_guard_that_stood_on_one_machine_is_not_told_of_the_next() -> None:
    def line(kind: str, **body: Any) -> Any:
        return {"kind": kind, "body": body}

    first, second = (line("intent", op="create", **{"class": "instance"}) for _ in range(2))
    stood = line("guard", guard="guest-timer", state="read-back", firesAt="2026-11-21T15:00:00Z")
    assert "its own timer at 15:00 UTC" in closing.ends_without_us([first, stood])
    assert closing.ends_without_us([first, stood, second]) == ""


class Watched:
    """A provider that shows what its log would keep."""

    anchor = ""

    def __init__(self, error: ProviderError | None = None) -> None:
        self.error, self.shown = error, list[str]()

    def witness(self) -> dict[str, str]:
        self.shown.append(self.anchor)
        if self.error is not None:
            raise self.error
        return {"requestId": "req-last", "providerDate": "2026-11-18T12:00:00Z"}


def concluded(watched: Watched, **genesis: Any) -> tuple[str, Journal, str]:
    folder = ledger.create({"provider": "aws", "settings": {}})
    with Journal(folder.journal, SystemClock()) as journal:
        journal.append("genesis", {"lease": folder.id, "provider": "aws", "settings": {"region": "us-east-1"}, **genesis})
        journal.append("intent", {"op": "create", "class": "instance", "token": "t-1-x", "params": {"region": "us-east-1"}})
        journal.append("verdict", {"verdict": "leaving", "left": [], "settleSeconds": 0, "openIntents": 1})
        assert closing.conclude(folder, journal, Outcome.FAILED, Exit.LEAVING, watched).evidence  # type: ignore[arg-type]
        sealed = next(e["seq"] for e in journal.entries if e["kind"] == "seal")
        return folder.id, journal, hashlib.sha256(folder.journal.read_bytes().splitlines(keepends=True)[sealed]).hexdigest()


def test_the_sealed_head_is_shown_to_the_providers_log_and_the_answer_kept() -> None:
    watched = Watched()
    lease, journal, head = concluded(watched)
    assert watched.shown == [f"run/{lease} jh/{head[:32]}"]
    assert journal.entries[-1]["kind"] == "anchor" and journal.entries[-1]["body"]["head"] == head[:32]


def test_a_login_that_ended_costs_the_anchor_and_not_the_proof() -> None:
    _, journal, _ = concluded(Watched(ProviderError("ExpiredToken")))
    assert journal.entries[-1]["kind"] == "seal"


def test_a_journal_that_another_machine_began_does_not_pass_for_the_runs_in_the_providers_log() -> None:
    watched = Watched()
    lease, _, head = concluded(watched, elsewhere=True)
    assert watched.shown == [f"look/{lease} jh/{head[:32]}"]
