"""The reader of a journal's bytes: one valid form, and the exact place where it stops being one."""

from __future__ import annotations

import functools
import hashlib
import json

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner import journal
from provisioner.evidence import chain
from tests.evidence.journals import STORIES, Tape, never_launched, normal, static


def fault(data: bytes) -> tuple[str, int | None, int | None]:
    with pytest.raises(chain.Broken) as caught:
        chain.read(data)
    problem = caught.value.problem
    assert problem.message.startswith(("journal", "schema", "cannot"))
    return problem.code, problem.seq, problem.offset


def relinked(entries: list[dict[str, object]]) -> bytes:
    """Lines whose chain somebody took the trouble to redo."""
    head, lines = "0" * 64, []
    for entry in entries:
        line = rfc8785.dumps(entry | {"prev": head}) + b"\n"  # type: ignore[arg-type]
        head = hashlib.sha256(line).hexdigest()
        lines.append(line)
    return b"".join(lines)


@pytest.mark.parametrize("story", STORIES)
def test_every_story_is_a_sound_chain_and_reads_back_as_it_was_written(story: str) -> None:
    tape = STORIES[story]()
    read = chain.read(tape.bytes)
    assert list(read.entries) == tape.entries and read.head == tape.head and read.torn == b""
    assert read.sha256 == hashlib.sha256(tape.bytes).hexdigest()


def test_it_agrees_with_the_reader_of_the_program_that_writes_journals(tmp_path: object) -> None:
    path = tmp_path / "journal.jsonl"  # type: ignore[operator]
    tape = normal()
    for cut in (*range(0, len(tape.bytes), 97), len(tape.bytes)):
        path.write_bytes(tape.bytes[:cut])
        ours, theirs = chain.read(tape.bytes[:cut]), journal.read(path)
        assert (list(ours.entries), ours.head, ours.torn) == (theirs.entries, theirs.head, theirs.torn)


def test_what_the_writer_writes_is_read_here(tmp_path: object) -> None:
    path = tmp_path / "journal.jsonl"  # type: ignore[operator]

    class Noon:
        def now(self) -> float:
            return 1_795_000_000.123

        def counting(self) -> float:
            return 12.5

        def sleep(self, seconds: float) -> None: ...

    with journal.Journal(path, Noon()) as written:
        written.append("genesis", {"lease": "x", "provider": 'ü \u2028 \x00 "\\'})
        written.append("observe", {"facts": {"sizeGib": 2**53 - 1}, "requestIds": [True, False, ""], "state": "x" * 9000})
        assert list(chain.read(path.read_bytes()).entries) == written.entries


def test_a_line_changed_in_place_is_named_by_the_line_after_it() -> None:
    lines = normal().lines
    lines[5] = lines[5].replace(b"us-east-1a", b"us-east-1b")
    assert fault(b"".join(lines)) == ("E201", 6, sum(map(len, lines[:6])))


@pytest.mark.parametrize("at", [1, 7, 20])
def test_a_line_removed_inserted_swapped_or_doubled_is_named(at: int) -> None:
    lines = normal().lines
    removed = [*lines[:at], *lines[at + 1 :]]
    doubled = [*lines[:at], lines[at], *lines[at:]]
    swapped = [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]
    inserted = [*lines[:at], static().lines[1], *lines[at:]]
    offset = sum(map(len, lines[:at]))
    assert fault(b"".join(removed)) == ("E201", at, offset)
    assert fault(b"".join(doubled)) == ("E201", at + 1, offset + len(lines[at]))
    assert fault(b"".join(swapped)) == ("E201", at, offset)
    assert fault(b"".join(inserted))[:2] == ("E201", at)


def test_a_seq_that_does_not_count_is_named_even_when_the_chain_was_redone() -> None:
    entries = normal().entries
    assert fault(relinked([*entries[:4], *entries[5:]]))[:2] == ("E201", 4)


def test_cutting_at_every_line_leaves_a_sound_chain_because_a_chain_proves_nothing_about_its_end() -> None:
    lines = normal().lines
    for n in range(len(lines)):
        assert len(chain.read(b"".join(lines[:n])).entries) == n


def test_half_a_last_line_and_a_last_line_of_zeros_are_torn_and_not_tampering() -> None:
    data = normal().bytes
    assert chain.read(data + b'{"at":{"wa').torn == b'{"at":{"wa'
    assert chain.read(data + b"\0" * 40 + b"\n").torn == b"\0" * 40 + b"\n"


