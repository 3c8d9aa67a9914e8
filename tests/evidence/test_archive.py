"""A bundle as one zip: the same bytes from the same files, read without believing its directory, and never unpacked to disk."""

from __future__ import annotations

import io
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioner.evidence import archive, verify
from provisioner.evidence.files import Folder, Unreadable
from tests.evidence.bundles import copy

NAME = "r-20261118t120640z-7f3a9k2m.evidence"


def members(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def zipped(to: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED, **change: object) -> Path:
    """A zip by anybody's program."""
    with zipfile.ZipFile(to, "w", method) as made:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, (2026, 11, 18, 1, 2, 3))
            info.compress_type = method
            for field, value in change.items():
                setattr(info, field, value)
            made.writestr(info, data)
    return to


def test_the_same_files_make_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    files = members(copy("normal", tmp_path / "b"))
    one, two = archive.packed(files, NAME), archive.packed(dict(reversed(files.items())), NAME)
    assert one == two and zipfile.ZipFile(io.BytesIO(one)).testzip() is None
    assert {info.date_time for info in zipfile.ZipFile(io.BytesIO(one)).infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("story", ["normal", "held", "rehearsal"])
def test_a_zip_is_verified_like_the_folder_it_was_made_of(story: str, tmp_path: Path) -> None:
    folder = copy(story, tmp_path / "b")
    (tmp_path / "b.zip").write_bytes(archive.packed(members(folder), NAME))
    in_folder, in_zip = verify.verify(folder), verify.verify(tmp_path / "b.zip")
    assert in_zip.text() == in_folder.text() and in_zip.exit == in_folder.exit == 0


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("around", ["", f"{NAME}/"])
def test_a_zip_made_by_another_program_is_as_good(around: str, method: int, tmp_path: Path) -> None:
    files = {around + name: data for name, data in members(copy("normal", tmp_path / "b")).items()}
    assert verify.verify(zipped(tmp_path / "b.zip", files, method)).exit == 0


def test_an_edit_inside_a_zip_is_found_as_it_is_in_a_folder(tmp_path: Path) -> None:
    files = members(copy("normal", tmp_path / "b"))
    files["results.json"] = files["results.json"].replace(b"true", b"fals", 1)
    assert "E120" in {p.code for p in verify.verify(zipped(tmp_path / "b.zip", files)).problems}


@pytest.mark.parametrize(
    "name", ["../statement.dsse.json", "/etc/passwd", "a/../../b", "aws/../../x", "a\\..\\b", "C:x", ".hidden", "a\x1bb", "x" * 101]
)
def test_a_member_with_an_unsafe_name_is_refused(name: str, tmp_path: Path) -> None:
    report = verify.verify(zipped(tmp_path / "b.zip", members(copy("never_launched", tmp_path / "b")) | {name: b"x"}))
    assert report.exit == 3 and [p.code for p in report.problems] == ["E003"] and "\x1b" not in report.text()


def test_a_link_and_a_second_member_of_one_name_are_refused(tmp_path: Path) -> None:
    files = members(copy("never_launched", tmp_path / "b"))
    linked = zipped(tmp_path / "link.zip", files, external_attr=0o120777 << 16)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "twice.zip", "w") as made:
        made.writestr("journal.jsonl", b"one")
        made.writestr("journal.jsonl", b"two")
    for path in (linked, tmp_path / "twice.zip"):
        assert [p.code for p in verify.verify(path).problems] == ["E003"]


