"""RFC 3161 timestamps: somebody else's word that the signed statement existed by a certain time, and nothing more.

`statement.tsr` is the answer of a time-stamping authority about the SHA-256 of `statement.dsse.json`, so `openssl ts -verify`
checks it as well. It dates testimony and does not make it true. The certificates inside the answer are only used to build a
way to a root that the reader brought: anybody can be an authority of one's own.

The package `rfc3161-client` (extra `sign`) reads and checks answers. Where it is missing, a timestamp is not judged, and
that is said. Asking an authority needs the network; nothing here asks unless it was told whom.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from provisioner import extras
from provisioner.clean import clean
from provisioner.errors import RefusedError
from provisioner.evidence.canonical import rfc3339

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

FILE = "statement.tsr"
LIMIT = 64 << 10
TIMEOUT_S = 30.0
SHA256_OID = "2.16.840.1.101.3.4.2.1"


class Missing(Exception):
    """The package that reads timestamps is not installed here."""


class Foreign(Exception):
    """It is no timestamp, or one of something else: it does not belong to this statement."""


class Unvouched(Exception):
    """A timestamp of this statement, and not by an authority whose certificate the reader brought."""


@dataclass(frozen=True)
class Stamp:
    """`at` is the latest moment by which the statement existed, in milliseconds since 1970; `by` is the authority's own name for itself."""

    at: int
    by: str

    @property
    def sentence(self) -> str:
        return f"The signed statement existed by {rfc3339(self.at)}, says the time-stamping authority {self.by} (RFC 3161)."


def request(statement: bytes) -> tuple[bytes, int]:
    """What an authority is asked about these bytes, DER, and the number that its answer has to repeat."""
    library = _library()
    made = library.TimestampRequestBuilder(statement, library.HashAlgorithm.SHA256, True, True).build()
    return made.as_bytes(), int(made.nonce)


def fetched(url: str, statement: bytes) -> bytes:
    """The authority's answer about these bytes, or `RefusedError`. It was compared with what was asked; whose it is was not."""
    from urllib.request import Request, urlopen

    if urlsplit(url).scheme not in ("http", "https"):
        raise RefusedError(f"{clean(url, limit=80)!r} is no address of a time-stamping authority", next="--timestamp https://…")
    try:
        asked, nonce = request(statement)
    except Missing as e:
        raise RefusedError("no timestamp can be asked for", why=str(e), next=extras.install("sign")) from None
    query = Request(url, data=asked, headers={"Content-Type": "application/timestamp-query"})
    try:
        with urlopen(query, timeout=TIMEOUT_S) as answer:
            token = bytes(answer.read(LIMIT + 1))
        if len(token) > LIMIT:
            raise Foreign(f"the answer has more than {LIMIT} bytes")
        if int(_about(_parsed(token), statement).nonce or 0) != nonce:
            raise Foreign("it answers another request")
    except (OSError, ValueError, Foreign) as e:
        raise RefusedError(f"{clean(url, limit=80)} gave no timestamp", why=clean(str(e), limit=200), next="gpulease export") from None
    return token


def checked(token: bytes, statement: bytes, certificates: Sequence[bytes]) -> Stamp:
    """What that answer says of these bytes, by an authority under one of these certificates (PEM, any number in each).

    Raises `Missing`, `Foreign` and `Unvouched`. The certificates have to lead to a root that signs itself; they need only
    have been valid at the time that the answer names.
    """
    answer = _parsed(token)
    info = _about(answer, statement)
    trusted = [certificate for pem in certificates for certificate in pems(pem)]
    roots = [one for one in trusted if one.issuer == one.subject]
    if not roots:
        raise Unvouched("none of the certificates given signs itself: the authority's root is needed")
    library = _library()
    verifier = library.VerifierBuilder(roots=roots, intermediates=[one for one in trusted if one not in roots]).build()
    try:
        verifier.verify_message(answer, statement)
    except (library.VerificationError, ValueError) as e:
        raise Unvouched(clean(str(e), limit=200)) from None
    return Stamp(_latest(info), clean(_name(info), limit=120))


def about(token: bytes, statement: bytes) -> None:
    """`Foreign` unless it is an answer about these bytes, by whomever; `Missing` where nobody can tell."""
    _about(_parsed(token), statement)


def pems(raw: bytes) -> list[Certificate]:
    """The certificates in a PEM file; ValueError when there is none."""
    from cryptography import x509

    return x509.load_pem_x509_certificates(raw)


def _library() -> Any:
    try:
        import rfc3161_client
    except ImportError:
        raise Missing(f"the package rfc3161-client is not installed: {extras.install('sign')}") from None
    return rfc3161_client


def _parsed(token: bytes) -> Any:
    library = _library()
    try:
        answer = library.decode_timestamp_response(token)
        if answer.status != library.PKIStatus.GRANTED:
            raise Foreign(f"the authority refused: {', '.join(answer.status_string) or f'status {answer.status}'}")
        return answer
    except ValueError as e:
        raise Foreign(f"it is no answer of an authority: {e}") from None


def _about(answer: Any, statement: bytes) -> Any:
    try:
        info = answer.tst_info
        imprint = info.message_imprint
        same = imprint.hash_algorithm.dotted_string == SHA256_OID and imprint.message == hashlib.sha256(statement).digest()
    except ValueError as e:
        raise Foreign(f"it is no answer of an authority: {e}") from None
    if not same:
        raise Foreign("it is of other bytes")
    return info


def _latest(info: Any) -> int:
    """The time in it and as much later as it may be off, rounded up to a millisecond."""
    accuracy = info.accuracy
    parts = (0, 0, 0) if accuracy is None else (accuracy.seconds or 0, accuracy.millis or 0, accuracy.micros or 0)
    off = timedelta(seconds=parts[0], milliseconds=parts[1], microseconds=parts[2])
    since: timedelta = info.gen_time + off - datetime(1970, 1, 1, tzinfo=UTC)
    return -(-since // timedelta(milliseconds=1))


def _name(info: Any) -> str:
    name = info.name
    return "without a name" if name is None else str(getattr(name.value, "rfc4514_string", lambda: name.value)())
