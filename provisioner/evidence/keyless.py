"""Signatures through sigstore: an identity that somebody confirmed signed the statement, and a public log says that it did.

`statement.sigstore.json` is a sigstore bundle of version 0.3 over the bytes of `statement.dsse.json`, so the program `sigstore`
checks it as well; one over the statement inside the envelope, as tools for attestations make them, is read too. No key is kept:
an authority writes the identity into a certificate that lives for ten minutes, and the log's own date shows that it lived then.

Whether the certificate in a bundle signed these bytes is asked here, with nothing but `cryptography`. Everything else (the way
to the authority, the log, the dates, whose it is) is the package `sigstore`'s to check, an extra of its own; it is imported when
somebody asks for it. Verifying uses no network. Signing needs it, and writes an identity where nobody can take it out again.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from provisioner import extras
from provisioner.clean import clean
from provisioner.errors import RefusedError
from provisioner.evidence.canonical import parse, rfc3339
from provisioner.evidence.sign import ENVELOPE_LIMIT, PAYLOAD_TYPE, pae, unbase64
from provisioner.secret import Secret

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

FILE = "statement.sigstore.json"
LIMIT = 2 * ENVELOPE_LIMIT
"""A bundle may hold the whole statement once more; one over the file's digest is some 10 KiB."""
TOKEN_LIMIT = 64 << 10
TIMEOUT_S = 120.0
"""For the authority, the log and the update of the roots together: the library's own requests wait for ever."""
ISSUER_OID = "1.3.6.1.4.1.57264.1.1"
PUBLIC_GOOD = "https://tuf-repo-cdn.sigstore.dev"
T = TypeVar("T")


class Missing(Exception):
    """The package that checks sigstore's signatures is not installed here, or is of another shape than the one that we know."""


class Foreign(Exception):
    """It is no bundle, or one of something else: it does not belong to this statement."""


class Unvouched(Exception):
    """A signature of this statement, and not one that counts as the identity's that was asked for."""


@dataclass(frozen=True)
class Asked:
    """Whose signature it has to be, exactly, and who has to have confirmed that. `root`: sigstore's TrustedRoot; None: the public one."""

    identity: str
    issuer: str
    root: Any = None

    def __post_init__(self) -> None:
        if not self.identity or not self.issuer:  # the library checks no issuer at all where it is given an empty one
            raise ValueError("an identity and its issuer are both needed")


@dataclass(frozen=True)
class Signed:
    """Whose it is, and between which two times it was made, in milliseconds since 1970: those of the certificate."""

    identity: str
    issuer: str
    since: int
    until: int

    @property
    def sentence(self) -> str:
        when = f"between {rfc3339(self.since)} and {rfc3339(self.until)}"
        return (
            f"Signed through sigstore as {_line(self.identity)}, which {_line(self.issuer)} confirms, {when}, and entered in a public log."
        )


