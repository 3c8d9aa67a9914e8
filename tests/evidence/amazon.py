"""Signs what AWS would sign: with the rehearsal's key, or with a forger's who knows the certificate and not its key."""

from __future__ import annotations

import base64
import functools
import json
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from provisioner.rehearsal import worthless
from tests.evidence.tape import INST, REGION

PINNED = worthless.CERTIFICATE.encode()
"""Stands for AWS's certificate in these tests."""


def document(**changed: Any) -> bytes:
    said = {
        "accountId": "123456789012",
        "architecture": "x86_64",
        "availabilityZone": "us-east-1a",
        "billingProducts": None,
        "imageId": "ami-0123456789abcdef0",
        "instanceId": INST,
        "instanceType": "g6.xlarge",
        "pendingTime": "2026-11-18T12:06:40Z",
        "privateIp": "10.0.0.7",
        "region": REGION,
        "version": "2017-09-30",
    }
    return json.dumps(said | changed, indent=2).encode()


def signed(**changed: Any) -> bytes:
    return worthless.pkcs7(document(**changed)).encode()


@functools.cache
def forger(disguised: bool) -> tuple[Any, x509.Certificate]:
    """A key of the forger's and a certificate for it, under a serial number of its own or under the real one's."""
    real = x509.load_pem_x509_certificate(PINNED)
    key = rsa.generate_private_key(65537, 2048)
    made = x509.CertificateBuilder().subject_name(real.subject).issuer_name(real.issuer).public_key(key.public_key())
    made = made.serial_number(real.serial_number if disguised else 1).not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
    return key, made.not_valid_after(datetime(2100, 1, 1, tzinfo=UTC)).sign(key, hashes.SHA256())


def forged(*, disguised: bool = False, **changed: Any) -> bytes:
    """The same message signed with the forger's key, whose certificate travels inside it."""
    key, certificate = forger(disguised)
    builder = pkcs7.PKCS7SignatureBuilder().set_data(document(**changed)).add_signer(certificate, key, hashes.SHA256())
    return base64.b64encode(builder.sign(Encoding.DER, [pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoCapabilities]))
