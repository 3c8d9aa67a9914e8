"""CloudTrail's digest files: AWS's signature over the log files of an hour, each naming the digest before it.

AWS's own validator works online, in the account, on files in their original place. This one works on copies: a bundle holds
each digest, each log file that it names, and beside a digest the signature that S3 keeps in its metadata. The signature is
RSA (PKCS#1 v1.5, SHA-256) over `digestEndTime`, `bucket/key`, the digest's sha256 and the signature before it. Public keys
are per region and not per account, so whoever checks takes them from AWS with a login of their own, never from the bundle.

Whether the chain is whole is a fact of the files and is derived without keys; whether AWS signed it needs them.
This file must not open anything.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provisioner.evidence.canonical import Malformed, milliseconds, parse
from provisioner.evidence.cloudtrail import FOLDER, Event, logged
from provisioner.evidence.messages import Problem, problem

DIGESTS, LOGS = f"{FOLDER}digests/", f"{FOLDER}logs/"
MOST_BYTES = 64 << 20
"""Of one file, inflated. A log file of CloudTrail has some megabytes at most."""

MOST_IN_ALL = 256 << 20
"""Of all of them together: a bundle from a stranger may hold two thousand small files that become large."""

SECOND_MS = 1000


@dataclass(frozen=True)
class Digest:
    name: str
    region: str
    begins: int
    ends: int
    sha256: str
    size: int
    bucket: str
    key: str
    ends_text: str
    said: Mapping[str, Any]
    signature: str


@dataclass
class Chained:
    """What the digests of a bundle cover. `gap` is the first time that no digest covers, as two texts."""

    there: bool = False
    gap: tuple[str, str] | None = None
    events: list[Event] = field(default_factory=list)  # out of log files whose hash a digest gives
    wrong: list[Problem] = field(default_factory=list)
    digests: list[Digest] = field(default_factory=list)
    read: set[str] = field(default_factory=set)  # log files
    inflated: int = 0

    @property
    def complete(self) -> bool:
        return self.there and self.gap is None and not self.wrong


def chained(aws: Mapping[str, bytes], regions: Sequence[str], begins: int, ends: int) -> Chained:
    """The digests in a bundle, linked, and the records that they vouch for, over that time in those regions."""
    found = Chained()
    for name in sorted(aws):
        if name.startswith(DIGESTS) and name.endswith(".json.gz"):
            try:
                found.digests.append(_digest(name, aws))
                found.inflated += found.digests[-1].size
            except (Malformed, KeyError, TypeError, ValueError) as e:
                found.wrong.append(problem("E601", name=name, why=f"it cannot be read: {e}"))
            if found.inflated > MOST_IN_ALL:
                return _too_much(found)
    found.there = bool(found.digests)
    for region in regions:
        of = sorted((d for d in found.digests if d.region == region), key=lambda d: d.begins)
        gap = _gap(of, begins, ends)
        found.gap = found.gap or gap
    for digest in found.digests:
        _read_logs(digest, aws, found)
        if found.inflated > MOST_IN_ALL:
            return _too_much(found)
    return found


def _too_much(found: Chained) -> Chained:
    found.wrong, found.events = [problem("E002", path=FOLDER, limit=f"{MOST_IN_ALL >> 20} MiB inflated")], []
    return found


def signed(found: Chained, keys: Sequence[bytes]) -> list[Problem]:
    """The digests that no one of these keys (PKCS#1 or SubjectPublicKeyInfo, DER) has signed."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    loaded = [key for key in map(load_der_public_key, keys) if isinstance(key, rsa.RSAPublicKey)]

    def fits(digest: Digest) -> bool:
        before = digest.said.get("previousDigestSignature") or "null"
        text = "\n".join((digest.ends_text, f"{digest.bucket}/{digest.key}", digest.sha256, str(before))).encode()
        for key in loaded:
            try:
                key.verify(bytes.fromhex(digest.signature), text, padding.PKCS1v15(), hashes.SHA256())
                return True
            except (InvalidSignature, ValueError):
                continue
        return False

    return [problem("E601", name=d.name, why="AWS's signature does not match") for d in found.digests if not fits(d)]


def keys_of(text: bytes) -> list[bytes]:
    """The keys in what `aws cloudtrail list-public-keys` printed. ValueError when it is something else."""
    import base64

    try:
        said = json.loads(text)
        return [base64.b64decode(one["Value"], validate=True) for one in said["PublicKeyList"]]
    except (KeyError, TypeError, ValueError, RecursionError) as e:
        raise ValueError(f"it is not what `aws cloudtrail list-public-keys` prints: {e}") from None


def inflated(data: bytes) -> bytes:
    """A gzip file's content, bounded while it is made, or `Malformed`."""
    try:
        inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
        made = inflater.decompress(data, MOST_BYTES + 1)
    except zlib.error as e:
        raise Malformed(f"not gzip: {e}") from None
    if len(made) > MOST_BYTES or not inflater.eof or inflater.unused_data:
        raise Malformed(f"more than {MOST_BYTES} bytes inflated, cut off, or something behind it")
    return made


def _digest(name: str, aws: Mapping[str, bytes]) -> Digest:
    text = inflated(aws[name])
    said: Any = parse(text)
    beside: Any = parse(aws[name.removesuffix(".json.gz") + ".sig.json"])
    begins, ends = milliseconds(said["digestStartTime"]), milliseconds(said["digestEndTime"])
    if not all(isinstance(text, str) for text in (said["digestS3Object"], said["digestS3Bucket"], beside["signature"])):
        raise Malformed("its place or its signature is no text")
    region = said["digestS3Object"].split("/CloudTrail-Digest/")[-1].split("/")[0]
    if begins is None or ends is None or ends < begins or not isinstance(said["logFiles"], list):
        raise Malformed("it says no time from which and until which it covers, or no log files")
    if (beside["bucket"], beside["key"]) != (said["digestS3Bucket"], said["digestS3Object"]):
        raise Malformed("it was kept under another name than it says")
    digest = hashlib.sha256(text).hexdigest()
    return Digest(
        name, region, begins, ends, digest, len(text), beside["bucket"], beside["key"], said["digestEndTime"], said, beside["signature"]
    )


def _gap(digests: Sequence[Digest], begins: int, ends: int) -> tuple[str, str] | None:
    """The first stretch of that time that these linked digests do not cover."""
    from provisioner.evidence.canonical import rfc3339

    covered = begins
    before: Digest | None = None
    for digest in digests:
        if digest.ends < begins:
            continue
        linked = before is None or (
            digest.said.get("previousDigestHashValue") == before.sha256 and digest.said.get("previousDigestSignature") == before.signature
        )
        if digest.begins > covered + SECOND_MS or not linked:
            break
        covered, before = max(covered, digest.ends), digest
    return None if before is not None and covered >= ends else (rfc3339(covered), rfc3339(max(covered, ends)))


def _read_logs(digest: Digest, aws: Mapping[str, bytes], found: Chained) -> None:
    for named in digest.said["logFiles"]:
        try:
            key, want = str(named["s3Object"]), named["hashValue"]
        except (KeyError, TypeError):
            found.wrong.append(problem("E601", name=digest.name, why="it names a log file without its place or hash"))
            continue
        name = LOGS + key.rsplit("/", 1)[-1]
        if name in found.read or found.inflated > MOST_IN_ALL:
            continue
        found.read.add(name)
        if name not in aws:
            found.gap = found.gap or (digest.said["digestStartTime"], digest.ends_text)
            continue
        try:
            text = inflated(aws[name])
            found.inflated += len(text)
            if hashlib.sha256(text).hexdigest() != want:
                found.wrong.append(problem("E602", name=name))
            else:
                found.events += logged(text)
        except Malformed as e:
            found.wrong.append(problem("E602", name=f"{name} ({e})"))
