"""A disk with a page cache, the `os` and `fcntl` that production code sees on it, and the paths it walks.

What a process writes is in the cache at once, and durable only once somebody synced it. A killed process loses its
descriptors and locks and nothing else. A power cut keeps what was synced; of what was not, any part may have arrived:
cut short, torn, or the right length full of zeros. A new name, a rename and a removal are the folder's data: durable
once the folder was synced, and until then they happened in order or not at all.

Every call is a step of its process (see `process.Process.step`), which is where it may die or the disk may refuse.
Like a POSIX disk, and no more than the calls that `provisioner` makes; another call is an AttributeError, not a guess.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import random
import stat
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from tests.sim import process as P

UID = 1000


class Inode:
    __slots__ = ("children", "data", "holders", "mode", "names", "number", "old", "pending", "synced")

    def __init__(self, number: int, mode: int, children: dict[str, Inode] | None = None) -> None:
        self.number, self.mode, self.children = number, mode, children
        self.data, self.synced = bytearray(), 0
        self.old: bytes | None = None  # what is durable, where the cache no longer begins with it
        self.names = dict(children or {})  # the durable names of a folder
        self.pending: list[list[tuple[str, Inode | None]]] = []  # name changes that no sync has made durable
        self.holders: list[tuple[Fd, int]] = []  # flock

    @property
    def durable(self) -> bytes:
        return bytes(self.data[: self.synced]) if self.old is None else self.old

    def changes(self, at: int) -> None:
        """What comes at that place is about to be written."""
        if at < self.synced and self.old is None:
            self.old = bytes(self.data[: self.synced])

    def sync(self) -> None:
        self.synced, self.old = len(self.data), None


class Fd:
    __slots__ = ("at", "flags", "inode", "process")

    def __init__(self, process: P.Process, inode: Inode, flags: int) -> None:
        self.process, self.inode, self.flags, self.at = process, inode, flags, 0


class Disk:
    def __init__(self) -> None:
        self.count = 1
        self.root = Inode(1, stat.S_IFDIR | 0o700, {})
        self.fds: dict[int, Fd] = {}
        self.next_fd = 100

    def new(self, mode: int, folder: bool = False) -> Inode:
        self.count += 1
        return Inode(self.count, (stat.S_IFDIR if folder else stat.S_IFREG) | mode, {} if folder else None)

    def folder(self, parts: tuple[str, ...]) -> Inode:
        here = self.root
        for part in parts:
            found = None if here.children is None else here.children.get(part)
            if found is None:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/".join(parts))
            here = found
        return here

    def name(self, where: tuple[str, ...], *changes: tuple[str, Inode | None]) -> None:
        """Give names in one folder to inodes, or take them away, all of it at once."""
        folder = self.folder(where)
        assert folder.children is not None
        for name, inode in changes:
            if inode is None:
                if name not in folder.children:
                    raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
                del folder.children[name]
            else:
                folder.children[name] = inode
        folder.pending.append(list(changes))

    def sync(self, inode: Inode) -> None:
        if inode.children is None:
            inode.sync()
        else:
            inode.names = dict(inode.children)
            inode.pending.clear()

    def forget(self, process: P.Process) -> None:
        """The kernel closes what a dead process had open, and with it its locks."""
        for number in [n for n, fd in self.fds.items() if fd.process is process]:
            self.close(number)

    def close(self, number: int) -> None:
        fd = self.fds.pop(number)
        if fd.inode.holders:
            fd.inode.holders = [one for one in fd.inode.holders if one[0] is not fd]

    def power_cut(self, rng: random.Random) -> None:
        self.fds.clear()
        for inode in list(_every(self.root)):
            inode.holders = []
            if inode.children is not None:
                kept = rng.randint(0, len(inode.pending))
                for name, child in [change for changes in inode.pending[:kept] for change in changes]:
                    if child is None:
                        inode.names.pop(name, None)
                    else:
                        inode.names[name] = child
                inode.pending = []
                inode.children = dict(inode.names)
            elif inode.old is not None or len(inode.data) != inode.synced:
                inode.data = bytearray(_arrived(inode.durable, bytes(inode.data), rng))
                inode.sync()


def _every(inode: Inode) -> Iterator[Inode]:
    yield inode
    for child in {id(c): c for c in [*(inode.children or {}).values(), *inode.names.values()]}.values():
        yield from _every(child)


def _arrived(durable: bytes, cached: bytes, rng: random.Random) -> bytes:
    """What a power cut may leave of data that was written and not synced."""
    if not cached.startswith(durable):  # it was cut or overwritten since: one or the other
        return rng.choice((durable, cached))
    tail = cached[len(durable) :]
    kept = rng.randint(0, len(tail))
    match rng.randrange(3):
        case 0:
            return durable + tail[:kept]
        case 1:  # the size grew, the data did not come
            return durable + tail[:kept] + b"\0" * (len(tail) - kept)
        case _:
            return durable + b"\0" * len(tail)


def _code(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class SimOs:
    """`os`, for the process that runs now."""

    O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_EXCL = os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_EXCL
    O_TRUNC, O_APPEND, O_CLOEXEC, O_NOFOLLOW = os.O_TRUNC, os.O_APPEND, os.O_CLOEXEC, os.O_NOFOLLOW
    SEEK_SET, SEEK_CUR = os.SEEK_SET, os.SEEK_CUR
    environ: dict[str, str] = {}  # noqa: RUF012 (as in `os`)
    path = SimpleNamespace(samestat=lambda a, b: a.st_ino == b.st_ino, isabs=os.path.isabs, expanduser=os.path.expanduser)

    @staticmethod
    def geteuid() -> int:
        return UID

    @staticmethod
    def getpid() -> int:
        return P.now().pid

    @staticmethod
    def getppid() -> int:
        return P.now().parent

    @staticmethod
    def kill(pid: int, number: int) -> None:
        P.kill(pid)

    @staticmethod
    def open(path: Any, flags: int, mode: int = 0o777) -> int:
        process = P.now()
        disk, parts = process.disk, path.where
        makes = bool(flags & os.O_CREAT)
        process.step("open", creates=makes)
        try:
            inode = disk.folder(parts)
        except FileNotFoundError:
            if not makes:
                raise
            inode = disk.new(mode & 0o700)
            disk.name(parts[:-1], (parts[-1], inode))
        else:
            if flags & os.O_EXCL:
                raise _code(errno.EEXIST)
            if flags & os.O_TRUNC:
                inode.changes(0)
                inode.data.clear()
        disk.next_fd += 1
        number = disk.next_fd
        disk.fds[number] = Fd(process, inode, flags)
        process.step("open.done")
        return number

    @staticmethod
    def close(number: int) -> None:
        process = P.now()
        if not process.dead:  # a dead process has closed everything already
            process.disk.close(number)

    @staticmethod
    def write(number: int, data: bytes) -> int:
        process = P.now()
        fd = process.disk.fds.get(number) if not process.dead else None
        short = process.step("write", size=len(data))  # how much of it the disk takes, when not all
        assert fd is not None
        inode = fd.inode
        taken = bytes(data if short is None else data[:short])
        inode.changes(fd.at)
        inode.data[fd.at : fd.at + len(taken)] = taken
        fd.at += len(taken)
        if short is not None and short >= 0 and process.refusal:
            raise process.refusal
        process.step("write.done")
        return len(taken)

    @staticmethod
    def lseek(number: int, at: int, how: int) -> int:
        process = P.now()
        if process.dead:
            raise P.Crash
        fd = process.disk.fds[number]
        fd.at = at if how == os.SEEK_SET else fd.at + at
        return fd.at

    @staticmethod
    def ftruncate(number: int, size: int) -> None:
        process = P.now()
        process.step("ftruncate")
        inode = process.disk.fds[number].inode
        inode.changes(size)
        del inode.data[size:]
        process.step("ftruncate.done")

    @staticmethod
    def fsync(number: int) -> None:
        process = P.now()
        process.step("fsync")
        process.disk.sync(process.disk.fds[number].inode)
        process.step("fsync.done")

    @staticmethod
    def fdatasync(number: int) -> None:
        process = P.now()
        process.step("fdatasync")
        process.disk.sync(process.disk.fds[number].inode)
        process.step("fdatasync.done")

    @staticmethod
    def fstat(number: int) -> Any:
        process = P.now()
        if process.dead:
            raise P.Crash
        return _stat(process.disk.fds[number].inode)

    @staticmethod
    def stat(path: Any) -> Any:
        return _stat(path.inode())

    @staticmethod
    def rename(old: Any, new: Any) -> None:
        process = P.now()
        process.step("rename")
        assert old.where[:-1] == new.where[:-1]
        process.disk.name(old.where[:-1], (new.name, process.disk.folder(old.where)), (old.name, None))
        process.step("rename.done")

    replace = rename


def _stat(inode: Inode) -> Any:
    return SimpleNamespace(st_ino=inode.number, st_mode=inode.mode, st_uid=UID, st_size=len(inode.data))


class SimFcntl:
    """`fcntl`: flock, as the kernel does it."""

    LOCK_EX, LOCK_SH, LOCK_NB, LOCK_UN = 2, 1, 4, 8

    @staticmethod
    def flock(number: int, how: int) -> None:
        process = P.now()
        if process.dead:
            raise P.Crash
        fd = process.disk.fds[number]
        holders = [one for one in fd.inode.holders if one[0] is not fd]
        if how & SimFcntl.LOCK_UN:
            fd.inode.holders = holders
            return
        exclusive = how & SimFcntl.LOCK_EX
        if any(exclusive or held & SimFcntl.LOCK_EX for _, held in holders):
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        fd.inode.holders = [*holders, (fd, how)]


class SimPath:
    """As much of `pathlib.Path` as is used on the state folder."""

    __slots__ = ("where",)

    def __init__(self, *where: str) -> None:
        self.where = where

    def __truediv__(self, name: str) -> SimPath:
        return SimPath(*self.where, *str(name).split("/"))

    def __str__(self) -> str:
        return "/" + "/".join(self.where)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SimPath) and self.where == other.where

    def __hash__(self) -> int:
        return hash(self.where)

    def __lt__(self, other: SimPath) -> bool:
        return self.where < other.where

    @property
    def name(self) -> str:
        return self.where[-1]

    @property
    def parent(self) -> SimPath:
        return SimPath(*self.where[:-1])

    def with_name(self, name: str) -> SimPath:
        return SimPath(*self.where[:-1], name)

    def inode(self) -> Inode:
        process = P.now()
        if process.dead:
            raise P.Crash
        return process.disk.folder(self.where)

    def exists(self) -> bool:
        try:
            self.inode()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        return self.exists() and self.inode().children is not None

    def is_file(self) -> bool:
        return self.exists() and self.inode().children is None

    def is_symlink(self) -> bool:
        return False

    def lstat(self) -> Any:
        return _stat(self.inode())

    def read_bytes(self) -> bytes:
        inode = self.inode()
        P.now().step("read")
        return bytes(inode.data)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        process = P.now()
        if self.exists():
            if exist_ok:
                return
            raise _code(errno.EEXIST)
        process.step("mkdir", creates=True)
        process.disk.name(self.where[:-1], (self.name, process.disk.new(mode & 0o700, folder=True)))
        process.step("mkdir.done")

    def unlink(self, missing_ok: bool = False) -> None:
        if missing_ok and not self.exists():
            return
        process = P.now()
        process.step("unlink")
        process.disk.name(self.where[:-1], (self.name, None))
        process.step("unlink.done")

    def iterdir(self) -> list[SimPath]:
        return [self / name for name in self.inode().children or {}]

    def glob(self, pattern: str) -> list[SimPath]:
        return [path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern)]


def rmtree(path: SimPath, ignore_errors: bool = False) -> None:
    """`shutil.rmtree`."""
    process = P.now()
    process.step("rmtree")
    process.disk.name(path.where[:-1], (path.name, None))
    process.step("rmtree.done")
