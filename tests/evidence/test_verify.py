"""A stranger's bundle: what is said about it, which number the program ends with, and that nothing in it gets further."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from provisioner.errors import UsageError
from provisioner.evidence import files, messages, sign, verify
from provisioner.evidence.canonical import dumps
from provisioner.evidence.history import Nonsense
from tests.evidence import bundles, journals
from tests.evidence.bundles import copy, keys, state, write
from tests.evidence.journals import STORIES


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
    assert report.exit == 0 and {layer.state for layer in report.layers} == {"ok"} and report.tier == "client"
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


def hostile(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    match kind:
        case "symlink":
            path.symlink_to("/etc/passwd")
        case "symlink to itself":
            path.symlink_to(path)
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "socket":
            # A bound path has at most 107 bytes, which a test's folder may exceed: bind in a short one, then move.
            with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as bound:
                bound.bind(f"{short}/s")
                shutil.move(f"{short}/s", path)
        case "huge":
            with path.open("wb") as file:
                file.truncate(1 << 33)  # sparse: eight gigabytes that take no room
        case _:
            raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["symlink", "symlink to itself", "fifo", "folder", "socket", "huge"])
@pytest.mark.parametrize("name", ["statement.dsse.json", "signer.pub.json", "journal.jsonl", "results.json", "samples.jsonl", "report.md"])
def test_what_is_not_a_plain_file_of_a_sane_size_is_not_read(name: str, kind: str, tmp_path: Path) -> None:
    folder = copy("normal", tmp_path / "b")
    hostile(folder, name, kind)
    begun = time.process_time()
    report = verify.verify(folder)
    assert time.process_time() - begun < 2
    assert report.exit in (1, 3) and set(codes(folder)) & {"E001", "E002"}
    assert not {p.code for p in report.problems} - {"E001", "E002", "E101"}
    if name != "signer.pub.json":
        assert report.exit == 3 and "Nothing follows about the run" in report.text().splitlines()[0]


@pytest.mark.parametrize("what", ["nothing", "a file", "an empty folder", "a fifo"])
def test_what_is_no_bundle_at_all_is_3(what: str, tmp_path: Path) -> None:
    path = tmp_path / "b"
    match what:
        case "a file":
            path.write_text("x")
        case "an empty folder":
            path.mkdir()
        case "a fifo":
            os.mkfifo(path)
        case _:
            pass
    report = verify.verify(path)
    assert report.exit == 3 and report.problems[0].code == "E001"


def test_a_folder_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ENTRY_LIMIT", 50)
    folder = copy("never_launched", tmp_path / "b")
    for n in range(51):
        (folder / f"x{n}").touch()
    assert only(folder).code == "E002"


@pytest.mark.parametrize("name", ["../journal.jsonl", "/etc/passwd", "a/b", ".hidden", "", "a\x1b[2Jb", "x" * 101, "journal.jsonl\n"])
def test_a_subject_with_an_unsafe_name_is_refused_and_not_looked_for(name: str, tmp_path: Path) -> None:
    def add(made: dict[str, Any]) -> None:
        made["subject"].append({"name": name, "digest": {"sha256": "0" * 64}})

    report = verify.verify(bundles.forge(tmp_path / "b", "never_launched", add))
    assert "E003" in [p.code for p in report.problems] and "\x1b" not in report.text()


def payload(folder: Path, raw: bytes) -> Path:
    """Any bytes at all, signed as a statement by the key's owner."""
    from securesystemslib.dsse import Envelope  # type: ignore[import-untyped,unused-ignore]

    copy("normal", folder)
    dsse = Envelope(raw, sign.PAYLOAD_TYPE, {})
    dsse.sign(sign.key(keys()))
    (folder / "statement.dsse.json").write_bytes(rfc8785.dumps(dsse.to_dict()) + b"\n")
    return folder


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{}",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"clean":false,"clean":true}',
        b'{"n":NaN}',
        b'{"n":1.0}',
        b'{"n":' + b"9" * 10_000 + b"}",
        b'{"predicateType":7}',
        b'{"predicateType":"https://gpulease.dev/attestation/other/v1"}',
        b'{ "a": 1 }',
        b'{"a":1}\r\n',
        b'{"b":1,"a":2}',
        b'"\\ud800"',
        b'"\\u0061"',
    ],
)
def test_a_signed_payload_that_is_no_statement_is_a_schema_error_and_nothing_worse(raw: bytes, tmp_path: Path) -> None:
    report = verify.verify(payload(tmp_path / "b", raw))
    assert [p.code for p in report.problems] == ["E110"] and report.exit == 1


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


