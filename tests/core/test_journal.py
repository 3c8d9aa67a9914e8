"""The journal as a file: torn, flipped, full, locked, read by others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from provisioner import journal as J
from provisioner.errors import RefusedError
from provisioner.journal import Broken, Busy, Journal
from provisioner.scope import SystemClock

CLOCK = SystemClock()


def written(path: Path, lines: int = 5) -> bytes:
    with Journal(path, CLOCK) as journal:
        for i in range(lines):
            journal.append("outcome", {"exit": i, "outcome": "一 two \u2028 \x1b[0m"})
    return path.read_bytes()


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    written(tmp_path / "j")
    again = J.read(tmp_path / "j")
    assert [e["body"]["exit"] for e in again.entries] == [0, 1, 2, 3, 4]
    assert again.torn == b""


def test_a_torn_last_line_is_dropped_at_every_byte(tmp_path: Path) -> None:
    raw = written(tmp_path / "j")
    start = raw[:-1].rfind(b"\n") + 1
    for cut in range(start, len(raw)):
        (tmp_path / "j").write_bytes(raw[:cut])
        was = J.read(tmp_path / "j")
        assert len(was.entries) == 4 and was.torn == raw[start:cut]


@pytest.mark.parametrize("tail", [b"\0" * 40, b'{"at":' + b"\0" * 512 + b"\n", b"garbage without an end"])
def test_what_a_power_cut_leaves_is_a_torn_tail(tail: bytes, tmp_path: Path) -> None:
    raw = written(tmp_path / "j")
    (tmp_path / "j").write_bytes(raw + tail)
    with Journal(tmp_path / "j", CLOCK) as journal:
        assert journal.torn == tail
        journal.append("outcome", {"exit": 5})
    assert len(J.read(tmp_path / "j").entries) == 6


def test_no_flipped_bit_goes_unseen_but_in_the_last_line(tmp_path: Path) -> None:
    """What the chain alone cannot show is a change to its own end: that is what the signed head is for."""
    raw = written(tmp_path / "j", 3)
    good = J.read(tmp_path / "j").entries
    last = raw[:-1].rfind(b"\n") + 1
    for i in range(len(raw)):
        for bit in range(8):
            flipped = bytearray(raw)
            flipped[i] ^= 1 << bit
            (tmp_path / "j").write_bytes(flipped)
            try:
                entries = J.read(tmp_path / "j").entries
            except Broken:
                continue
            assert i >= last and entries[:2] == good[:2], (i, bit)


@pytest.mark.parametrize("edit", ["drop", "swap", "double"])
def test_no_line_can_be_dropped_swapped_or_doubled(edit: str, tmp_path: Path) -> None:
    lines = written(tmp_path / "j").splitlines(keepends=True)
    match edit:
        case "drop":
            del lines[1]
        case "swap":
            lines[1], lines[2] = lines[2], lines[1]
        case _:
            lines.insert(2, lines[1])
    (tmp_path / "j").write_bytes(b"".join(lines))
    with pytest.raises(Broken):
        J.read(tmp_path / "j")


def test_a_second_owner_is_turned_away(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", CLOCK), pytest.raises(Busy):
        Journal(tmp_path / "j", CLOCK)
    Journal(tmp_path / "j", CLOCK).close()


def test_a_journal_that_others_can_read_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "j")
    os.chmod(tmp_path / "j", 0o644)
    with pytest.raises(RefusedError, match="mode 644"):
        Journal(tmp_path / "j", CLOCK)


def test_a_journal_is_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        written(tmp_path / "j")
    finally:
        os.umask(old)
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o600


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"")
    (tmp_path / "j").symlink_to(tmp_path / "theirs")
    with pytest.raises(OSError):
        Journal(tmp_path / "j", CLOCK)


def test_a_float_never_enters(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", CLOCK) as journal, pytest.raises(TypeError):
        journal.append("outcome", {"exit": 0.8})


FILL = """
    import resource, signal, sys
    from pathlib import Path
    from provisioner.journal import Journal
    from provisioner.scope import SystemClock
    journal = Journal(Path(sys.argv[1]), SystemClock())
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
    for i in range(40):
        journal.note("outcome", {"exit": i})
    print(sum("unwritten" not in e for e in journal.entries), journal.unwritten)
"""


@pytest.mark.parametrize("limit", [1, 100, 211, 700, 1499])
def test_a_file_that_may_not_grow_leaves_a_sound_journal(limit: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FILL), tmp_path / "j", str(limit)], capture_output=True, text=True, check=True
    )
    kept = int(done.stdout.split()[0])
    was = J.read(tmp_path / "j")
    assert len(was.entries) == kept < 40 and was.torn == b""


WRITE = """
    import sys
    from pathlib import Path
    from provisioner.journal import Journal
    from provisioner.scope import SystemClock
    with Journal(Path(sys.argv[1]), SystemClock()) as journal:
        while True:
            print(journal.append("outcome", {"outcome": "y" * 300})["seq"], flush=True)
"""


@pytest.mark.parametrize("after", [1, 7, 40])
def test_sigkill_loses_no_line_that_was_acknowledged(after: int, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITE), tmp_path / "j"], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(after):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        acknowledged = [line for line in writer.stdout.read().splitlines() if line]
    entries = J.read(tmp_path / "j").entries
    assert len(entries) >= int(acknowledged[-1] if acknowledged else after - 1) + 1


def test_the_reserve_is_given_back_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path / "j", CLOCK) as journal:
        assert journal.has_reserve
        real, full = os.write, [True]

        def write(fd: int, data: bytes) -> int:
            if full[0]:
                full[0] = (tmp_path / "ballast").exists()  # giving the reserve back makes room
                raise OSError(28, "No space left on device")
            return real(fd, data)

        monkeypatch.setattr(os, "write", write)
        full[0] = True
        with pytest.raises(OSError):
            journal.append("outcome", {"exit": 0})
        full[0] = False
        monkeypatch.undo()
        assert not journal.has_reserve
    assert J.read(tmp_path / "j").entries == []


def test_after_a_failed_fsync_nothing_more_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path / "j", CLOCK) as journal:
        journal.append("outcome", {"exit": 0})

        def broken(fd: int) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(J, "sync", broken)
        with pytest.raises(OSError):
            journal.append("outcome", {"exit": 1})
        journal.note("outcome", {"exit": 2})
        assert journal.unwritten is not None
        monkeypatch.undo()
        with pytest.raises(OSError):
            journal.append("outcome", {"exit": 3})
