"""OpenSSH signatures, and the file that says whose they may be: read here, so that checking a stranger's runs no program.

`statement.sshsig` is what `ssh-keygen -Y sign -n shutdown-evidence@gpulease.dev` makes over the very bytes that the
envelope signs, so `ssh-keygen -Y verify` checks it as well. Ed25519, ECDSA and RSA keys, and Ed25519 keys in a security
key that somebody touched. Certificates are not followed: a line for one vouches for nobody here.

`allowed_signers` is the file format of ssh-keygen(1), read more strictly than there: a line that is not understood
is an error, because a restriction that is skipped is a permission.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import re
import shlex
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from provisioner.evidence.canonical import milliseconds
from provisioner.evidence.messages import problem
from provisioner.evidence.sign import Unsigned

NAMESPACE = "shutdown-evidence@gpulease.dev"
LIMIT = 16 << 10
SIGNERS_LIMIT = 1 << 20
_MAGIC = b"SSHSIG"
_ARMOR = re.compile(rb"-----BEGIN SSH SIGNATURE-----\n((?:[A-Za-z0-9+/=]{1,76}\n)+)-----END SSH SIGNATURE-----\n?")
_KINDS = ("ssh-ed25519", "sk-ssh-ed25519@openssh.com", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
_OPTION = re.compile(r'[a-z-]+(?:="[^"]*")?')
_OPTIONS = re.compile(rf"{_OPTION.pattern}(?:,{_OPTION.pattern})*")
_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?(Z?)", re.ASCII)


class BadSigners(ValueError):
    """The file of allowed signers cannot be understood; it is the reader's own, so this is no finding about a bundle."""


@dataclass(frozen=True)
class Key:
    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    @property
    def line(self) -> str:
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"


@dataclass(frozen=True)
class Signer:
    """One line of the file: who, with which key, for what, and when. Times in milliseconds since 1970."""

    principal: str
    key: Key
    namespaces: tuple[str, ...] = ()
    after: int | None = None
    before: int | None = None
    authority: bool = False

    def may(self, key: Key) -> bool:
        return (
            not self.authority
            and key == self.key
            and (not self.namespaces or any(fnmatch.fnmatchcase(NAMESPACE, n) for n in self.namespaces))
        )

    def then(self, ms: int) -> bool:
        return (self.after is None or ms >= self.after) and (self.before is None or ms < self.before)


def ed25519(public: bytes) -> Key:
    """A raw Ed25519 key as OpenSSH writes it."""
    return Key("ssh-ed25519", _string(b"ssh-ed25519") + _string(public))


def checked(armored: bytes, message: bytes) -> Key:
    """The key that made this signature over that message, or `Unsigned`."""
    try:
        found = _ARMOR.fullmatch(armored)
        if found is None:
            raise ValueError("it is not an armored signature")
        raw = base64.b64decode(found[1].replace(b"\n", b""), validate=True)
        if raw[:10] != _MAGIC + struct.pack(">L", 1):
            raise ValueError("it is of another version")
        blob, namespace, reserved, hashing, signature = _strings(raw[10:], 5)
        if namespace != NAMESPACE.encode() or hashing not in (b"sha256", b"sha512") or reserved:
            raise ValueError(f"it is for {namespace.decode('utf-8', 'replace')!r}, not for {NAMESPACE!r}")
        digest = hashlib.new(hashing.decode(), message).digest()
        key = Key(_first(blob).decode("ascii"), blob)
        _check(key, signature, _MAGIC + _string(namespace) + _string(reserved) + _string(hashing) + _string(digest))
    except (ValueError, binascii.Error) as e:
        raise Unsigned(problem("E106", why=str(e) or "the signature does not match")) from None
    return key


