"""A stranger's bundle: what is said about it, which number the program ends with, and that nothing in it gets further."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from provisioner.errors import UsageError
from provisioner.evidence import messages, verify
from provisioner.evidence.canonical import dumps
from tests.evidence import bundles, journals
from tests.evidence.broken import chained
from tests.evidence.bundles import copy, state, write
from tests.evidence.journals import STORIES
from tests.evidence.test_hostile import payload


def codes(folder: Path, **how: Any) -> list[str]:
    return [p.code for p in verify.verify(folder, **how).problems]


def only(folder: Path, **how: Any) -> messages.Problem:
    (problem,) = verify.verify(folder, **how).problems
    return problem


def edit(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize("story", STORIES)
def test_an_honest_bundle_verifies_in_every_layer_and_names_its_tier_first(story: str, tmp_path: Path) -> None:
    report = verify.verify(copy(story, tmp_path / "b"))
    assert report.exit == 0 and report.tier == "client"
    beside = ("identity", "cloudtrail", "bill", "timestamp", "sigstore")
    assert {layer.state for layer in report.layers if layer.name not in beside} == {"ok"}
    first, *rest = report.text().splitlines()
    assert first.startswith("VERDICT  SIMULATED, client-signed. " if story == "rehearsal" else "VERDICT  client-signed. ")
    assert any(line.startswith("NOT SHOWN  ") and "that the client did not lie while it ran" in line for line in rest)


def test_the_words_follow_what_was_seen(tmp_path: Path) -> None:
    said = {story: verify.verify(copy(story, tmp_path / story)).text() for story in STORIES}
    assert "was seen terminated at" in said["normal"] and "4 of 4 kinds of resource were listed and empty" in said["normal"]
    assert "was last seen STILL THERE" in said["held"] and "NOT CLEAN" in said["held"] and "no upper bound" in said["held"]
    assert "was asked to stop, and the answer was yes" in said["leaving"] and "was not seen terminated" in said["leaving"]
    assert "its answer was lost" in said["unproven_open_intent"] and "NOT CLEAN" in said["unproven_open_intent"]
    assert "somebody else's" in said["static"] and "NOT CLEAN" not in said["static"]
    assert "Nothing was ever asked for" in said["never_launched"]
    assert "had it been real" in said["rehearsal"]
    assert "W201" in said["recovered_by_watchdog"]


def test_the_json_begins_with_its_schema_and_says_the_same(tmp_path: Path) -> None:
    made = verify.verify(copy("held", tmp_path / "b")).json()
    assert next(iter(made)) == "schema" and made["schema"] == "gpulease/verify/1"
    assert (made["exit"], made["tier"], made["clean"], made["runVerdict"]) == (0, "client-signed", False, "held")
    assert json.loads(json.dumps(made)) == made


def test_the_statement_itself_may_be_named_instead_of_its_folder(tmp_path: Path) -> None:
    assert verify.verify(copy("normal", tmp_path / "b") / "statement.dsse.json").exit == 0


@pytest.mark.parametrize("tier", verify.TIERS[1:])
def test_a_tier_that_was_not_reached_is_2_and_not_a_contradiction(tier: str, tmp_path: Path) -> None:
    report = verify.verify(copy("normal", tmp_path / "b"), require=tier)
    assert report.exit == 2 and not report.problems and "was asked for and is not reached" in report.text().splitlines()[0]


def test_a_tier_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gold"):
        verify.verify(tmp_path, require="gold")


def test_a_key_that_is_not_trusted_is_2_and_one_that_is_is_0(tmp_path: Path) -> None:
    folder = copy("normal", tmp_path / "b")
    keyid = verify.verify(folder).keyid
    assert verify.verify(folder, trusted_keys=[keyid]).exit == 0
    report = verify.verify(folder, trusted_keys=["0" * 64])
    assert report.exit == 2 and [p.code for p in report.problems] == ["E102"]
    assert "do not trust" in report.text().splitlines()[0] and keyid in report.problems[0].message


def test_an_untrusted_key_does_not_hide_a_contradiction(tmp_path: Path) -> None:
    folder = bundles.forge(tmp_path / "b", "held", lambda s: s["predicate"].update(clean=True))
    assert verify.verify(folder, trusted_keys=[]).exit == 1


def test_a_changed_file_is_named_with_both_digests(tmp_path: Path) -> None:
    folder = copy("normal", tmp_path / "b")
    edit(folder / "samples.jsonl", b"arith-01", b"arith-02")
    problem = only(folder)
    assert problem.code == "E120" and problem.message.startswith("samples.jsonl: sha256 is ") and verify.verify(folder).exit == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("samples.jsonl", "results.json", "journal.jsonl"):
        folder = copy("normal", tmp_path / name)
        (folder / name).unlink()
        assert only(folder).message == f"{name} is named in the statement and is missing from the bundle."
        assert verify.verify(folder).exit == 1


def test_a_missing_report_is_not_missed_and_a_changed_one_is(tmp_path: Path) -> None:
    folder = copy("normal", tmp_path / "b")
    edit(folder / "report.md", b"NOT", b"not") if b"NOT" in (folder / "report.md").read_bytes() else edit(
        folder / "report.md", b"0.07", b"0.01"
    )
    assert only(folder).message == "report.md is not what this statement renders to. Read the statement, not the report."
    (folder / "report.md").unlink()
    assert verify.verify(folder).exit == 0


def test_a_page_made_by_another_version_is_not_called_forged_and_not_called_right(tmp_path: Path) -> None:
    folder = bundles.forge(tmp_path / "b", "normal", lambda s: s["predicate"].update(rendererVersion=7))
    edit(folder / "report.md", b"0.07", b"0.01")
    report = verify.verify(folder)
    assert report.exit == 0 and "rendering  not run  (another version rendered it: read the statement, not the report)" in report.text()


def test_a_file_that_the_statement_does_not_know_is_pointed_out(tmp_path: Path) -> None:
    folder = copy("normal", tmp_path / "b")
    (folder / "audit-passed.pdf").write_bytes(b"")
    report = verify.verify(folder)
    assert report.exit == 0 and "audit-passed.pdf is in the folder and the statement says nothing about it" in report.text()


def test_cutting_the_journal_at_every_line_is_found_by_the_sealed_count(tmp_path: Path) -> None:
    folder = copy("held", tmp_path / "b")
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for n in range(1, len(lines)):
        (folder / "journal.jsonl").write_bytes(b"".join(lines[:n]))
        report = verify.verify(folder)
        assert {p.code for p in report.problems} == {"E120", "E202"} and report.exit == 1
        assert f"journal ends at record {n - 1}, the sealed head is record {len(lines) - 1}. {len(lines) - n} record(s)" in report.text()


def test_cutting_the_journal_in_the_middle_of_a_line_is_found_too(tmp_path: Path) -> None:
    folder = copy("held", tmp_path / "b")
    data = (folder / "journal.jsonl").read_bytes()
    for end in (len(data) - 1, len(data) - 100, 10):
        (folder / "journal.jsonl").write_bytes(data[:end])
        assert verify.verify(folder).exit == 1
    (folder / "journal.jsonl").write_bytes(data + b'{"at')
    assert set(codes(folder)) == {"E120", "E203"}


def test_all_layers_run_and_all_are_reported(tmp_path: Path) -> None:
    folder = copy("normal", tmp_path / "b")
    edit(folder / "journal.jsonl", b"us-east-1a", b"us-east-1b")
    edit(folder / "samples.jsonl", b"arith", b"other")
    edit(folder / "report.md", b"Cost", b"Gain")
    report = verify.verify(folder)
    assert [p.code for p in report.problems] == ["E120", "E120", "E201"]
    assert {layer.name: layer.state for layer in report.layers}["statement"] == "not run"


def test_a_broken_signature_keeps_the_statement_from_being_parsed_but_not_the_journal_from_being_checked(tmp_path: Path) -> None:
    folder = copy("normal", tmp_path / "b")
    edit(folder / "signer.pub.json", b'"public":"', b'"public":"0')
    edit(folder / "journal.jsonl", b"us-east-1a", b"us-east-1b")
    report = verify.verify(folder)
    assert [p.code for p in report.problems] == ["E101", "E201"] and report.predicate is None
    assert "NOT VERIFIED: 2 contradictions" in report.text().splitlines()[0]


def test_every_message_is_one_of_the_table(tmp_path: Path) -> None:
    assert {c for c in messages.TEMPLATES if c[0] == "E"} >= {
        "E001",
        "E002",
        "E003",
        "E101",
        "E102",
        "E110",
        "E120",
        "E121",
        "E201",
        "E202",
        "E203",
    }
    assert (
        messages.problem("E202", n=3, m=5, cut=2).message
        == "journal ends at record 3, the sealed head is record 5. 2 record(s) were cut off."
    )


SPOILT = ("statement.dsse.json", "signer.pub.json", "journal.jsonl", "results.json", "samples.jsonl", "report.md")


@pytest.mark.parametrize("name", SPOILT)
def test_a_flipped_bit_anywhere_in_a_bundle_is_never_accepted(name: str, tmp_path: Path) -> None:
    """Through the whole verifier, a sample of every file; the layers' own tests take every bit of their own."""
    folder = copy("normal", tmp_path / "b")
    data = (folder / name).read_bytes()
    for bit in range(0, len(data) * 8, max(1, len(data) * 8 // 40) | 1):
        spoilt = bytearray(data)
        spoilt[bit // 8] ^= 1 << bit % 8
        (folder / name).write_bytes(spoilt)
        assert verify.verify(folder).exit == 1


def test_a_newer_predicate_asks_for_a_newer_gpulease(tmp_path: Path) -> None:
    made = state(journals.normal()) | {"predicateType": "https://gpulease.dev/attestation/gpu-run-shutdown/v2"}
    report = verify.verify(payload(tmp_path / "b", dumps(made)))
    assert report.exit == 3 and report.problems[0].message.endswith("is newer than this verifier. Install gpulease >= 2.")


def test_a_later_minor_version_may_add_fields_and_limits_and_change_nothing(tmp_path: Path) -> None:
    def later(made: dict[str, Any]) -> None:
        made["predicate"].update(schemaMinor=1, heartbeats=[{"at": "x"}])
        made["predicate"]["run"]["colour"] = "blue"
        made["predicate"]["limits"].append("a-new-limit")

    folder = bundles.forge(tmp_path / "b", "normal", later)
    report = verify.verify(folder)
    assert report.exit == 0 and "a-new-limit, which this version does not know" in report.text()
    again = bundles.forge(tmp_path / "c", "held", lambda s: (later(s), s["predicate"].update(clean=True)))
    assert verify.verify(again).exit == 1


def test_the_answers_dates_may_not_run_backwards(tmp_path: Path) -> None:
    tape = journals.Tape().genesis().launch().run().release()
    tape.sweep()
    tape.wait(-30)
    tape.sweep()
    problem = only(write(tmp_path / "b", tape.verdict().end(files={})))
    assert problem.code == "E204" and "time runs backwards by 30 s against AWS time" in problem.message


@pytest.mark.parametrize("odd", [["static"], {"static": 1}, 7, None], ids=str)
def test_a_provider_that_is_no_name_is_a_contradiction_and_nothing_worse(odd: Any, tmp_path: Path) -> None:
    folder = bundles.copy("normal", tmp_path / "b")
    entries = [json.loads(line) for line in (folder / "journal.jsonl").read_bytes().splitlines()]
    entries[0]["body"]["provider"] = odd
    (folder / "journal.jsonl").write_bytes(chained(entries))
    report = verify.verify(folder)
    assert report.exit == 1 and report.problems


def test_the_clock_of_a_lent_machine_may_be_set_and_proves_nothing(tmp_path: Path) -> None:
    tape = journals.Tape().genesis(provider="static", settings={"host": "user@203.0.113.9"})
    for date in ("2026-11-18T12:00:00Z", "2026-11-18T09:00:00Z"):
        rows = [{"class": "host-lock", "region": "203.0.113.9", "checked": True, "found": 0}]
        tape.add("sweep", checked=True, classes=rows, found=0, requestIds=[], providerDate=date)
        tape.wait(2)
    report = verify.verify(write(tmp_path / "b", tape.verdict().end(files={})))
    assert report.exit == 0 and report.predicate is not None and "local-clock" in report.predicate["limits"]


def test_results_that_cannot_be_read_hide_no_contradiction_elsewhere(tmp_path: Path) -> None:
    """Found by mutation 301685: with the name of one file spoilt, the exit code was 3, as if nothing were known to be wrong."""
    made = state(STORIES["normal"]())
    (subject,) = [one for one in made["subject"] if one["name"] == "samples.jsonl"]
    subject["name"] = "2026-11-18T11:08:00Z"
    report = verify.verify(write(tmp_path / "b", STORIES["normal"](), made))
    assert [p.code for p in report.problems] == ["E003", "E301"] and report.exit == 1
    made = state(STORIES["normal"]())
    made["predicate"]["settleSeconds"] += 1
    (write(tmp_path / "c", STORIES["normal"](), made) / "results.json").unlink()
    (tmp_path / "c" / "results.json").symlink_to("/etc/hostname")
    report = verify.verify(tmp_path / "c")
    assert [p.code for p in report.problems] == ["E001", "E301"] and report.exit == 1
    left = {layer.name: layer.state for layer in report.layers}
    assert (left["cost"], left["rendering"]) == ("ok", "not run")


@pytest.mark.parametrize("records", [2000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_a_long_journal_is_verified_in_seconds(records: int, tmp_path: Path) -> None:
    tape = journals.Tape().genesis().guards().launch().run()
    while len(tape.lines) < records:
        tape.add("stage", stage="eval", state="begin", detail={"n": len(tape.lines), "text": "x" * 60})
    folder = write(tmp_path / "b", tape.release().quiet().verdict().end(files={}))
    begun = time.process_time()
    assert verify.verify(folder).exit == 0
    assert time.process_time() - begun < 8
