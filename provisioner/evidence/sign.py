"""The signing key, made on first use, and the one byte form of a signed envelope.

A DSSE envelope signs bytes, not parsed JSON, so nothing is parsed before the signature has been checked. The library
reads envelopes generously (unknown fields, further signatures), so what is read here must also be, byte for byte, what
we would write: one payload, one type, one signature. The public key travels beside it in `signer.pub.json`; its id is
the hash of its content, so it cannot be swapped without the id changing.

The key says that the same key signed, and nothing about whose it is. Its folder is 0700 and its file 0600, or it is
not used: a key that others can read signs for them too.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.errors import RefusedError, RunError
from provisioner.evidence.canonical import Malformed, differs_at, dumps, loads
from provisioner.evidence.messages import Problem, problem
from provisioner.journal import sync_folder
from provisioner.model import Json
from provisioner.secret import Secret

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, Key  # type: ignore[attr-defined]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
KEY_FILE = "ed25519.pem"
ENVELOPE_LIMIT = 1 << 20
PUBLIC_LIMIT = 4 << 10


@dataclass(frozen=True)
class Envelope:
    """What is written: `statement.dsse.json` and `signer.pub.json`."""

    raw: bytes
    public: bytes
    keyid: str


class Unsigned(Exception):
    """No valid signature in the one allowed form."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def sign(statement: Json, keys: Path) -> Envelope:
    """The statement's envelope, signed with the key in that folder, which is made if there is none."""
    from securesystemslib.dsse import Envelope as Dsse

    signer = key(keys)
    dsse = Dsse(dumps(statement), PAYLOAD_TYPE, {})
    dsse.sign(signer)
    raw = dumps(dsse.to_dict()) + b"\n"
    if len(raw) > ENVELOPE_LIMIT:
        raise RunError(
            f"the statement is {len(raw)} bytes; a verifier reads at most {ENVELOPE_LIMIT}", why="the journal names too many resources"
        )
    return Envelope(raw, _public(signer.public_key), signer.public_key.keyid)


def key(folder: Path) -> CryptoSigner:
    """The signer for the key in `folder`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _private(folder, folder.lstat(), "chmod 700", stat.S_ISDIR)
    path = folder / KEY_FILE
    if not path.exists() and not path.is_symlink():
        _make(path)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        _private(path, os.fstat(fd), "chmod 600", stat.S_ISREG)
        pem = Secret(os.read(fd, 4096))
    finally:
        os.close(fd)
    try:
        private = load_pem_private_key(pem.reveal_bytes(), None)
    except ValueError:
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise RefusedError(
            f"{path} is not an Ed25519 key", why="it was damaged or replaced", next=f"mv {path} {path}.old   (a new one is made)"
        )
    return CryptoSigner(private)


def secret(keys: Path, about: bytes) -> Secret:
    """Bytes that only the key's owner can make again, another for everything that they are about: a signature nobody sees."""
    return Secret(bytes.fromhex(key(keys).sign(b"salts " + hashlib.sha256(about).digest()).signature))


def opened(raw: bytes, public: bytes) -> tuple[bytes, str]:
    """The payload and the id of the key that signed it, or `Unsigned`. The payload has not been parsed."""
    from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
    from securesystemslib.signer import Signature  # type: ignore[attr-defined]

    payload, signature, keyid = _envelope(raw)
    verifier = _verifier(public)
    if verifier is None or verifier.keyid != keyid:
        raise Unsigned(problem("E101", keyid=keyid))
    try:
        verifier.verify_signature(Signature(keyid, signature.hex()), pae(payload))
    except (UnverifiedSignatureError, VerificationError):
        raise Unsigned(problem("E101", keyid=keyid)) from None
    return payload, keyid


def pae(payload: bytes) -> bytes:
    """What is signed: the payload and its type, each with its length, so that neither can be taken for the other."""
    return b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def raw_key(public: bytes) -> bytes:
    """The 32 bytes of the key in a `signer.pub.json` that `opened` has accepted."""
    return bytes.fromhex(loads(public[:-1])["keyval"]["public"])


def _envelope(raw: bytes) -> tuple[bytes, bytes, str]:
    """Payload, signature and key id out of the one allowed form."""
    try:
        body = loads(raw[:-1])
        if raw[-1:] != b"\n":
            raise Malformed("no newline at the end", len(raw))
    except Malformed as e:
        raise Unsigned(problem("E103", n=e.offset)) from None
    try:
        kind, (only,) = body["payloadType"], body["signatures"]
        payload, signature, keyid = unbase64(body["payload"]), unbase64(only["sig"]), only["keyid"]
        again = {"payload": _text(payload), "payloadType": kind, "signatures": [{"keyid": keyid, "sig": _text(signature)}]}
        same = dumps(again) + b"\n"
    except (KeyError, TypeError, ValueError):
        raise Unsigned(problem("E103", n=0)) from None
    if same != raw or not isinstance(keyid, str) or not isinstance(kind, str):
        raise Unsigned(problem("E103", n=differs_at(same, raw)))
    if kind != PAYLOAD_TYPE:
        raise Unsigned(problem("E104", t=kind, list=PAYLOAD_TYPE))
    return payload, signature, keyid


def unbase64(text: str) -> bytes:
    """Raises ValueError for anything but the one alphabet and its padding."""
    return base64.b64decode(text, validate=True)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _public(public: Key) -> bytes:
    return dumps({"keyid": public.keyid, **public.to_dict()}) + b"\n"


def _verifier(raw: bytes) -> Key | None:
    """The key in `signer.pub.json`; None when it is not a plain Ed25519 key under its own id."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    try:
        body = loads(raw[:-1])
        public = body["keyval"]["public"]
        made = SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)))
    except (KeyError, TypeError, ValueError):
        return None
    return made if _public(made) == raw else None


def _make(path: Path) -> None:
    """A new key, whole or not at all; if two programs make one at once, the first one's stays."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = Secret(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, pem.reveal_bytes())
        os.fsync(fd)
    finally:
        os.close(fd)
    try:
        os.link(part, path)
    except FileExistsError:
        return  # the other one's key is as good
    finally:
        os.unlink(part)
    sync_folder(path.parent)


def _private(path: Path, info: os.stat_result, remedy: str, is_kind: object) -> None:
    mode = stat.S_IMODE(info.st_mode)
    if not callable(is_kind) or not is_kind(info.st_mode) or info.st_uid != os.geteuid():
        raise RefusedError(
            f"{path} is not yours, or not what it should be", why="the key that signs proofs is kept there", next=f"ls -ld {path}"
        )
    if mode & 0o077:
        raise RefusedError(
            f"{path} is readable by others (mode {mode:o})", why="a key that others can read signs for them too", next=f"{remedy} {path}"
        )
