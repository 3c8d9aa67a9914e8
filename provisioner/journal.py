"""A lease's journal: what we were about to do, written down before we did it.

One append-only file of RFC 8785 JSON lines per lease, each carrying the hash of the line before it, so that the file
has exactly one valid byte form and no line can be changed, dropped or moved unseen.

Whoever holds the file's lock owns the lease. The kernel drops the lock when that process dies, however it dies, so
"is anyone looking after this lease?" is a lock attempt, never a guess from a pid or a heartbeat.

Two ways to write. `append` returns only once the line is on disk, or raises: nothing that can be billed is asked for
without it. `note`, for the way out, keeps the entry in memory when the disk will not: a full disk may cost us the
record, never the removal. A 64 KiB ballast file beside the journal is given back when the disk is full, which is room
for the rest of any teardown.

What a line may hold is a table's business (`journal_fields.py`); this file must not know what the entries mean.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rfc8785

from provisioner import journal_fields
from provisioner.errors import GpuleaseError, RefusedError
from provisioner.model import Clock, Json
from provisioner.names import HIDDEN, OPENINGS, WORDS, Names

Entry = dict[str, Any]

VERSION = 1
FIELDS = {"at", "body", "kind", "prev", "seq", "v"}
GENESIS = "0" * 64
LINE_LIMIT = 16 << 10
TEXT_LIMIT = 2000
BONE_LIMIT = 200
BALLAST = 64 << 10
LOCK_TRIES = 6


class Busy(GpuleaseError):
    """Another process owns this lease."""


class Broken(GpuleaseError):
    """A line before the last one is damaged, or the chain does not match."""


@dataclass(frozen=True)
class Read:
    entries: list[Entry]
    sound: int  # bytes up to the end of the last whole entry
    head: str  # sha256 of the last whole line, or GENESIS
    torn: bytes  # what a crash left after it


def read(path: Path) -> Read:
    """What a journal says. A torn last line is not an error, it is a crash; any earlier damage raises `Broken`.

    Every line but the last was synced before the next was begun, so only the last can be torn by a power cut:
    half written, or the right length with zeros where the data never arrived.
    """
    raw = path.read_bytes()
    entries: list[Entry] = []
    sound, head = 0, GENESIS
    while sound < len(raw):
        end = raw.find(b"\n", sound) + 1
        line = raw[sound : end or len(raw)]
        if not end or (end == len(raw) and b"\0" in line):
            break
        entry = _entry(line)
        if entry is None or entry["prev"] != head or entry["seq"] != len(entries):
            raise Broken(
                f"journal {path} is damaged at line {len(entries) + 1}",
                why="the line is not one we wrote, or does not follow from the line before it",
                next="keep the file; `gpulease release` will look the machines up by their tag instead",
            )
        entries.append(entry)
        sound += len(line)
        head = hashlib.sha256(line).hexdigest()
    return Read(entries, sound, head, raw[sound:])


def _entry(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
        if not isinstance(entry, dict) or entry.keys() != FIELDS or entry["v"] != VERSION or rfc8785.dumps(entry) + b"\n" != line:
            return None
        return entry
    except (ValueError, RecursionError, rfc8785.CanonicalizationError):
        return None


class Journal:
    """An open, locked journal. `Busy` when another process has it, unless `wait`."""

    def __init__(self, path: Path, clock: Clock, *, wait: bool = False) -> None:
        self.path, self._clock, self._names = path, clock, Names(path.with_name(OPENINGS))
        self.unwritten: OSError | None = None
        self._lost = False
        # O_NOFOLLOW: a symlink planted in the state folder must not make us append to somebody's file.
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self._check_owner()
            self._lock(wait)
            if not os.path.samestat(os.fstat(self._fd), os.stat(path)):
                raise self._busy()  # somebody began this journal anew while we waited for the old one's lock
            was = read(path)
            os.ftruncate(self._fd, was.sound)
            os.lseek(self._fd, was.sound, os.SEEK_SET)
            self._ballast = path.with_name("ballast")
            self._reserve()
            sync_folder(path.parent)
        except BaseException:  # the lock goes with the descriptor: kept, nobody could take the lease
            os.close(self._fd)
            raise
        self.entries, self.head, self.torn = was.entries, was.head, was.torn

    def append(self, kind: str, body: dict[str, Json]) -> Entry:
        """Write one entry and return only once it is on disk."""
        entry: Entry = {
            "at": {"wall": rfc3339(self._clock.now()), "monoMs": int(self._clock.counting() * 1000)},
            "body": self._said(kind, body),
            "kind": kind,
            "prev": self.head,
            "seq": len(self.entries),
            "v": VERSION,
        }
        line = rfc8785.dumps(entry) + b"\n"
        if len(line) > LINE_LIMIT:
            raise ValueError(f"journal entry of {len(line)} bytes; the limit is {LINE_LIMIT}")
        if self.unwritten is not None:
            # The file has a hole where an entry could not be written: a later one would not follow from it.
            raise self.unwritten
        self._put(line)
        self.head = hashlib.sha256(line).hexdigest()
        self.entries.append(entry)
        return entry

    def note(self, kind: str, body: dict[str, Json]) -> Entry:
        """`append` for the way out: what cannot be written is kept in memory, and `unwritten` says why."""
        try:
            return self._shorter(kind, body)
        except OSError as e:
            self.unwritten = self.unwritten or e
            try:
                kept: Json = self._said(kind, body)
            except TypeError:
                kept = self._said(kind, _bones(body))
            entry: Entry = {
                "at": {"wall": rfc3339(self._clock.now())},
                "body": kept,
                "kind": kind,
                "seq": len(self.entries),
                "unwritten": True,
            }
            self.entries.append(entry)
            return entry

    def _shorter(self, kind: str, body: dict[str, Json]) -> Entry:
        try:
            return self.append(kind, body)
        except (TypeError, ValueError):
            # What a provider said is too long, or cannot be written as JSON. Its bones can, and removing does not wait for more.
            return self.append(kind, _bones(body))

    def _said(self, kind: str, body: Mapping[str, Json]) -> Json:
        # Before anything else looks at it: what may not be written must not even be in the way.
        return self._worded(_allowed(journal_fields.kept(kind, body)))

    def _worded(self, value: Json, name: str = "") -> Json:
        """Somebody's own words lose the names in them, and a field that is a name is closed; ids and settings stay as they are."""
        match value:
            case dict():
                return {key: self._worded(inner, key) for key, inner in value.items()}
            case list():
                return [self._worded(inner, name) for inner in value]
            case str() if name in HIDDEN:
                return self._names.instead(HIDDEN[name], value)
            case str() if name in WORDS:
                return _allowed(self._names.hidden(value))  # a commitment may be longer than what it stands for
            case _:
                return value

    def _put(self, line: bytes) -> None:
        sound = os.lseek(self._fd, 0, os.SEEK_CUR)
        try:
            self._write(line)
        except OSError as e:
            self._back_to(sound)
            if e.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or self._lost or not self._ballast.exists():
                raise
            self._ballast.unlink()  # the reserve is for exactly this
            try:
                self._write(line)
            except OSError:
                self._back_to(sound)
                raise

    def _write(self, line: bytes) -> None:
        if os.write(self._fd, line) != len(line):
            raise OSError(errno.ENOSPC, "short write to the journal")
        try:
            sync(self._fd)
        except OSError:
            # After a failed fsync the kernel may have dropped the data and forgotten the error: never ask twice.
            self._lost = True
            raise

    def _back_to(self, sound: int) -> None:
        with contextlib.suppress(OSError):
            os.lseek(self._fd, sound, os.SEEK_SET)
            os.ftruncate(self._fd, sound)

    def _lock(self, wait: bool) -> None:
        # Several tries: `gpulease ls` holds the lock for the instant in which it asks whether anybody has it.
        for attempt in range(LOCK_TRIES):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                return
            except BlockingIOError:
                if attempt + 1 < LOCK_TRIES:
                    time.sleep(0.02)  # 0.1 s in all, before any money: no scope needed
        raise self._busy()

    def _busy(self) -> Busy:
        return Busy(
            f"lease {self.path.parent.name} is being handled by another process",
            why="it holds the lock on the lease's journal",
            next=f"gpulease ls   (or wait, then: gpulease release {self.path.parent.name})",
        )

    def _check_owner(self) -> None:
        info = os.fstat(self._fd)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
            raise RefusedError(
                f"journal {self.path} is not a private file of yours (mode {stat.S_IMODE(info.st_mode):o}, owner {info.st_uid})",
                why="whoever can write it can make us forget a machine",
                next=f"chmod 600 {self.path}",
            )

    def _reserve(self) -> None:
        if self._ballast.exists():
            return
        try:
            fd = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                # Written rather than fallocated: macOS has no posix_fallocate, and zeros written are blocks taken.
                os.write(fd, b"\0" * BALLAST)
                os.fsync(fd)
                full = os.fstat(fd).st_size == BALLAST
            finally:
                os.close(fd)
        except OSError:
            full = False
        if not full:
            with contextlib.suppress(OSError):
                self._ballast.unlink()

    @property
    def has_reserve(self) -> bool:
        return self._ballast.exists()

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def sync(fd: int) -> None:
    """Data on the platter: fdatasync on Linux; on macOS only F_FULLFSYNC reaches the drive."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    elif hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def sync_folder(path: Path) -> None:
    """A new file is only found after a power cut if its folder was synced too."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def rfc3339(seconds: float) -> str:
    """`2026-11-21T14:02:10.123Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def instant(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 text with a Z."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _allowed(value: Json) -> Json:
    """A body without unknowns (None is left out: absent says it), with long texts cut; a float is a bug."""
    if type(value) is str and len(value) <= TEXT_LIMIT and value.isascii():  # nearly all of them
        return value
    match value:
        case dict():
            return {str(k): _allowed(v) for k, v in value.items() if v is not None}
        case list() | tuple():
            return [_allowed(v) for v in value]
        case str():
            # File names and foreign output may hold half a surrogate pair, which UTF-8 cannot.
            text = value.encode("utf-8", "replace").decode("utf-8")
            return text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + "…"
        case bool() | int() | None:
            return value
        case _:
            raise TypeError(f"{type(value).__name__} may not enter the journal: {value!r}")


def _bones(body: dict[str, Json]) -> dict[str, Json]:
    """What of a body always fits: its names, short texts, whole numbers; anything deeper is left empty."""
    bones: dict[str, Json] = {}
    for name, value in body.items():
        match value:
            case bool():
                bones[name] = value
            case int() if abs(value) < 2**53:
                bones[name] = value
            case str():
                bones[name] = _allowed(value[:BONE_LIMIT])
            case list() | tuple():
                bones[name] = []
            case dict():
                bones[name] = {}
            case _:
                pass
    return bones