def _check(key: Key, signature: bytes, signed: bytes) -> None:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    kind = _first(signature).decode("ascii")
    try:
        if key.kind.startswith("sk-"):
            _touched(key, signature, signed)
            return
        public = load_ssh_public_key(key.line.encode())
        _, made = _strings(signature, 2)
        if isinstance(public, Ed25519PublicKey) and kind == key.kind:
            public.verify(made, signed)
        elif isinstance(public, rsa.RSAPublicKey) and kind in ("rsa-sha2-256", "rsa-sha2-512") and public.key_size >= 2048:
            public.verify(made, signed, padding.PKCS1v15(), hashes.SHA256() if kind.endswith("256") else hashes.SHA512())
        elif isinstance(public, ec.EllipticCurvePublicKey) and kind == key.kind:
            r, s = (int.from_bytes(part, "big") for part in _strings(made, 2))
            hashing = {256: hashes.SHA256(), 384: hashes.SHA384()}.get(public.key_size, hashes.SHA512())
            public.verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(hashing))
        else:
            raise ValueError(f"a {key.kind} key with a {kind} signature is not taken")
    except (InvalidSignature, UnsupportedAlgorithm):
        raise ValueError("the signature does not match") from None


def _touched(key: Key, signature: bytes, signed: bytes) -> None:
    """A security key signs the application, what the person did, a counter, and the message."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    kind, public, application = _strings(key.blob, 3)
    if kind != b"sk-ssh-ed25519@openssh.com" or _first(signature) != kind:
        raise ValueError(f"a {key.kind} key is not taken")
    made, rest = _take(signature[4 + len(kind) :])
    if len(rest) != 5 or not rest[0] & 1:
        raise ValueError("nobody touched the security key")
    Ed25519PublicKey.from_public_bytes(public).verify(made, hashlib.sha256(application).digest() + rest + hashlib.sha256(signed).digest())


def signers(text: str) -> list[Signer]:
    """The lines of an allowed_signers file, or `BadSigners` with the first that is not understood."""
    made: list[Signer] = []
    for n, line in enumerate(text.splitlines(), 1):
        if not (line := line.strip()) or line.startswith("#"):
            continue
        try:
            made.append(_signer(line))
        except (ValueError, binascii.Error) as e:
            raise BadSigners(f"line {n}: {e}") from None
    return made


def _signer(line: str) -> Signer:
    words = shlex.split(line, posix=True)
    at = next((n for n, word in enumerate(words) if word in _KINDS and n), None)
    if at is None or at > 2 or len(words) < at + 2:
        raise ValueError("is not `principal [options] key-type key`")
    blob = base64.b64decode(words[at + 1], validate=True)
    if _first(blob) != words[at].encode():
        raise ValueError("the key is not of the type that it says")
    options = {"namespaces": "", "valid-after": "", "valid-before": "", "cert-authority": ""}
    said = _options(line) if at == 2 else ""
    if said and not _OPTIONS.fullmatch(said):
        raise ValueError("its options are not understood")
    for option in _OPTION.findall(said):
        name, _, value = option.partition("=")
        if name not in options:
            raise ValueError(f"the option {name} is not known")
        options[name] = value.strip('"') or name
    return Signer(
        words[0],
        Key(words[at], blob),
        tuple(filter(None, options["namespaces"].split(","))),
        _when(options["valid-after"]),
        _when(options["valid-before"]),
        bool(options["cert-authority"]),
    )


def _options(line: str) -> str:
    """The second word as it stands, with its quotes."""
    found = re.match(r'(?:"[^"]*"|\S)+\s+((?:"[^"]*"|\S)+)', line)
    if found is None:
        raise ValueError("its options are not understood")
    return found[1]


def _when(text: str) -> int | None:
    if not text:
        return None
    found = _TIME.fullmatch(text)
    if found is None or not found[7]:
        raise ValueError(
            f"{text} is not a time in UTC: YYYYMMDDZ or YYYYMMDDHHMMZ (a time without Z means another instant on each machine)"
        )
    year, month, day, hour, minute, second, _ = found.groups()
    ms = milliseconds(f"{year}-{month}-{day}T{hour or '00'}:{minute or '00'}:{second or '00'}Z")
    if ms is None:
        raise ValueError(f"{text} is not a time")
    return ms


def _string(data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + data


def _take(data: bytes) -> tuple[bytes, bytes]:
    if len(data) < 4 or len(data) < 4 + (size := struct.unpack(">L", data[:4])[0]):
        raise ValueError("it ends early")
    return data[4 : 4 + size], data[4 + size :]


def _first(data: bytes) -> bytes:
    return _take(data)[0]


def _strings(data: bytes, count: int) -> Sequence[bytes]:
    made = []
    for _ in range(count):
        one, data = _take(data)
        made.append(one)
    if data:
        raise ValueError("something stands behind its end")
    return made
