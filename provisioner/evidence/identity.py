"""An instance identity document: AWS's signed word that a machine of that id and type was begun at that second.

It is a PKCS#7 message, in BER as AWS writes it, and this is a verifier for that one shape: one signer, SHA-256, RSA, signed
attributes. The certificate comes from our own dated table (`certificates`) and never from the message: the command that
AWS documents (`openssl smime -verify … -certfile AWS.pem -noverify`) also believes a certificate that a forger put inside
(a test builds that forgery, has openssl accept it, and sees it refused here). Lengths, depth and tags are bounded before
anything is believed.

The document is static. It can be shown again by whoever has it and says nothing of what came after the launch.
This file must not open anything, nor know what is concluded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from provisioner.evidence.canonical import Malformed, parse

LIMIT = 64 << 10
DEPTH, NODES = 16, 2000
FIELDS = ("accountId", "availabilityZone", "imageId", "instanceId", "instanceType", "pendingTime", "region")

_SEQUENCE, _SET, _OID, _INTEGER = 0x30, 0x31, 0x06, 0x02
SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
DATA = bytes.fromhex("2a864886f70d010701")
CONTENT_TYPE = bytes.fromhex("2a864886f70d010903")
MESSAGE_DIGEST = bytes.fromhex("2a864886f70d010904")
SHA256 = bytes.fromhex("608648016503040201")
RSA = frozenset({bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a864886f70d01010b")})


class Forged(Exception):
    """Not a document that one of these certificates has signed."""


@dataclass(frozen=True)
class Document:
    """What was signed, and the sha256 of the certificate whose key signed it."""

    fields: dict[str, str]
    certificate: str


@dataclass(frozen=True)
class _Node:
    """One BER element: where it stands, and its bytes or its parts."""

    tag: int
    start: int
    body: int
    end: int
    definite: bool
    content: bytes
    parts: tuple[_Node, ...]

    def at(self, *path: int) -> _Node:
        node = self
        for n in path:
            if n >= len(node.parts):
                raise Forged("an element is missing")
            node = node.parts[n]
        return node


def verify(text: bytes, certificates: Sequence[bytes]) -> Document:
    """The document in what IMDS gave as `rsa2048` (base64, with or without its PEM lines), signed under one of these PEMs."""
    raw = _decoded(text)
    signed = _signed_data(raw)
    body = _content(signed)
    signers = [node for node in signed.parts if node.tag == _SET][-1].parts
    if len(signers) != 1 or len(signed.parts) < 4:
        raise Forged(f"it has {len(signers)} signers; expected 1")
    signer = signers[0]
    attributes = _attributes(raw, signer, body)
    for pem in certificates:
        if (fingerprint := _signed_by(pem, signer, attributes)) is not None:
            return Document(_fields(body), fingerprint)
    raise Forged("its signature was not made with the key of a certificate that is trusted here")


def peek(text: bytes) -> dict[str, str]:
    """What the message says, believed by nobody: to choose the region's certificates. `Forged` when it cannot be read."""
    return _fields(_content(_signed_data(_decoded(text))))


def _decoded(text: bytes) -> bytes:
    if len(text) > LIMIT:
        raise Forged(f"it is {len(text)} bytes long; at most {LIMIT} are read")
    lines = re.sub(rb"-----(?:BEGIN|END) [A-Z0-9 #]{1,40}-----", b"", text).split()
    try:
        return base64.b64decode(b"".join(lines), validate=True)
    except binascii.Error:
        raise Forged("it is not base64") from None


def _signed_data(raw: bytes) -> _Node:
    outer = _read(raw, 0, 0, [0])
    if outer.end != len(raw):
        raise Forged("something stands behind the message")
    if outer.at(0).content != SIGNED_DATA or outer.at(1).tag != 0xA0:
        raise Forged("it is not a signed PKCS#7 message")
    signed = outer.at(1, 0)
    if signed.tag != _SEQUENCE or not [node for node in signed.parts if node.tag == _SET]:
        raise Forged("it names no signers")
    return signed


def _content(signed: _Node) -> bytes:
    inside = signed.at(2)
    if inside.at(0).content != DATA or inside.at(1).tag != 0xA0:
        raise Forged("the document is not inside the message")
    return _octets(inside.at(1, 0))