def about(raw: bytes, statement: bytes, payload: bytes) -> Certificate:
    """The certificate in that bundle, when it signed these bytes (the envelope, or the statement in it); whosever it is. Else `Foreign`."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509 import InvalidVersion, load_der_x509_certificate

    try:
        bundle: Any = parse(raw)
        certificate = load_der_x509_certificate(unbase64(bundle["verificationMaterial"]["certificate"]["rawBytes"]))
        key = certificate.public_key()
        if _of_the_file(bundle):
            signature, signed = unbase64(bundle["messageSignature"]["signature"]), statement
        else:
            envelope = bundle["dsseEnvelope"]
            (only,) = envelope["signatures"]
            signature, signed = unbase64(only["sig"]), pae(unbase64(envelope["payload"]))
            if envelope["payloadType"] != PAYLOAD_TYPE or signed != pae(payload):
                raise Foreign("it is of another statement")
    except (LookupError, TypeError, AttributeError, ValueError, UnsupportedAlgorithm, InvalidVersion) as e:
        raise Foreign(f"it is no sigstore bundle of version 0.3: {clean(f'{type(e).__name__} {e}', limit=120)}") from None
    if isinstance(key, EllipticCurvePublicKey):  # sigstore checks no others, and says so
        try:
            key.verify(signature, signed, ECDSA(SHA256()))
        except InvalidSignature:
            raise Foreign("the certificate in it did not sign these bytes") from None
    return certificate


def checked(raw: bytes, statement: bytes, payload: bytes, asked: Asked) -> Signed:
    """That it is the signature that was asked for, offline. Raises `Missing`, `Foreign` and `Unvouched`."""
    certificate = about(raw, statement, payload)
    library = _library()
    root = public_root() if asked.root is None else asked.root
    try:
        bundle = library.models.Bundle.from_json(raw)
        verifier = library.verify.Verifier(trusted_root=root)
        policy = library.verify.policy.Identity(identity=asked.identity, issuer=asked.issuer)
        if _of_the_file(parse(raw)):
            verifier.verify_artifact(statement, bundle, policy)
        elif verifier.verify_dsse(bundle, policy) != (PAYLOAD_TYPE, payload):
            raise Unvouched("it is of another statement")
    except Unvouched:
        raise
    except Exception as e:  # whatever a stranger's bytes make the library fall over, it did not accept them
        raise Unvouched(clean(f"{type(e).__name__}: {e}", limit=300)) from None
    return Signed(asked.identity, asked.issuer, _ms(certificate.not_valid_before_utc), _ms(certificate.not_valid_after_utc))


def public_root() -> Any:
    """The roots of the public service that came with the package: not those that something put into a cache."""
    library = _library()
    path = Path(library.__file__).parent / "_store" / quote(PUBLIC_GOOD, safe="") / "trusted_root.json"
    if not path.is_file():
        raise Missing(f"the package sigstore {library.__version__} holds no roots where they were looked for; --sigstore-trust-root FILE")
    return library.models.TrustedRoot.from_file(str(path))


def trusted_root(path: Path) -> Any:
    """The roots in a file of the reader's: sigstore's TrustedRoot or ClientTrustConfig, as JSON. ValueError or OSError when it has none."""
    library = _library()
    raw = path.read_bytes()
    try:
        if "clienttrustconfig" in str(json.loads(raw).get("mediaType")):
            return library.models.ClientTrustConfig.from_json(raw.decode()).trusted_root
        return library.models.TrustedRoot.from_file(str(path))
    except (library.errors.Error, AttributeError) as e:
        raise ValueError(f"no sigstore trust root: {e}") from None


@dataclass(frozen=True)
class Signing:
    """What signing takes. `token` and `config` are files; without them the machine's own identity, and the public service."""

    token: Path | None
    config: Path | None
    tell: Callable[[str], None]
    ask: Callable[[str], bool] | None

    def sign(self, statement: bytes, payload: bytes) -> tuple[bytes, Signed]:
        """The bundle over the statement's file, checked, and whose it is. `RefusedError` where there is none."""
        try:
            _library()
        except Missing as e:
            raise RefusedError("nothing was signed through sigstore", why=str(e), next=extras.install("sigstore")) from None
        token = _read(self.token) if self.token is not None else _ambient()
        identity, issuer = _claimed(token)
        self.tell(
            f"sigstore  {_line(identity)}, as {_line(issuer)} says, the time and this statement's SHA-256 go into a public log, with\n"
            "          what the issuer says of that identity (of a job in CI: repository, workflow, commit, run). Nobody can take it out."
        )
        if self.ask is not None and not self.ask("Publish that, and sign? [y/N] "):
            raise RefusedError(
                "nothing was signed", why="the question was not answered with yes", next="gpulease export   without --sigstore"
            )
        raw, root = _within(lambda: _made(statement, token, self.config), token)
        try:
            certificate = about(raw, statement, payload)
            return raw, checked(raw, statement, payload, Asked(*_named(certificate), root))
        except (Foreign, Unvouched, ValueError) as e:
            raise _refused(f"what it answered does not verify: {e}") from None


