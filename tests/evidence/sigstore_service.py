"""A sigstore service of a test's own: an authority for certificates, its log of them, and a log of signatures, over HTTP on loopback.

The library's own client asks it for a certificate and enters what it signed, and the library's own verifier judges the result
under `trusted_root`; nothing of either is replaced. It is small where the real ones are large: it believes every token, its logs
forget, and what it was told to do wrong (`late_s`, `log_key`) it does.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import struct
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

ISSUER = "https://issuer.example.org"
ALICE, JOB = "alice@example.org", "https://ci.example.org/team/evals/.ci/run.yml@refs/heads/main"
SCTS, CONFIRMED_BY = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2"), ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
NO_USE = dict.fromkeys(
    ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign", "encipher_only", "decipher_only"), False
)


def token(identity: str = ALICE, issuer: str = ISSUER, lasts_s: int = 600) -> str:
    """As an identity provider gives it, but for its signature, which the authority here does not look at."""
    now = int(time.time())
    claims = {"iss": issuer, "sub": identity, "aud": "sigstore", "iat": now - 5, "exp": now + lasts_s}
    return jwt.encode(claims, "a key that nobody checks, 32 bytes", algorithm="HS256")


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(SHA256()))


class Service:
    """Keys made anew for each. `late_s`: how long after the certificate's end the log says that it was entered."""

    def __init__(self, late_s: int = 0, log_key: ec.EllipticCurvePrivateKey | None = None) -> None:
        self.root_key, self.ca_key, self.ct_key, self.log_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(4))
        self.signs_log = log_key or self.log_key
        self.late_s, self.url = late_s, ""
        self.asked: list[str] = []
        self.leaves = [b"somebody else's", b"and another's", b"and a third one's"]
        self.root = self._authority("root of a test", self.root_key, None)
        self.ca = self._authority("authority of a test", self.ca_key, self.root)

    def _authority(self, name: str, key: ec.EllipticCurvePrivateKey, above: x509.Certificate | None) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(digital_signature=False, key_cert_sign=True, **NO_USE)
        made = self._begun(key.public_key(), subject, above or subject, timedelta(days=-1), timedelta(days=3000))
        made = made.add_extension(x509.BasicConstraints(True, None), True).add_extension(usage, True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        if above is not None:
            made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.root_key.public_key()), False)
        return made.sign(self.root_key, SHA256())

    def _begun(self, key: Any, subject: x509.Name, above: Any, since: timedelta, until: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC).replace(microsecond=0)
        issuer = above if isinstance(above, x509.Name) else above.subject
        made = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
        return made.not_valid_before(now + since).not_valid_after(now + until)

    def certificate(self, key: Any, identity: str, issuer: str) -> x509.Certificate:
        """Ten minutes of an identity, with the signed promise of the certificates' log inside."""
        made = self._begun(key, x509.Name([]), self.ca, timedelta(0), timedelta(minutes=10))
        name = x509.RFC822Name(identity) if "://" not in identity else x509.UniformResourceIdentifier(identity)
        made = made.add_extension(x509.SubjectAlternativeName([name]), True)
        made = made.add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=False, **NO_USE), True)
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
        made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca_key.public_key()), False)
        made = made.add_extension(x509.UnrecognizedExtension(CONFIRMED_BY, issuer.encode()), False)
        at = int(time.time() * 1000)
        # The promise is about the certificate without the promise, so one is made first to see what that will be.
        before = made.add_extension(self._promise(at, b""), False).sign(self.ca_key, SHA256()).tbs_precertificate_bytes
        entry = hashlib.sha256(spki(self.ca_key)).digest() + len(before).to_bytes(3, "big") + before
        signed = signature(self.ct_key, struct.pack("!BBQH", 0, 0, at, 1) + entry + b"\0\0")
        return made.add_extension(self._promise(at, signed), False).sign(self.ca_key, SHA256())

    def _promise(self, at: int, signed: bytes) -> x509.UnrecognizedExtension:
        one = struct.pack("!B32sQHBBH", 0, hashlib.sha256(spki(self.ct_key)).digest(), at, 0, 4, 3, len(signed)) + signed
        packed = struct.pack("!HH", len(one) + 2, len(one)) + one
        return x509.UnrecognizedExtension(
            SCTS, b"\x04" + (bytes([len(packed)]) if len(packed) < 128 else bytes([0x81, len(packed)])) + packed
        )

    def entered(self, proposed: dict[str, Any]) -> dict[str, Any]:
        """An entry of the log of signatures, as version 1 of its interface answers."""
        body = rfc8785.dumps(_kept(proposed))
        leaves = [*self.leaves, body, b"and one after it"]
        index, (head, path) = len(self.leaves), _proof(leaves, len(self.leaves))
        key_id, name = hashlib.sha256(spki(self.log_key)).digest(), "log.example.org"
        note = f"{name}\n{len(leaves)}\n{text(head)}\n"
        checkpoint = f"{note}\n\u2014 {name} {text(key_id[:4] + signature(self.signs_log, note.encode()))}\n"
        at = int(time.time()) + (600 + self.late_s if self.late_s else 0)
        promised = {"body": text(body), "integratedTime": at, "logID": key_id.hex(), "logIndex": index}
        proof = {"logIndex": index, "rootHash": head.hex(), "treeSize": len(leaves), "hashes": [one.hex() for one in path]}
        verification = {
            "inclusionProof": proof | {"checkpoint": checkpoint},
            "signedEntryTimestamp": text(signature(self.signs_log, rfc8785.dumps(promised))),
        }
        return {"0" * 64: promised | {"verification": verification}}

    def trusted_root(self) -> dict[str, Any]:
        since = {"start": "2020-01-01T00:00:00Z"}

        def log(key: ec.EllipticCurvePrivateKey, url: str) -> dict[str, Any]:
            public = {"rawBytes": text(spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": since}
            known = {"keyId": text(hashlib.sha256(spki(key)).digest())}
            return {"baseUrl": url, "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": known}

        chain = [{"rawBytes": text(one.public_bytes(Encoding.DER))} for one in (self.ca, self.root)]
        called = {"organization": "a test", "commonName": "authority of a test"}
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.log_key, self.url)],
            "certificateAuthorities": [{"subject": called, "uri": self.url, "certChain": {"certificates": chain}, "validFor": since}],
            "ctlogs": [log(self.ct_key, f"{self.url}/ct")],
            "timestampAuthorities": [],
        }

    def config(self) -> dict[str, Any]:
        """Where to sign, and the roots: what sigstore calls a ClientTrustConfig."""
        here = [{"url": self.url, "majorApiVersion": 1, "validFor": {"start": "2020-01-01T00:00:00Z"}, "operator": "a test"}]
        signing = {"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json", "caUrls": here, "rekorTlogUrls": here}
        signing |= {"oidcUrls": [], "tsaUrls": [], "rekorTlogConfig": {"selector": "ANY"}, "tsaConfig": {"selector": "ANY"}}
        media = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
        return {"mediaType": media, "trustedRoot": self.trusted_root(), "signingConfig": signing}

    def answer(self, path: str, headers: Any, body: bytes) -> tuple[int, bytes]:
        self.asked.append(path)
        said = json.loads(body)
        if path == "/api/v2/signingCert":
            claims = jwt.decode(headers["Authorization"].removeprefix("Bearer "), options={"verify_signature": False})
            wanted = x509.load_pem_x509_csr(base64.b64decode(said["certificateSigningRequest"]))
            made = [self.certificate(wanted.public_key(), claims["sub"], claims["iss"]), self.ca, self.root]
            chain = {"certificates": [one.public_bytes(Encoding.PEM).decode() for one in made]}
            return 200, json.dumps({"signedCertificateEmbeddedSct": {"chain": chain}}).encode()
        return 201, json.dumps(self.entered(said)).encode()


