"""Reads a stranger's folder without being led anywhere: safe names, plain files, sizes checked before reading.

A symlink could show us a file of ours as if it were theirs, a FIFO would hang us, a device would do worse, and a file
may grow while it is read. So nothing is opened that is not a plain file by `lstat`, nothing is followed, and no more
is read than was allowed for. A bundle is flat but for `aws/`, the only folder that is looked into.

This file must not know what the files mean.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from provisioner.evidence.messages import Problem, problem

NAME = re.compile(r"(?:aws/(?:[A-Za-z0-9][A-Za-z0-9._-]{0,99}/){0,3})?[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
ENTRY_LIMIT = 2000
FILE_LIMIT = 256 << 20
TOTAL_LIMIT = 512 << 20


class Unreadable(Exception):
    """We could not look; nothing follows about what is in there."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Source(Protocol):
    """A bundle's files, from a folder or from an archive."""

    @property
    def names(self) -> Sequence[str]: ...

    def read(self, name: str, limit: int) -> bytes: ...

    def sha256(self, name: str) -> str: ...

    def close(self) -> None: ...


class Folder:
    """A bundle's folder, held open so that it stays the same folder."""

    def __init__(self, path: Path) -> None:
        self._read = self._entries = 0
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise Unreadable(problem("E001", path=str(path), reason=_why(e))) from None
        try:
            self.names = sorted(self._list(path, self._fd, ""))
        except BaseException:  # nobody else has the descriptor yet
            os.close(self._fd)
            raise

    def _list(self, path: Path, fd: int, above: str) -> Iterator[str]:
        with os.scandir(fd) as entries:
            for entry in entries:
                self._entries += 1
                if self._entries > ENTRY_LIMIT:
                    raise Unreadable(problem("E002", path=str(path), limit=f"{ENTRY_LIMIT} files"))
                name = above + entry.name
                deep = entry.is_dir(follow_symlinks=False) and NAME.fullmatch(f"{name}/x")
                if not deep:
                    yield name
                    continue
                inner = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                try:
                    yield from self._list(path, inner, f"{name}/")
                finally:
                    os.close(inner)

    def read(self, name: str, limit: int) -> bytes:
        """The whole of a plain file of at most `limit` bytes."""
        fd = self._open(name, limit)
        try:
            return b"".join(self._chunks(fd, name, limit))
        finally:
            os.close(fd)

    def sha256(self, name: str) -> str:
        """Its digest, without keeping it."""
        fd = self._open(name, FILE_LIMIT)
        try:
            made = hashlib.sha256()
            for chunk in self._chunks(fd, name, FILE_LIMIT):
                made.update(chunk)
            return made.hexdigest()
        finally:
            os.close(fd)

    def _open(self, name: str, limit: int) -> int:
        if not NAME.fullmatch(name):
            raise Unreadable(problem("E003", member=name))
        *above, last = name.split("/")
        holders = [self._fd]
        try:
            for folder in above:  # each by itself: a link half way down would lead elsewhere as well
                holders.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=holders[-1]))
            before = os.stat(last, dir_fd=holders[-1], follow_symlinks=False)
            # Opening is already dangerous for what is not a plain file: a FIFO waits for a writer, a device acts.
            _plain(before, name)
            if before.st_size > limit:
                raise Unreadable(problem("E002", path=name, limit=f"{limit} bytes"))
            fd = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=holders[-1])
        except OSError as e:
            raise Unreadable(problem("E001", path=name, reason=_why(e))) from None
        finally:
            for holder in holders[1:]:
                os.close(holder)
        try:
            _plain(os.fstat(fd), name)
        except BaseException:  # nobody else has the descriptor yet
            os.close(fd)
            raise
        return fd

    def _chunks(self, fd: int, name: str, limit: int) -> Iterator[bytes]:
        size = 0
        while chunk := self._chunk(fd, name):
            size += len(chunk)
            self._read += len(chunk)
            if size > limit or self._read > TOTAL_LIMIT:
                raise Unreadable(problem("E002", path=name, limit=f"{min(limit, TOTAL_LIMIT)} bytes"))
            yield chunk

    @staticmethod
    def _chunk(fd: int, name: str) -> bytes:
        try:
            return os.read(fd, 1 << 20)
        except OSError as e:
            raise Unreadable(problem("E001", path=name, reason=_why(e))) from None

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _plain(info: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(info.st_mode):
        kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        raise Unreadable(problem("E001", path=name, reason=f"it is {kinds.get(stat.S_IFMT(info.st_mode), 'a device')}, not a plain file"))


def _why(e: OSError) -> str:
    return e.strerror or type(e).__name__