def _octets(node: _Node) -> bytes:
    if node.tag == 0x04:
        return node.content
    if node.tag != 0x24:
        raise Forged("a text is not a string of bytes")
    return b"".join(_octets(part) for part in node.parts)


def _attributes(raw: bytes, signer: _Node, body: bytes) -> bytes:
    """What the signature is over: the signed attributes, which must speak of this very content."""
    holder = signer.at(3)
    if signer.at(2, 0).content != SHA256 or holder.tag != 0xA0 or not holder.definite:
        raise Forged("it is not signed over SHA-256 and signed attributes")
    said: dict[bytes, _Node] = {}
    for attribute in holder.parts:
        name = attribute.at(0).content
        if name in said or len(attribute.at(1).parts) != 1:
            raise Forged("a signed attribute is given twice")
        said[name] = attribute.at(1, 0)
    if CONTENT_TYPE not in said or said[CONTENT_TYPE].content != DATA:
        raise Forged("what was signed is of another type")
    if MESSAGE_DIGEST not in said or said[MESSAGE_DIGEST].content != hashlib.sha256(body).digest():
        raise Forged("the digest that was signed is not that of the document")
    return bytes([_SET]) + raw[holder.start + 1 : holder.end]


def _signed_by(pem: bytes, signer: _Node, attributes: bytes) -> str | None:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.serialization import Encoding

    certificate = x509.load_pem_x509_certificate(pem)
    public = certificate.public_key()
    number = signer.at(1, 1)
    if not isinstance(public, rsa.RSAPublicKey) or number.tag != _INTEGER or signer.at(4, 0).content not in RSA:
        return None
    if int.from_bytes(number.content, "big", signed=True) != certificate.serial_number:
        return None
    try:
        public.verify(_octets(signer.at(5)), attributes, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return None
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def _fields(body: bytes) -> dict[str, str]:
    try:
        document: Any = parse(body)
    except Malformed as e:
        raise Forged(f"the document cannot be read: {e}") from None
    if not isinstance(document, dict):
        raise Forged("the document is not a JSON object")
    wrong = [name for name in FIELDS if not isinstance(document.get(name), str) or len(document[name]) > 100]
    if wrong:
        raise Forged(f"the document has no {wrong[0]}")
    return {name: document[name] for name in FIELDS}


def _read(raw: bytes, at: int, depth: int, count: list[int]) -> _Node:
    """The element at that place. Lengths may be indefinite, as AWS writes them; tags are short."""
    count[0] += 1
    if depth > DEPTH or count[0] > NODES:
        raise Forged("it is nested too deeply")
    tag, long, here = _header(raw, at)
    made_of_parts = bool(tag & 0x20)
    if long is None and not made_of_parts:
        raise Forged("a length is missing")
    end = len(raw) if long is None else here + long
    if end > len(raw):
        raise Forged("it is cut off")
    if not made_of_parts:
        return _Node(tag, at, here, end, True, raw[here:end], ())
    parts: list[_Node] = []
    inside = here
    while True:
        if long is not None and inside == end:
            return _Node(tag, at, here, end, True, b"", tuple(parts))
        if long is None and raw[inside : inside + 2] == b"\0\0":
            return _Node(tag, at, here, inside + 2, False, b"", tuple(parts))
        part = _read(raw, inside, depth + 1, count)
        if part.end > end:
            raise Forged("a length does not fit")
        parts.append(part)
        inside = part.end


def _header(raw: bytes, at: int) -> tuple[int, int | None, int]:
    """Tag, length (None: until an end mark), and where the content begins."""
    if at + 2 > len(raw) or raw[at] & 0x1F == 0x1F:
        raise Forged("a tag cannot be read")
    tag, first = raw[at], raw[at + 1]
    if first < 0x80:
        return tag, first, at + 2
    if first == 0x80:
        return tag, None, at + 2
    wide = first & 0x7F
    if wide > 4 or at + 2 + wide > len(raw):
        raise Forged("a length cannot be read")
    return tag, int.from_bytes(raw[at + 2 : at + 2 + wide], "big"), at + 2 + wide
