"""SSH keys of one lease: a client key that opens the machine, and the host key that the machine will be given.

The host key is made here and travels in the user data, so the machine's identity is known before it boots and the
first connection is as safe as any later one. Private halves are written once, 0600, into the lease's own folder and
are never returned, printed or journalled. `public_line` is the only way in for a public key from outside: it takes
exactly one key, and its own type name must agree with the one written before it.

Must not know what the keys are for, nor where the folder is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from provisioner.errors import RefusedError
from provisioner.secret import Secret


@dataclass(frozen=True)
class KeyPair:
    """Where the private half is, and the public half as one line without a comment."""

    private: Path
    public: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public)

    def private_text(self) -> Secret:
        """The private half, for the one place that must carry it (user data)."""
        return Secret(self.private.read_bytes())


def make_pair(folder: Path, name: str) -> KeyPair:
    """A fresh Ed25519 pair: `folder/name` (0600) and `folder/name.pub`. An existing key is never overwritten."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH).decode("ascii")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_new(folder / name, private, 0o600)
    _write_new(folder / f"{name}.pub", public.encode("ascii") + b"\n", 0o644)
    return KeyPair(folder / name, public)


def read_pair(folder: Path, name: str) -> KeyPair:
    """The pair that `make_pair` left in a folder."""
    return KeyPair(folder / name, public_line((folder / f"{name}.pub").read_text(encoding="ascii")))


def client_pair(folder: Path) -> KeyPair:
    return make_pair(folder, "client_ed25519")


def host_pair(folder: Path, *, anew: bool = False) -> KeyPair:
    """The host key that a machine will be given; `anew` for the machine that follows another."""
    if anew:
        for name in ("host_ed25519", "host_ed25519.pub"):
            (folder / name).unlink(missing_ok=True)
    return make_pair(folder, "host_ed25519")


def replace_public(folder: Path, name: str, public: str) -> None:
    """Another public half under that name, all of it or the old one."""
    part = folder / f"{name}.pub.part"
    part.unlink(missing_ok=True)
    _write_new(part, public_line(public).encode("ascii") + b"\n", 0o644)
    part.replace(folder / f"{name}.pub")


def public_line(text: str) -> str:
    """ "ssh-ed25519 AAAA…" out of one public-key line, comment and surrounding white space dropped."""
    lines = text.strip().splitlines()
    words = lines[0].split() if len(lines) == 1 else []
    if len(words) < 2 or _inner_type(words[1]) != words[0]:
        raise RefusedError(
            "this is not an OpenSSH public key line",
            why=f"it has {len(lines)} lines; needs one that starts with a key type and its base64, as in a .pub file",
            next="ssh-keygen -y -f KEYFILE prints the public half of a key",
        )
    return f"{words[0]} {words[1]}"


def key_type(public: str) -> str:
    return public_line(public).split()[0]


def blob(public: str) -> bytes:
    """The key as it travels."""
    return base64.b64decode(public_line(public).split()[1])


def fingerprint(public: str) -> str:
    """SHA256:… as ssh-keygen prints it."""
    return fingerprint_of(blob(public))


def fingerprint_of(raw: bytes) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(raw).digest()).decode("ascii").rstrip("=")


def _inner_type(encoded: str) -> str | None:
    try:
        raw = base64.b64decode(encoded, validate=True)
        (length,) = struct.unpack_from(">I", raw)
        return raw[4 : 4 + length].decode("ascii") if len(raw) > 4 + length else None
    except (binascii.Error, struct.error, ValueError):
        return None


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), mode)
    try:
        os.fchmod(descriptor, mode)  # whatever the umask was
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
