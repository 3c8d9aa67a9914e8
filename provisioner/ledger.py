"""The folder of leases: where each lease's journal is, who is alive, and what is still owed.

    $XDG_STATE_HOME/gpulease/            0700
      keys/                              the key that signs proofs
      runs/<lease>/                      0700: lease.json, journal.jsonl, ballast, keys/, samples.jsonl, results.json …
      runs/<lease>.evidence/             what can be handed to somebody: statement.dsse.json and what it speaks of

A lease is alive while some process holds its journal's lock, open while its last verdict is not `released`. There is
no index and no database: the journals are the truth, and there are never many.

`lease.json` (0600, no secrets) repeats how to reach the provider, so that a damaged or lost journal cannot hide a machine.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provisioner.errors import RefusedError, UsageError
from provisioner.journal import Broken, Busy, Entry, Journal, read, sync_folder
from provisioner.lease import Holdings, holdings
from provisioner.model import Clock, Verdict
from provisioner.scope import SystemClock

LEASE_ID = re.compile(r"r-[0-9]{8}t[0-9]{6}z-[0-9a-hjkmnp-tv-z]{8}")
CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def root() -> Path:
    """The state folder, made private if new; refused if others can read it."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    if not os.path.isabs(base):
        raise RefusedError(
            f"the state folder would be {base!r}, which is not an absolute path",
            why="XDG_STATE_HOME says so, or there is no HOME",
            next="export XDG_STATE_HOME=/an/absolute/path",
        )
    folder = Path(base) / "gpulease"
    private(folder)
    private(folder / "runs")
    return folder


def private(folder: Path) -> Path:
    """That folder, 0700 and ours; made if missing, refused if it is readable by others."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.lstat()
    except OSError as e:
        raise RefusedError(
            f"state folder {folder} cannot be used: {e.strerror}",
            why="everything that a lease does is written there first",
            next="export XDG_STATE_HOME=/a/folder/of/yours",
        ) from e
    mode = stat.S_IMODE(info.st_mode)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        raise RefusedError(f"state folder {folder} is not a folder of yours", next=f"ls -ld {folder}")
    if mode & 0o077:
        raise RefusedError(
            f"state folder {folder} is readable by others (mode {mode:o})",
            why="journals and keys in it decide what is terminated",
            next=f"chmod 700 {folder}",
        )
    return folder


def new_id(now: float | None = None) -> str:
    """`r-20261121t140210z-7f3a9k2m`: sorts by time, cannot collide, safe in tags, file names and unit names."""
    stamp = time.strftime("%Y%m%dt%H%M%Sz", time.gmtime(time.time() if now is None else now))
    return f"r-{stamp}-{''.join(secrets.choice(CROCKFORD) for _ in range(8))}"


@dataclass(frozen=True)
class LeaseFolder:
    """Where one lease's files are."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def evidence(self) -> Path:
        return self.path.with_name(f"{self.id}.evidence")

    def card(self) -> dict[str, Any]:
        """How to reach the provider: {"provider", "settings", "deadline"}."""
        try:
            card: dict[str, Any] = json.loads((self.path / "lease.json").read_bytes())
            return {"settings": dict(card["settings"]), "provider": str(card["provider"])} | card
        except (OSError, ValueError, LookupError, TypeError) as e:
            raise RefusedError(
                f"how to reach the cloud of lease {self.id} cannot be read: {e}",
                why=f"{self.path / 'lease.json'} says it, and so does the journal's first line",
                next="gpulease reap   finds it by its tags, from any machine",
            ) from e

    @property
    def has_card(self) -> bool:
        return (self.path / "lease.json").exists()

    def broken(self) -> list[Path]:
        """Damaged journals that were kept aside, oldest first."""
        return sorted(self.path.glob("journal.broken-*.jsonl"))


def create(card: dict[str, Any], id: str | None = None) -> LeaseFolder:
    """A new lease's folder, with its card on disk before anything else."""
    folder = LeaseFolder(root() / "runs" / (id or new_id()))
    folder.path.mkdir(mode=0o700)
    try:
        private(folder.path / "keys")
        write_private(folder.path / "lease.json", json.dumps(card, indent=1).encode())
        sync_folder(folder.path.parent)
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)  # nothing was asked for; kept, it would be an orphan for ever
        raise
    return folder


def find(text: str) -> LeaseFolder:
    """The lease a user means: a whole id, or the unambiguous end or beginning of one."""
    every = {folder.id: folder for folder in folders()}
    if (id := meant(text, every, next="gpulease ls --all")) is None:
        raise UsageError(f"no lease here is called {text!r}", why=f"looked in {root() / 'runs'}", next="gpulease ls --all")
    return every[id]