def respelled(how: str) -> bytes:
    lines = normal().lines
    line = lines[3]
    entry = json.loads(line)
    lines[3] = {
        "spaces": json.dumps(entry, sort_keys=True).encode() + b"\n",
        "order": json.dumps(dict(reversed(entry.items())), separators=(",", ":")).encode() + b"\n",
        "escapes": line.replace(b'"intent"', b'"\\u0069ntent"'),
        "crlf": line[:-1] + b"\r\n",
        "bom": b"\xef\xbb\xbf" + line,
        "float": line.replace(b'"v":1', b'"v":1.0'),
        "fraction": line.replace(b'"v":1', b'"v":1.5'),
        "exponent": line.replace(b'"v":1', b'"v":1e0'),
        "nan": line.replace(b'"v":1', b'"v":NaN'),
        "infinity": line.replace(b'"v":1', b'"v":Infinity'),
        "minus-zero": line.replace(b'"v":1', b'"v":-0'),
        "huge-number": line.replace(b'"v":1', b'"v":' + b"9" * 5000),
        "duplicate-key": line.replace(b'"v":1}', b'"v":1,"v":1}'),
        "duplicate-inside": line.replace(b'"diskGib":60', b'"diskGib":60,"diskGib":60'),
        "not-utf8": line.replace(b"us-east-1a", b"us-east-\xff\xff"),
        "lone-surrogate": line.replace(b"us-east-1a", b"\\ud800"),
        "empty-line": b"\n" + line,
        "array": b"[]\n",
        "text": b'"x"\n',
        "deep": b"[" * 5000 + b"]" * 5000 + b"\n",
        "blank-after": line[:-1] + b" \n",
    }[how]
    return b"".join(lines)


RESPELLED = ["spaces", "order", "escapes", "crlf", "bom", "float", "fraction", "exponent", "nan", "infinity", "minus-zero", "huge-number"]
RESPELLED += ["duplicate-key", "duplicate-inside", "not-utf8", "lone-surrogate", "empty-line", "deep", "blank-after"]


@pytest.mark.parametrize("how", RESPELLED)
def test_a_line_in_any_other_form_is_not_canonical(how: str) -> None:
    assert fault(respelled(how))[:2] == ("E203", 3)


@pytest.mark.parametrize("how", ["array", "text"])
def test_a_line_that_is_no_record_is_a_matter_of_the_schema(how: str) -> None:
    assert fault(respelled(how))[0] == "E110"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"v": 2}, ".v"),
        ({"seq": True}, ".seq"),
        ({"kind": "Genesis"}, ".kind"),
        ({"body": []}, ".body"),
        ({"extra": 1}, ".extra"),
        ({"at": {"wall": "2026-11-21 14:02:10Z"}}, ".at.wall"),
        ({"at": {"wall": "2026-13-21T14:02:10Z"}}, ".at.wall"),
        ({"at": {"wall": "1999-11-21T14:02:10Z"}}, ".at.wall"),
        ({"at": {"wall": "2026-11-21T14:02:10+00:00"}}, ".at.wall"),
        ({"at": {"wall": "2026-11-21T14:02:10Z\n"}}, ".at.wall"),
        ({"at": {"monoMs": 1}}, ".at.wall"),
        ({"at": {"wall": "2026-11-21T14:02:10Z", "uncMs": -1}}, ".at.uncMs"),
    ],
)
def test_a_record_of_another_shape_is_named_by_its_field(change: dict[str, object], path: str) -> None:
    tape = never_launched()
    with pytest.raises(chain.Broken) as caught:
        chain.read(relinked([tape.entries[0], tape.entries[1] | change]))
    assert caught.value.problem.code == "E110" and f"$journal[1]{path}" in caught.value.problem.message


def test_a_line_and_a_file_have_bounds() -> None:
    tape = Tape().genesis()
    tape.add("stage", stage="verify", state="done", detail={"text": "x" * 16_500})
    assert fault(tape.bytes)[0] == "E110"
    assert fault(b"\n" * (chain.FILE_LIMIT + 1))[0] == "E002"


@pytest.mark.parametrize(("story", "step"), [("unproven_open_intent", 7), pytest.param("normal", 3, marks=pytest.mark.slow)])
def test_no_flipped_bit_is_read_as_another_journal(story: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chain breaks, or only the last record changed and the file's digest tells."""
    # What a line says depends on nothing but its bytes, place and forerunner: those before the flip need to be read only once.
    monkeypatch.setattr(chain, "_entry", functools.cache(chain._entry))
    data = STORIES[story]().bytes
    want = chain.read(data)
    for bit in range(0, len(data) * 8, step):
        spoilt = bytearray(data)
        spoilt[bit // 8] ^= 1 << bit % 8
        try:
            got = chain.read(bytes(spoilt))
        except chain.Broken:
            continue
        assert got.entries[: len(want.entries) - 1] == want.entries[:-1]
        assert got.head != want.head


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_read_or_refused_and_nothing_else(data: bytes) -> None:
    tape = never_launched()
    for raw in (data, tape.bytes + data, tape.lines[0] + data + b"\n" + tape.lines[1]):
        try:
            chain.read(raw)
        except chain.Broken as e:
            assert e.problem.code in ("E110", "E201", "E203")
