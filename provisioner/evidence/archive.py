"""A bundle as one file: a zip that is always the same bytes, and a reader for zips that strangers made.

Written: every file under `<lease>.evidence/`, stored and not compressed, in the order of the alphabet, with one fixed
date and mode. So the bytes follow from the content, on every machine and with every version of zlib.

Read: any plain zip, stored or deflated, with or without the one folder around it. Sizes, names, kinds, overlaps and
ratios are checked in the directory before a byte is inflated, and counted again while it is. Nothing is unpacked to disk.

This file must not know what the files mean.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from provisioner.evidence.files import ENTRY_LIMIT, FILE_LIMIT, NAME, TOTAL_LIMIT, Unreadable
from provisioner.evidence.messages import problem

MOST_RATIO = 100
DIRECTORY_LIMIT = 1 << 20
_END = struct.Struct("<4s4H2LH")
_DATE = (1980, 1, 1, 0, 0, 0)


def packed(members: Mapping[str, bytes], folder: str) -> bytes:
    """The archive of those files, in a folder of that name."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a name for a file in a bundle")
            info = zipfile.ZipInfo(f"{folder}/{name}", _DATE)
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o600) << 16
            archive.writestr(info, members[name])
    return made.getvalue()


class Archive:
    """A bundle in a zip, held open; it reads like `files.Folder`."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = str(path), 0
        try:
            # A FIFO would wait for a writer; what it is, is asked of what was opened.
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as e:
            raise Unreadable(problem("E001", path=str(path), reason=e.strerror or type(e).__name__)) from None
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise self._not("it is neither a folder nor a plain file")
            if info.st_size > TOTAL_LIMIT:
                raise Unreadable(problem("E002", path=str(path), limit=f"{TOTAL_LIMIT} bytes"))
            self._file = os.fdopen(fd, "rb", closefd=False)
            self._fd = fd
            self._members = self._checked(self._entries(info.st_size))
        except BaseException:  # nobody else has the descriptor yet
            os.close(fd)
            raise
        self.names = sorted(self._members)

    def read(self, name: str, limit: int) -> bytes:
        """The whole of a member of at most `limit` bytes."""
        return b"".join(self._chunks(name, limit))

    def sha256(self, name: str) -> str:
        made = hashlib.sha256()
        for chunk in self._chunks(name, FILE_LIMIT):
            made.update(chunk)
        return made.hexdigest()

    def close(self) -> None:
        self._file.close()
        os.close(self._fd)

    def _not(self, reason: str) -> Unreadable:
        return Unreadable(problem("E001", path=self._path, reason=reason))

    def _entries(self, size: int) -> int:
        """How many members it says to have; asked before a library takes the whole directory into memory."""
        self._file.seek(max(0, size - _END.size))
        end = self._file.read(_END.size)
        if len(end) != _END.size or end[:4] != b"PK\5\6":
            raise self._not("it is no zip archive, or something stands behind its end")
        _, disk, first, here, entries, length, offset, comment = _END.unpack(end)
        if entries > ENTRY_LIMIT or length > DIRECTORY_LIMIT:
            raise Unreadable(problem("E002", path=self._path, limit=f"{ENTRY_LIMIT} files"))
        if disk or first or comment or here != entries or offset + length + _END.size != size:
            raise self._not("its directory is not where a plain zip archive has it")
        return int(entries)

    def _checked(self, entries: int) -> dict[str, zipfile.ZipInfo]:
        try:
            self._zip = zipfile.ZipFile(self._file)
            infos = self._zip.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError) as e:
            raise self._not(f"it is no whole zip archive ({e})") from None
        if len(infos) != entries:  # a comment or an extra field may have swallowed some
            raise self._not(f"its directory lists {len(infos)} members and says {entries}")
        if sum(info.file_size for info in infos) > TOTAL_LIMIT:
            raise Unreadable(problem("E002", path=self._path, limit=f"{TOTAL_LIMIT} bytes unpacked"))
        _apart(infos, self._not)
        members: dict[str, zipfile.ZipInfo] = {}
        around = _around(infos)
        for info in infos:
            name = info.orig_filename.removeprefix(around)
            kind = stat.S_IFMT(info.external_attr >> 16)
            folder = info.filename.endswith("/")  # not is_dir(), which falls over a member without a name
            if folder and kind in (0, stat.S_IFDIR) and (name == "" or NAME.fullmatch(f"{name}x")):
                continue
            if info.orig_filename != info.filename or not NAME.fullmatch(name) or name in members or kind not in (0, stat.S_IFREG):
                raise Unreadable(problem("E003", member=info.orig_filename))
            if info.flag_bits & 0x2061 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise self._not(f"{info.orig_filename} is encrypted, or packed in a way that is not read here")
            if info.file_size > MOST_RATIO * max(info.compress_size, 1):
                raise Unreadable(problem("E002", path=name, limit=f"{MOST_RATIO} times its packed size"))
            members[name] = info
        return members

    def _chunks(self, name: str, limit: int) -> Iterator[bytes]:
        if name not in self._members:
            raise Unreadable(problem("E003", member=name) if not NAME.fullmatch(name) else problem("E001", path=name, reason="not there"))
        info, size = self._members[name], 0
        if info.file_size > limit:
            raise Unreadable(problem("E002", path=name, limit=f"{limit} bytes"))
        try:
            with self._zip.open(info) as member:
                while chunk := member.read(1 << 20):
                    size += len(chunk)
                    self._read += len(chunk)
                    if size > limit or self._read > TOTAL_LIMIT:
                        raise Unreadable(problem("E002", path=name, limit=f"{min(limit, TOTAL_LIMIT)} bytes"))
                    yield chunk
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OSError, zlib.error, struct.error) as e:
            raise Unreadable(problem("E001", path=name, reason=f"its place in the archive is damaged ({e})")) from None
        if size != info.file_size:
            raise Unreadable(problem("E001", path=name, reason="it ends early in the archive"))


def _around(infos: list[zipfile.ZipInfo]) -> str:
    """The one folder that everything lies in, if there is one and its name says what it is."""
    first = infos[0].orig_filename.partition("/")[0] if infos else ""
    whole = first.endswith(".evidence") and NAME.fullmatch(first) and all(i.orig_filename.startswith(f"{first}/") for i in infos)
    return f"{first}/" if whole else ""


def _apart(infos: list[zipfile.ZipInfo], wrong: Callable[[str], Unreadable]) -> None:
    """No two members share a byte of the archive: many names for one packed file are how a small one becomes a bomb."""
    end = 0
    for info in sorted(infos, key=lambda i: i.header_offset):
        if info.header_offset < end:
            raise wrong("its members overlap")
        end = info.header_offset + 30 + len(info.orig_filename.encode("utf-8", "replace")) + info.compress_size
