"""Bundles made to hurt whoever looks at them: nothing is opened that should not be, nothing hangs, nothing gets through."""

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

from provisioner.evidence import files, messages, sign, verify
from provisioner.evidence.history import Nonsense
from tests.evidence import bundles, journals
from tests.evidence.bundles import copy, keys, state, write


def codes(folder: Path, **how: Any) -> list[str]:
    return [p.code for p in verify.verify(folder, **how).problems]


def only(folder: Path, **how: Any) -> messages.Problem:
    (problem,) = verify.verify(folder, **how).problems
    return problem


def edit(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


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


@pytest.mark.parametrize("name", ["report.md", "statement.dsse.json", "signer.pub.json", "journal.jsonl"])
def test_a_subject_may_not_name_what_the_proof_itself_is_made_of(name: str, tmp_path: Path) -> None:
    def add(made: dict[str, Any]) -> None:
        made["subject"].append({"name": name, "digest": {"sha256": "0" * 64}})

    assert "$.subject" in only(bundles.forge(tmp_path / "b", "never_launched", add)).message


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
