"""`report.pdf`: the same bytes each time, whole as a PDF, and the bundle in it is the bundle."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from provisioner.evidence import archive, paper, verify, words
from tests.evidence.bundles import copy, state
from tests.evidence.journals import LEASE, STORIES
from tests.evidence.test_archive import members
from tests.evidence.test_page import told
from tests.evidence.xss import PAYLOADS


def made(story: str, base: Path) -> tuple[bytes, bytes]:
    packed = archive.packed(members(copy(story, base / "b")), f"{LEASE}.evidence")
    return paper.paper(state(STORIES[story]()), f"{LEASE}.evidence.zip", packed), packed


def attached(document: bytes) -> bytes:
    """The embedded file, by the length that its own object gives."""
    found = re.search(rb"/Type /EmbeddedFile [^\n]*/Length (\d+) >>\nstream\n", document)
    assert found is not None
    return document[found.end() : found.end() + int(found[1])]


@pytest.mark.parametrize("story", STORIES)
def test_the_bundle_is_in_it_and_verifies_and_the_bytes_are_the_same_each_time(story: str, tmp_path: Path) -> None:
    document, packed = made(story, tmp_path)
    assert document == made(story, tmp_path / "again")[0]
    assert attached(document) == packed
    (tmp_path / "out.zip").write_bytes(attached(document))
    assert verify.verify(tmp_path / "out.zip").exit == 0


@pytest.mark.parametrize("story", STORIES)
def test_every_object_is_where_the_table_at_the_end_has_it(story: str, tmp_path: Path) -> None:
    document, _ = made(story, tmp_path)
    start = int(re.search(rb"startxref\n(\d+)\n%%EOF\n$", document)[1])  # type: ignore[index]
    table = document[start:].split(b"trailer")[0].splitlines()[2:]
    for n, row in enumerate(table[1:], 1):
        assert document[int(row[:10]) :].startswith(b"%d 0 obj\n" % n)


@pytest.mark.parametrize("payload", PAYLOADS[::7])
def test_text_from_elsewhere_stays_inside_its_brackets(payload: str) -> None:
    for attack in (payload, payload + ") Tj ET /JavaScript (", "\\", "(", ")"):
        document = paper.paper(state(told(attack)), "b.zip", b"PK")
        text = document.split(b"/EmbeddedFile")[0]
        strings = re.sub(rb"\((?:[^()\\]|\\.)*\)", b"", text)
        assert b"JavaScript" not in strings and b"(" not in strings and not re.search(rb"/(AA|OpenAction|Launch|URI|JS)\b", strings)


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="poppler-utils is not here")
def test_another_program_reads_it_and_saves_the_bundle(tmp_path: Path) -> None:
    document, packed = made("normal", tmp_path)
    (tmp_path / "r.pdf").write_bytes(document)
    text = subprocess.run(["pdftotext", "-layout", "r.pdf", "-"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    flat = " ".join(text.split())
    assert " ".join(words.first(state(STORIES["normal"]())["predicate"])[0].split()) in flat and "What this does not show" in flat
    subprocess.run(["pdfdetach", "-saveall", "r.pdf"], cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / f"{LEASE}.evidence.zip").read_bytes() == packed