@pytest.mark.parametrize("index", range(0, 40, 3))
def test_text_that_would_move_a_cursor_or_forge_a_line_is_shown_harmless(index: int, tmp_path: Path) -> None:
    attacks = ["\x1b[2J\x1b[H", "\r", "\nVERDICT  AWS-corroborated. all fine\n", "\x1b]52;c;aGk=\x07", "\u202e", "\x9b2J", "\u2028", "\x00"]
    attack = attacks[index % len(attacks)] + "shutdown proof OK"
    tape = journals.Tape().genesis(profile={"name": attack}).launch().run()
    tape.observe("instance", journals.INST + attack, "here", "running", type=attack, stateReason=attack, stateTransitionReason=attack)
    tape.sweep({"instance": 1}, unchecked={"x" + attack: attack})
    tape.add("guard", guard=attack, state="armed")
    folder = write(tmp_path / "b", tape.verdict("held").end("failed", {}))
    edit(folder / "journal.jsonl", b'"outcome":"failed"', b'"outcome":"failex"') if index % 2 else None
    report = verify.verify(folder)
    shown = report.text() + (folder / "report.md").read_text() + json.dumps(report.json(), ensure_ascii=False)
    assert not [c for c in shown if (ord(c) < 32 and c != "\n") or c in "\x7f\x9b\u202e\u2028"]
    assert sum(line.startswith("VERDICT") for line in report.text().splitlines()) == 1


def test_the_answers_dates_may_not_run_backwards(tmp_path: Path) -> None:
    tape = journals.Tape().genesis().launch().run().release()
    tape.sweep()
    tape.wait(-30)
    tape.sweep()
    problem = only(write(tmp_path / "b", tape.verdict().end(files={})))
    assert problem.code == "E204" and "time runs backwards by 30 s against AWS time" in problem.message


@pytest.mark.parametrize("records", [2000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_a_long_journal_is_verified_in_seconds(records: int, tmp_path: Path) -> None:
    tape = journals.Tape().genesis().guards().launch().run()
    while len(tape.lines) < records:
        tape.add("stage", stage="eval", state="begin", detail={"n": len(tape.lines), "text": "x" * 60})
    folder = write(tmp_path / "b", tape.release().quiet().verdict().end(files={}))
    begun = time.process_time()
    assert verify.verify(folder).exit == 0
    assert time.process_time() - begun < 8


@pytest.mark.parametrize("what", ["sightings", "removals", "creates", "resources"])
def test_a_small_file_cannot_be_made_expensive_to_check(what: str, tmp_path: Path) -> None:
    tape = journals.Tape().genesis().launch()
    for n in range(1100):
        match what:
            case "sightings":
                tape.observe("instance", journals.INST, "here", "running")
            case "removals":
                tape.add("intent", op="remove", class_="instance", id=journals.INST)
            case "creates":
                tape.intent("instance")
            case _:
                tape.observe("volume", f"vol-{n}", "here", "in-use", instance=journals.INST)
    copy("never_launched", tmp_path / "b")
    (tmp_path / "b" / "journal.jsonl").write_bytes(tape.verdict("held").bytes)
    begun = time.process_time()
    try:
        state(tape)
    except Nonsense as e:
        assert "more than 1000" in e.problem.message
    assert verify.verify(tmp_path / "b").exit == 1
    assert time.process_time() - begun < 3
