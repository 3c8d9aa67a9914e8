"""What a line in the journal promises: that it is on disk, that it follows, and that nothing to be said stops the way out."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from provisioner import journal as J
from provisioner.journal import Broken, Busy, Journal
from provisioner.scope import SystemClock
from tests.core.torture import FullDisk

CLOCK = SystemClock()


@pytest.mark.skipif(not hasattr(os, "fdatasync") or sys.platform == "darwin", reason="macOS syncs by fcntl")
def test_a_line_is_synced_after_it_is_written_and_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path / "j", CLOCK) as journal:
        synced: list[int] = []
        real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", lambda fd: (real(fd), synced.append(os.fstat(fd).st_size)))
        for n in range(3):
            journal.append("outcome", {"exit": n})
            assert synced[-1] == (tmp_path / "j").stat().st_size and len(synced) == n + 1


def test_append_raises_what_the_disk_says(tmp_path: Path) -> None:
    with FullDisk(tmp_path / "j", CLOCK) as journal:
        journal.left = 0
        with pytest.raises(OSError) as said:
            journal.append("outcome", {"exit": 0})
        assert said.value.errno == errno.ENOSPC and journal.entries == []


def test_a_long_torn_tail_is_cut_off_and_not_just_written_over(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b'{"at":' + b"x" * 5000)
    os.chmod(tmp_path / "j", 0o600)
    with Journal(tmp_path / "j", CLOCK) as journal:
        journal.append("outcome", {"exit": 0})
    was = J.read(tmp_path / "j")
    assert len(was.entries) == 1 and was.torn == b""


def test_the_reserve_makes_room_for_the_line_that_found_the_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path / "j", CLOCK) as journal:
        real = os.write

        def write(fd: int, data: bytes) -> int:
            if journal.has_reserve:
                real(fd, data[:7])
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(fd, data)

        monkeypatch.setattr(os, "write", write)
        journal.append("outcome", {"exit": 0})
        assert not journal.has_reserve
    assert len(J.read(tmp_path / "j").entries) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"token": 0.5},
        {"token": 2**53},
        {"token": "\udcff"},
        {"requestIds": ["y" * 2000] * 30},
        {"state": "\x00" * 2000, "region": "\x00" * 2000},
        {"token": {1, 2}},
    ],
    ids=["float", "big", "surrogate", "long", "escapes", "set"],
)
def test_a_note_is_always_made_and_the_file_stays_sound(body: dict[str, Any], tmp_path: Path) -> None:
    with Journal(tmp_path / "j", CLOCK) as journal:
        journal.note("observe", {"class": "instance", "id": "i-1", "phase": "here", "billed": True, **body})
        journal.note("outcome", {"exit": 1})
        assert journal.unwritten is None
    first, second = J.read(tmp_path / "j").entries
    assert (first["body"]["id"], first["body"]["billed"], second["body"]) == ("i-1", True, {"exit": 1})


def test_a_note_on_a_full_disk_is_kept_in_memory_with_all_it_says(tmp_path: Path) -> None:
    with FullDisk(tmp_path / "j", CLOCK) as journal:
        journal.left = 0
        journal.note("observe", {"id": "i-1", "facts": {"diskGib": 1}})
        journal.note("observe", {"id": "i-2", "facts": {"diskGib": 0.5}})
        assert [e["body"]["id"] for e in journal.entries] == ["i-1", "i-2"]
        assert journal.entries[0]["body"]["facts"] == {"diskGib": 1} and journal.unwritten is not None


def forged(path: Path, *, seq: int = 1, prev: str | None = None, shape: Callable[[bytes], bytes] = bytes) -> None:
    """A journal of two lines whose second is not quite one of ours; the chain of hashes is kept unless it says otherwise."""
    with Journal(path, CLOCK) as journal:
        first = journal.append("outcome", {"exit": 0})
        second = {**first, "seq": seq, "prev": prev or journal.head}
    line = shape(rfc8785.dumps(second)) + b"\n"
    third = {**first, "seq": 2, "prev": hashlib.sha256(line).hexdigest()}
    path.write_bytes(path.read_bytes() + line + rfc8785.dumps(third) + b"\n")


def test_a_line_out_of_the_count_the_chain_or_the_form_is_damage(tmp_path: Path) -> None:
    forged(tmp_path / "good")
    assert len(J.read(tmp_path / "good").entries) == 3
    forged(tmp_path / "count", seq=2)
    forged(tmp_path / "chain", prev="f" * 64)
    forged(tmp_path / "form", shape=lambda line: line.replace(b":", b": ", 1))
    for name in ("count", "chain", "form"):
        with pytest.raises(Broken, match="line 2"):
            J.read(tmp_path / name)


def test_the_lock_is_held_from_the_opening_to_the_end(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", CLOCK) as journal:
        for n in range(3):
            journal.append("outcome", {"exit": n})
            J.read(tmp_path / "j")
            with pytest.raises(Busy):
                Journal(tmp_path / "j", CLOCK)


def test_a_child_process_does_not_inherit_the_lock(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", CLOCK):
        child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        Journal(tmp_path / "j", CLOCK).close()
    finally:
        child.communicate(b"")


def test_who_waited_for_a_journal_that_was_begun_anew_meanwhile_does_not_get_the_old_one(tmp_path: Path) -> None:
    old = Journal(tmp_path / "j", CLOCK)
    said: list[str] = []

    def wait() -> None:
        try:
            Journal(tmp_path / "j", CLOCK, wait=True).close()
        except Busy as e:
            said.append(e.what)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.1)
    (tmp_path / "j").rename(tmp_path / "aside")
    Journal(tmp_path / "j", CLOCK).close()
    old.close()
    waiting.join(5)
    assert len(said) == 1