def meant(text: str, ids: Iterable[str], *, next: str) -> str | None:
    """Which of the ids that is: a whole one, or its unambiguous end or beginning. None for none of them, UsageError for several."""
    every = list(ids)
    hits = [text] if text in every else [id for id in every if text and (id.endswith(text) or id.startswith(text))]
    if len(hits) > 1:
        named = ", ".join(hits[:5]) + (f" and {len(hits) - 5} more" if len(hits) > 5 else "")
        why = "its beginning or its end is enough, as far as no other has the same"
        raise UsageError(f"{text!r} could be {len(hits)} leases: {named}", why=why, next=next)
    return hits[0] if hits else None


def folders() -> Iterator[LeaseFolder]:
    """Every lease in the state folder, oldest first. A symlinked folder is not ours."""
    runs = root() / "runs"
    for path in sorted(runs.iterdir()):
        if LEASE_ID.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            yield LeaseFolder(path)


@dataclass(frozen=True)
class Standing:
    """One line of `gpulease ls`."""

    folder: LeaseFolder
    alive: bool  # somebody holds the lock
    entries: list[Entry]
    held: Holdings
    broken: str = ""  # why the journal could not be read

    @property
    def open(self) -> bool:
        return self.held.verdict is not Verdict.RELEASED


def standing(folder: LeaseFolder) -> Standing:
    """How a lease stands, without taking it from whoever has it."""
    try:
        entries, broken = read(folder.journal).entries, ""
    except FileNotFoundError:
        entries, broken = [], ""
    except Broken as e:
        entries, broken = [], e.what
    return Standing(folder, alive(folder), entries, holdings(entries), broken)


def alive(folder: LeaseFolder) -> bool:
    """Is somebody looking after it? Answered by the lock; never taken for longer than the question."""
    try:
        fd = os.open(folder.journal, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def adopt(folder: LeaseFolder, by: str, clock: Clock | None = None) -> Journal:
    """Take a lease whose owner is gone. `Busy` if it is not. A damaged journal is kept aside and begun anew."""
    clock = clock or SystemClock()
    note: dict[str, Any] = {"by": by}
    try:
        journal = Journal(folder.journal, clock)
    except Broken:
        _set_aside(folder)
        journal = Journal(folder.journal, clock)
    try:
        if journal.torn:
            note["tornSha256"] = hashlib.sha256(journal.torn).hexdigest()
        if not journal.entries:
            _begin_anew(folder, journal)
        journal.note("recovered", note)
    except BaseException:  # an open journal keeps the lock, and then nobody could let go
        journal.close()
        raise
    return journal


def _set_aside(folder: LeaseFolder) -> None:
    """Rename the damaged journal, under its own lock: two who find it damaged must not rename each other's new one."""
    fd = os.open(folder.journal, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.journal.exists() and os.path.samestat(os.fstat(fd), os.stat(folder.journal)):
            os.rename(folder.journal, folder.path / f"journal.broken-{len(folder.broken()) + 1:03d}.jsonl")
            sync_folder(folder.path)
    except BlockingIOError as e:
        raise Busy(f"lease {folder.id} is being handled by another process", why="it holds the lock on the damaged journal") from e
    finally:
        os.close(fd)


def _begin_anew(folder: LeaseFolder, journal: Journal) -> None:
    """A first line for a journal that has none: it was damaged, or lost, or a crash came between its renaming and now.

    What the old one knew beyond the tags is gone with it: nothing after this can be called released. A lease of another
    machine has its journal there; here begins the record of what its tag shows.
    """
    card = folder.card()
    aside = folder.broken()
    body = {"lease": folder.id, "provider": card["provider"], "settings": card["settings"]}
    body["elsewhere" if card.get("elsewhere") and not aside else "rebuilt"] = True
    body["simulated"] = card.get("simulated")
    body["brokenSha256"] = hashlib.sha256(aside[-1].read_bytes()).hexdigest() if aside else None
    journal.note("genesis", body)


def write_private(path: Path, data: bytes) -> None:
    """Whole or not at all, 0600, on disk when this returns."""
    part = path.with_name(f".{path.name}.part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(part, path)
    sync_folder(path.parent)


__all__ = [
    "Busy",
    "LeaseFolder",
    "Standing",
    "adopt",
    "alive",
    "create",
    "find",
    "folders",
    "new_id",
    "private",
    "root",
    "standing",
    "write_private",
]