def _made(statement: bytes, token: Secret, config: Path | None) -> tuple[bytes, Any]:
    """The bundle, and the roots that it was made under."""
    from sigstore.models import ClientTrustConfig
    from sigstore.oidc import IdentityToken
    from sigstore.sign import SigningContext

    trust = ClientTrustConfig.production() if config is None else ClientTrustConfig.from_json(config.read_text())
    with SigningContext.from_trust_config(trust).signer(IdentityToken(token.reveal())) as signer:
        return signer.sign_artifact(statement).to_json().encode(), trust.trusted_root


def _within(work: Callable[[], T], token: Secret | None = None) -> T:
    """What that returns, with an end to waiting; whatever it raises is a refusal in which the token does not stand."""
    done: list[T] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            done.append(work())
        except Exception as e:  # the thread ends here; the library raises what its clients and parsers met
            failed.append(e)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    if done:
        return done[0]
    why = ", by ".join(f"{type(e).__name__}: {e}" for e in _causes(failed)) or f"no answer in {TIMEOUT_S:.0f} s; it may be in the log"
    raise _refused(why if token is None else token.hidden(why))


def _causes(failed: list[Exception]) -> list[BaseException]:
    """What failed, and what made it fail: the library says little more than that it did."""
    first = failed[:1]
    return [*first, *(e.__cause__ for e in first if e.__cause__ is not None)]


def _refused(why: str) -> RefusedError:
    return RefusedError("sigstore did not sign", why=clean(why, limit=300), next="gpulease export   without --sigstore, or once more")


def _read(path: Path) -> Secret:
    try:
        with path.open("rb") as file:
            token = Secret(file.read(TOKEN_LIMIT).strip())
    except OSError as e:
        raise RefusedError(f"{path} cannot be read", why=e.strerror or str(e), next="--sigstore-token FILE, or /dev/fd/3") from None
    return token


def _ambient() -> Secret:
    """The token that a job in CI, or a machine in a cloud, is given for the asking."""
    from sigstore.oidc import detect_credential

    found = _within(detect_credential)
    if found is None:
        raise RefusedError(
            "there is no identity to sign with",
            why="this is no job in a CI that gives one (GitHub Actions does with `permissions: id-token: write`)",
            next="--sigstore-token FILE, with an OpenID token for the audience sigstore in it",
        )
    return Secret(found)


def _claimed(token: Secret) -> tuple[str, str]:
    """Whose the token says that it is, and who says so. Nobody checks that here: the authority does."""
    from sigstore.errors import Error
    from sigstore.oidc import IdentityToken

    try:
        read = IdentityToken(token.reveal())
    except (Error, ValueError) as e:
        raise RefusedError(
            "that is no token to sign with", why=clean(token.hidden(str(e)), limit=200), next="--sigstore-token FILE"
        ) from None
    return read.identity, read.issuer


def _named(certificate: Certificate) -> tuple[str, str]:
    """The one identity in a certificate, and who confirmed it."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (identity,) = (str(name.value) for name in names)
        issuer = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(ISSUER_OID)).value
        return identity, bytes(issuer.value).decode()  # type: ignore[attr-defined]
    except (x509.ExtensionNotFound, x509.DuplicateExtension) as e:
        raise ValueError(str(e)) from None


def _of_the_file(bundle: Any) -> bool:
    """Whether it signs the file itself, rather than the statement in it. One of the two, and not both: else ValueError."""
    kind = bundle.keys() - {"mediaType", "verificationMaterial"}
    if kind not in ({"messageSignature"}, {"dsseEnvelope"}):
        raise ValueError("it holds not just one signature")
    return bool(kind == {"messageSignature"})


def _ms(at: datetime) -> int:
    return int((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1000


def _line(text: str) -> str:
    return " ".join(clean(text, limit=300).split())


def _library() -> Any:
    try:
        import sigstore
        import sigstore.errors
        import sigstore.models
        import sigstore.verify
        import sigstore.verify.policy
    except ImportError:
        raise Missing(f"the package sigstore is not installed: {extras.install('sigstore')}") from None
    return sigstore