def overlapping() -> bytes:
    """One packed kernel under many names, as the best-known bombs have it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive_:
        archive_.writestr("a", b"\0" * 90_000)
    data = made.getvalue()
    start = data.index(b"PK\1\2")
    entry, end = data[start : data.index(b"PK\5\6")], bytearray(data[-22:])
    names = [f"{n:c}".encode() for n in range(ord("a"), ord("a") + 20)]
    directory = b"".join(entry[:46] + name + entry[47:] for name in names)
    end[8:16] = struct.pack("<HHL", len(names), len(names), len(directory))
    return data[:start] + directory + bytes(end)


def lying(change: Callable[[bytearray], None]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive_:
        archive_.writestr("journal.jsonl", b"x" * 100)
    data = bytearray(made.getvalue())
    change(data)
    return bytes(data)


def deflated(size: int) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive_:
        archive_.writestr("journal.jsonl", b"\0" * size)
    return made.getvalue()


def end(offset: int, form: str, *values: int) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into(form, data, len(data) - 22 + offset, *values)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "a bomb of one member": (deflated(50 << 20), "E002"),
    "a bomb of members that overlap": (overlapping(), "E001"),
    "nothing": (b"", "E001"),
    "an end and nothing before it": (b"PK\5\6" + b"\0" * 18, "E001"),
    "no zip": (b"x" * 4096, "E001"),
    "something before it": (b"#!/bin/sh\n" + lying(lambda d: None), "E001"),
    "something behind it": (lying(lambda d: None) + b"x", "E001"),
    "more members than there are": (lying(end(8, "<HH", 900, 900)), "E001"),
    "sixty thousand members": (lying(end(8, "<HH", 60_000, 60_000)), "E002"),
    "a directory of a gigabyte": (lying(end(12, "<L", 1 << 30)), "E002"),
    "a directory somewhere else": (lying(end(16, "<L", 7)), "E001"),
    "cut in half": (deflated(1000)[:60], "E001"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_zip_made_to_hurt_is_refused_before_it_can(what: str, tmp_path: Path) -> None:
    data, code = HOSTILE[what]
    (tmp_path / "b.zip").write_bytes(data)
    begun = time.process_time()
    report = verify.verify(tmp_path / "b.zip")
    assert time.process_time() - begun < 1
    assert report.exit == 3 and code in [p.code for p in report.problems], report.text()


@pytest.mark.parametrize("bit", [0x1, 0x20, 0x40, 0x2000])
def test_what_is_encrypted_or_patched_is_not_read(bit: int, tmp_path: Path) -> None:
    data = bytearray(lying(lambda d: None))
    place = data.index(b"PK\1\2") + 8
    struct.pack_into("<H", data, place, bit)
    (tmp_path / "b.zip").write_bytes(bytes(data))
    assert [p.code for p in verify.verify(tmp_path / "b.zip").problems] == ["E001"]


def test_every_flipped_bit_of_a_zip_is_found_or_changes_nothing(tmp_path: Path) -> None:
    """In the packing, not in the files: those are flipped one by one elsewhere."""
    files = {"journal.jsonl": b"one\n", "samples.jsonl": b"two\n"}
    data = archive.packed(files, NAME)
    path = tmp_path / "b.zip"
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(flipped))
        try:
            opened = archive.Archive(path)
        except Unreadable:
            continue
        try:
            read = {name: opened.read(name, 100) for name in opened.names}
        except Unreadable:
            continue
        finally:
            opened.close()
        assert read == files or (set(read) != set(files) and set(read.values()) == set(files.values())), bit


def test_a_folder_looks_into_aws_and_into_nothing_else(tmp_path: Path) -> None:
    for name in ("aws/iid.p7", "aws/cloudtrail/logs/1.json.gz", "other/x", "aws/a/b/c/d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "aws" / "link").symlink_to("/etc")
    with Folder(tmp_path) as folder:
        assert folder.names == ["aws/a/b/c/d", "aws/cloudtrail/logs/1.json.gz", "aws/iid.p7", "aws/link", "other"]
        assert folder.read("aws/cloudtrail/logs/1.json.gz", 9) == b"x"
        for name in ("aws/link/passwd", "aws/link", "other/x", "aws/../x", "aws//iid.p7"):
            with pytest.raises(Unreadable):
                folder.read(name, 1 << 20)


def test_a_member_without_a_name_is_refused_and_nothing_falls_over(tmp_path: Path) -> None:
    """Found by fuzzing: the library's own is_dir() raises IndexError for it."""
    files = members(copy("never_launched", tmp_path / "b"))
    report = verify.verify(zipped(tmp_path / "b.zip", files | {"": b"y"}))
    assert report.exit == 3 and [p.code for p in report.problems] == ["E003"]
