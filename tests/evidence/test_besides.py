"""What was new and not of the run, as a proof says it: counted where both lists were whole, else not looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from provisioner.evidence import render, verify, words
from tests.evidence.bundles import copy, state, write
from tests.evidence.journals import KINDS, Tape, looked, somebody_else
from tests.evidence.test_auditor import agree


def told(tape: Tape) -> dict[str, Any]:
    predicate: dict[str, Any] = state(tape)["predicate"]
    return predicate


def run(before: list[dict[str, Any]], after: list[dict[str, Any]] | None, verdict: str = "released") -> Tape:
    tape = Tape().genesis().guards()
    tape.add("baseline", classes=before, sha256="ab" * 32)
    tape.launch().run().release().quiet().verdict(verdict)
    if after is not None:
        tape.add("unfiltered", classes=after)
    return tape.end(files={})


def test_a_new_thing_is_a_warning_and_the_run_is_as_clean_as_it_was(tmp_path: Path) -> None:
    report = verify.verify(copy("somebody_else", tmp_path / "b"))
    assert report.exit == 0 and report.predicate is not None and report.predicate["clean"]
    assert [w.message for w in report.warnings if w.code.startswith("W30")] == [
        "1 new volume in us-east-1, not there before the launch and not known to be of this run: may be somebody else's."
    ]
    assert "1 volume; may be somebody else's (4 of 6 kinds were listed both times)." in report.text()
    assert {"new-unexplained", "baseline-incomplete"} <= {*report.predicate["limits"]}


def test_what_could_not_be_listed_has_no_count() -> None:
    rows = {row["class"]: row for row in told(somebody_else())["unfiltered"]["classes"]}
    assert rows["volume"]["newUnexplained"] == 1 and rows["instance"]["newUnexplained"] == 0
    for kind in ("snapshot", "elastic-ip"):
        assert not rows[kind]["checked"] and rows[kind]["reason"] and "newUnexplained" not in rows[kind]


def test_only_two_whole_lists_of_every_kind_take_the_limit_away() -> None:
    whole = [looked(kind) for kind in KINDS]
    both = told(run(whole, [looked(kind, new=0) for kind in KINDS]))
    assert not {"no-baseline", "baseline-incomplete", "new-unexplained"} & {*both["limits"]}
    assert "nothing (4 of 4 kinds were listed both times)" in " ".join(words.verdict(both))
    once = told(run(whole, None))
    assert "no-baseline" in once["limits"] and "seq" not in once["unfiltered"]
    assert {row["reason"] for row in once["unfiltered"]["classes"]} == {"nobody looked again"}
    refused = told(run(whole, [looked(kind, why="AWS answered AccessDenied") for kind in KINDS]))
    assert "no-baseline" in refused["limits"] and "was not looked at" in " ".join(words.verdict(refused))
    assert "no-baseline" in told(run([], []))["limits"], "a line that was too long for the journal lost its rows"


def test_something_of_this_run_that_is_shown_after_the_verdict_is_said_and_changes_nothing(tmp_path: Path) -> None:
    late = run([looked("volume")], [looked("volume", ours=1, new=0)])
    report = verify.verify(write(tmp_path / "b", late))
    assert report.exit == 0 and [w.code for w in report.warnings if w.code.startswith("W30")] == ["W302"]
    assert report.predicate is not None and report.predicate["verdict"] == "released"


def test_the_script_tells_of_it_too_whatever_the_journal_holds(tmp_path: Path) -> None:
    rows = [looked("volume") | {"found": 3, "newUnexplained": 5}, looked("snapshot", why="")]
    odd = [
        run(rows, None),
        run([], [looked("volume", new=2)]),
        run(rows, [looked("volume", new=4) | {"regions": ["us-east-1", "eu-west-1"], "more": 1}]),
        run([looked("volume", new=7)], None),
    ]
    twice = Tape().genesis()
    for new in (1, 2):
        twice.add("unfiltered", classes=[looked("volume", new=new)])
        twice.add("baseline", classes=rows)
    for n, tape in enumerate((*odd, twice)):
        assert agree(write(tmp_path / str(n), tape)) == (0, 0), n
    assert told(odd[2])["unfiltered"]["classes"] == [
        {"class": "volume", "regions": ["us-east-1", "eu-west-1"], "checked": True, "ours": 0, "newUnexplained": 4}
    ]


def test_the_report_has_a_row_for_what_there_is_to_say_and_one_for_all_the_rest() -> None:
    quiet = [{"class": kind, "regions": ["us-east-1"], "checked": True, "ours": 0, "newUnexplained": 0} for kind in ("image", "snapshot")]
    loud: list[dict[str, Any]] = [
        {"class": "volume", "regions": ["us-east-1"], "checked": True, "ours": 0, "newUnexplained": 2},
        {"class": "fleet", "regions": ["us-east-1"], "checked": False, "ours": 1, "reason": "not permitted"},
    ]
    rows = [("volume", "us-east-1", 2, 0, ""), ("fleet", "us-east-1", "not looked at", 1, "not permitted")]
    assert render.besides_rows({"classes": [*quiet, *loud]}) == [*rows, ("2 other kinds", "", 0, 0, "")]
    assert render.besides_rows({"classes": quiet}) == [("2 kinds", "", 0, 0, "")] and render.besides_rows({"classes": loud}) == rows
