"""Tables for a terminal and pages for people: from a lease's files, and honest about what the samples do not confirm."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

import cost
from provisioner import report
from provisioner.errors import RunError
from provisioner.evals import stats
from provisioner.evidence import chain, render, words
from provisioner.render import cost_text
from provisioner.report import markdown, tables
from tests.evidence import bundles
from tests.report.leases import asked, bare, folder


@pytest.fixture(scope="module")
def lease(tmp_path_factory: pytest.TempPathFactory) -> report.Record:
    return report.load(folder(tmp_path_factory.mktemp("report") / "one"))


def test_a_lease_in_full_shows_every_table(lease: report.Record) -> None:
    text = tables.lease(lease)
    for title in (
        "answers",
        "thresholds",
        "latency in ms, on the machine itself",
        "latency in ms, through the tunnel",
        "cost in USD",
        "guards",
    ):
        assert f"\n{title}\n" in text
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert {"(all) host 30 24 80.0 62.6 to 90.5", "arithmetic host 15 12 80.0 54.8 to 93.0", "time to first token 80.0 - - -"} <= set(rows)
    assert {"accuracy_percent 90 80 NO", "time to first token 15.0"} <= set(rows)
    assert text.splitlines()[-1].startswith("not shown: which account it was;")


def test_the_samples_confirm_the_figures(lease: report.Record) -> None:
    assert lease.doubts == [] and "do not confirm" not in tables.lease(lease)


def test_a_figure_that_the_samples_do_not_confirm_is_named(tmp_path: Path) -> None:
    record = report.load(folder(tmp_path / "one", spoil=True))
    assert record.doubts == ["host ttftP50Ns is 50000000 in results.json; the samples give 80000000"]
    assert "the samples do not confirm:" in tables.lease(record)


def test_samples_that_cannot_be_read_are_a_doubt_and_not_a_failure(lease: report.Record) -> None:
    assert report.doubts(lease.measured, b"{}\n")[0].startswith("samples.jsonl cannot be read: line 1")
    assert report.doubts({}, b"") == report.doubts(lease.measured, None) == []


def test_what_a_model_answered_never_reaches_the_terminal(lease: report.Record) -> None:
    text = tables.lease(lease) + tables.results_text(lease.measured)
    assert "\x1b" not in text and "shutdown proof OK" not in text


def test_columns_stand_in_line_whatever_the_script(lease: report.Record) -> None:
    lines = tables.table(("tag", "n"), [("算术", 1), ("sum", 22), ("e\u0301", 333)])
    assert len({tables.width(line) for line in lines}) == 1
    assert lines[1].endswith("  1") and lines[2].endswith(" 22")


def test_an_empty_table_is_no_table() -> None:
    assert tables.table(("a", "b"), []) == [] and tables.titled("x", []) == []


def test_a_lease_that_measured_nothing_still_has_its_verdict_and_what_is_left(tmp_path: Path) -> None:
    text = tables.report_text([report.load(bare(tmp_path / "held", "held"))])
    assert "failed, held, NOT CLEAN" in text and "not shown to be gone" in text and "no bound" in text and "answers" not in text


@pytest.mark.parametrize("story", [s for s in bundles.STORIES if not bundles.files_of(bundles.STORIES[s]())])
def test_every_story_can_be_reported(story: str, tmp_path: Path) -> None:
    record = report.load(bare(tmp_path / "x", story))
    assert record.id in tables.lease(record) and markdown.lease(record).startswith(b"# gpulease run")


def test_a_rehearsal_says_simulated_before_anything_else(tmp_path: Path) -> None:
    record = report.load(folder(tmp_path / "one", simulated=True))
    assert tables.lease(record).startswith("SIMULATED  ") and "SIMULATED" in tables.compare([record])


def test_several_leases_are_compared_one_a_row(lease: report.Record, tmp_path: Path) -> None:
    held = report.load(bare(tmp_path / "held", "held"))
    lines = tables.report_text([lease, held]).splitlines()
    assert (
        len(lines) == 3 and "g6.xlarge (L4)" in lines[1] and "80.0" in lines[1] and "held, not clean" in lines[2] and "no bound" in lines[2]
    )
    assert markdown.compare([lease, held]).decode().count("| 7f3a9k2m |") == 2


def test_the_page_of_one_lease_is_the_page_of_its_proof(lease: report.Record) -> None:
    assert markdown.lease(lease) == render.report(lease.statement, lease.results)


def test_an_evidence_folder_can_be_reported_too(tmp_path: Path) -> None:
    assert report.load(bundles.copy("normal", tmp_path / "e")).id == "r-20261118t120640z-7f3a9k2m"


def test_a_lease_still_running_can_be_reported(tmp_path: Path) -> None:
    path = bare(tmp_path / "x", "held")
    data = (path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (path / "journal.jsonl").write_bytes(b"".join(data[:12]) + b'{"at"')
    record = report.load(path)
    assert "no outcome, unproven, NOT CLEAN" in tables.lease(record)


@pytest.mark.parametrize("spoil", ["missing", "broken"])
def test_a_folder_that_cannot_be_read_is_an_error_with_a_next_step(spoil: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if spoil == "broken":
        path.mkdir()
        (path / "journal.jsonl").write_bytes(b"{}\n")
    with pytest.raises(RunError) as caught:
        report.load(path)
    assert caught.value.why and caught.value.next.startswith("gpulease verify")


def test_the_record_for_json_holds_the_statement_and_the_results(lease: report.Record) -> None:
    made = lease.record()
    assert list(made) == ["lease", "predicate", "results", "doubts", "interruptions", "goingOn"] and json.loads(json.dumps(made)) == made


def test_one_cost_has_one_answer_at_the_end_of_a_run_in_its_report_and_in_its_proof(lease: report.Record) -> None:
    spent = lease.predicate["cost"]
    lo, best, hi = (spent[f"total{end}MicroUsd"] for end in ("Lo", "Best", "Hi"))
    assert lo % 10_000 and best % 10_000 and hi % 10_000  # each is rounded
    ending = re.findall(r"\$([0-9.]+)", cost_text(cost.Spend(lo, best, hi, False)))
    *_, low, likely, high = tables.cost_rows(lease.predicate)[-1]
    assert ending == [likely, low, high] and f"{low} to {high} USD" in words.first(lease.predicate)[-1]
    assert float(low) * 1e6 <= lo and float(high) * 1e6 >= hi
    assert "reckoned with: public list price\n" in tables.lease(lease)


def test_what_one_vantage_measured_is_shown_though_the_other_had_not_begun(lease: report.Record) -> None:
    results = {"stats": {"host": lease.measured["stats"]["host"], "tunnel": {"sent": 0, "absent": {"all": "no request was sent"}}}}
    rows = [" ".join(line.split()) for line in tables.results_text(results).splitlines()]
    assert any(row.startswith("time to first token 80.0") for row in rows)
    assert "  no request was sent" in tables._measured(results)


def test_instead_of_a_table_without_a_figure_there_is_the_reason() -> None:
    few = stats.figures(asked("host", 80_000_000)[:3])
    few = {name: value for name, value in few.items() if not name.startswith("itl")}  # of gaps between tokens there are enough
    why = "needs 20 samples; there are 3"
    for lines in (tables.results_text({"stats": {"host": few}}).splitlines(), tables._measured({"stats": {"host": few}})):
        assert any(why in line for line in lines) and not any("time to first token" in line for line in lines)


def test_a_machine_that_was_taken_back_is_told_with_its_time_what_was_answered_and_where_the_run_went_on(tmp_path: Path) -> None:
    path = bare(tmp_path / "x", "held")
    entries = [e for e in chain.read((path / "journal.jsonl").read_bytes()).entries if e["kind"] in ("done", "observe")]
    back = {"error": "Interrupted", "what": "the provider takes the spot machine back", "why": "41 answers are kept"}
    taken = {**entries[0], "kind": "failure", "body": back}
    first = {
        **entries[0],
        "kind": "done",
        "body": {"class": "instance", "id": "i-1", "facts": {"zone": "us-east-1a"}, "region": "us-east-1"},
    }
    again, second = {**first, "kind": "observe"}, {**first, "body": {**first["body"], "id": "i-2", "facts": {"zone": "us-east-1c"}}}
    at = entries[0]["at"]["wall"][11:19]
    told = f"{at} UTC: the provider takes the spot machine back; 41 answers are kept"
    assert report.interruptions([first, taken]) == report.interruptions([first, taken, again]) == [told]
    (line,) = report.interruptions([first, taken, again, second])
    assert line == f"{told}; it went on in us-east-1c, on i-2"
    record = dataclasses.replace(report.load(path), interruptions=[line])
    assert f"\n  {line}.\n" in tables.lease(record) and record.record()["interruptions"] == [line]
