"""SFTP into a simulated machine's folder: `/etc/x` is ROOT/etc/x, a relative path is the login user's home.

What `$HOME` prints on the machine is already a path inside the root, so a path that starts with the root is taken
as it is. Only the operations OpenSSH's server has; modes and times are real, owners are not changed. It keeps a
client from wandering by mistake, nothing more: links are followed.
"""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paramiko
from paramiko.sftp import SFTP_FAILURE, SFTP_OK, SFTP_OP_UNSUPPORTED

if TYPE_CHECKING:
    from typing_extensions import Buffer


class OpenFile(paramiko.SFTPHandle):
    def __init__(self, flags: int, fd: int) -> None:
        super().__init__(flags)
        self._fd = fd

    def close(self) -> None:
        os.close(self._fd)

    def read(self, offset: int, length: int) -> bytes | int:
        try:
            return os.pread(self._fd, length, offset)
        except OSError as e:
            return paramiko.SFTPServer.convert_errno(e.errno or 0)

    def write(self, offset: int, data: Buffer) -> int:
        left = memoryview(data)
        try:
            while left:
                done = os.pwrite(self._fd, left, offset)
                left, offset = left[done:], offset + done
        except OSError as e:
            return paramiko.SFTPServer.convert_errno(e.errno or 0)
        return SFTP_OK

    def stat(self) -> paramiko.SFTPAttributes | int:
        return paramiko.SFTPAttributes.from_stat(os.fstat(self._fd))

    def chattr(self, attr: paramiko.SFTPAttributes) -> int:
        return _change(self._fd, attr)


class FolderSFTP(paramiko.SFTPServerInterface):
    def __init__(self, server: paramiko.ServerInterface, root: Path, *args: Any, **kwargs: Any) -> None:
        super().__init__(server, *args, **kwargs)
        self._root = str(root)
        self._home = str(root / "home/ubuntu")

    def _real(self, path: str) -> str:
        if path == self._root or path.startswith(self._root + "/"):
            return os.path.normpath(path)
        if path.startswith("/"):
            return self._root + posixpath.normpath("/" + path.lstrip("/"))
        return os.path.normpath(os.path.join(self._home, path))

    def canonicalize(self, path: str) -> str:
        return self._real(path)

    def list_folder(self, path: str) -> list[paramiko.SFTPAttributes] | int:
        try:
            with os.scandir(self._real(path)) as entries:
                return [paramiko.SFTPAttributes.from_stat(e.stat(follow_symlinks=False), e.name) for e in entries]
        except OSError as e:
            return paramiko.SFTPServer.convert_errno(e.errno or 0)

    def stat(self, path: str) -> paramiko.SFTPAttributes | int:
        try:
            return paramiko.SFTPAttributes.from_stat(os.stat(self._real(path)))
        except OSError as e:
            return paramiko.SFTPServer.convert_errno(e.errno or 0)

    def lstat(self, path: str) -> paramiko.SFTPAttributes | int:
        try:
            return paramiko.SFTPAttributes.from_stat(os.lstat(self._real(path)))
        except OSError as e:
            return paramiko.SFTPServer.convert_errno(e.errno or 0)

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> paramiko.SFTPHandle | int:
        mode = attr.st_mode if attr.st_mode is not None else 0o666
        try:
            # O_APPEND is left out: the client sends the offset with every write, and pwrite would ignore it.
            return OpenFile(flags, os.open(self._real(path), (flags & ~os.O_APPEND) | os.O_CLOEXEC, mode & 0o7777))
        except OSError as e:
            return paramiko.SFTPServer.convert_errno(e.errno or 0)

    def remove(self, path: str) -> int:
        return _done(os.remove, self._real(path))

    def rename(self, oldpath: str, newpath: str) -> int:
        if os.path.lexists(self._real(newpath)):
            return SFTP_FAILURE
        return _done(os.rename, self._real(oldpath), self._real(newpath))

    def posix_rename(self, oldpath: str, newpath: str) -> int:
        return _done(os.replace, self._real(oldpath), self._real(newpath))

    def mkdir(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        return _done(os.mkdir, self._real(path), (attr.st_mode if attr.st_mode is not None else 0o777) & 0o7777)

    def rmdir(self, path: str) -> int:
        return _done(os.rmdir, self._real(path))

    def chattr(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        return _change(self._real(path), attr)

    def symlink(self, target_path: str, path: str) -> int:
        return _done(os.symlink, target_path, self._real(path))

    def readlink(self, path: str) -> str | int:
        try:
            return os.readlink(self._real(path))
        except OSError as e:
            return paramiko.SFTPServer.convert_errno(e.errno or 0)


def _done(act: Any, *args: Any) -> int:
    try:
        act(*args)
    except OSError as e:
        return paramiko.SFTPServer.convert_errno(e.errno or 0)
    return SFTP_OK


def _change(what: str | int, attr: paramiko.SFTPAttributes) -> int:
    try:
        if attr.st_mode is not None:
            os.chmod(what, attr.st_mode & 0o7777)
        if attr.st_size is not None:
            os.truncate(what, attr.st_size)
        if attr.st_mtime is not None:
            os.utime(what, (attr.st_atime if attr.st_atime is not None else attr.st_mtime, attr.st_mtime))
    except OSError as e:
        return paramiko.SFTPServer.convert_errno(e.errno or 0)
    except NotImplementedError:
        return SFTP_OP_UNSUPPORTED
    return SFTP_OK