def _kept(proposed: dict[str, Any]) -> dict[str, Any]:
    """What a log keeps of what it was sent: of an attestation the digests, and no content."""
    if proposed["kind"] != "dsse":
        return proposed
    content = proposed["spec"]["proposedContent"]
    envelope = json.loads(content["envelope"])
    signatures = [{"signature": one["sig"], "verifier": content["verifiers"][0]} for one in envelope["signatures"]]

    def digest(data: bytes) -> dict[str, str]:
        return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}

    spec = {"envelopeHash": digest(content["envelope"].encode()), "payloadHash": digest(base64.b64decode(envelope["payload"]))}
    return {"apiVersion": "0.0.1", "kind": "dsse", "spec": spec | {"signatures": signatures}}


def _proof(leaves: list[bytes], index: int) -> tuple[bytes, list[bytes]]:
    """The head of the tree over those leaves, and the way from one of them to it (RFC 6962)."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest(), []
    half = 1 << (len(leaves) - 1).bit_length() - 1
    mine, other = (leaves[:half], leaves[half:]) if index < half else (leaves[half:], leaves[:half])
    head, way = _proof(mine, index % half if index < half else index - half)
    beside, _ = _proof(other, 0)
    both = head + beside if index < half else beside + head
    return hashlib.sha256(b"\1" + both).digest(), [*way, beside]


@contextlib.contextmanager
def served(service: Service) -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            code, body = service.answer(self.path, self.headers, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    service.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()


def config_at(path: Path, service: Service) -> Path:
    path.write_text(json.dumps(service.config()))
    return path
