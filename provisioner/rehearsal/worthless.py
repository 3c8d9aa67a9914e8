"""A key that everybody has, with which the rehearsal signs what AWS would sign: identity documents and CloudTrail's digests.

So that the code that checks signatures is rehearsed on signatures. The numbers stand here in the open: whatever this key
signs proves nothing, and its certificate says SIMULATED in its name. A verifier takes it for simulated statements only.
"""

from __future__ import annotations

from functools import cache
from typing import Any

_P = int(
    "bd0f32875a04e20aba68d19f34921ad4a1b6f266b5371d3fbc35f409340823b55f42a24284646c51dd46ebd0c84c6840e3b9"
    "94255c4a02d8dda34388fa6716d57f9cdf6e7885e4f63bb4a28c313dd96ff82679ee932ab657d331ce0bbe2c31e4e922c5f0"
    "912c08ed20678a594d401dc1892981b589bfbc15b624ed8e93835f59",
    16,
)
_Q = int(
    "ba8000ad07f9680bda25f970048fba89ac33940de183992fbf73b09deaa4a489c6e3c3563d3e69e3c59a764cdb4d64e3dc7e"
    "4bfe0eee2ec1818f0d3b77d7b9aaaa0568a0d9265b01f6b48c5ee56fdebb3f07629bbadc5d0159ef700a08435cacd17b30f6"
    "42bfd7ce6f1c50ed8506a70d64aa41dccebebf972f4827dfac188ed3",
    16,
)
CERTIFICATE = """-----BEGIN CERTIFICATE-----
MIIDFjCCAf6gAwIBAgIUA1NqTrbhBQpdn/RHQUmaz3XbEGwwDQYJKoZIhvcNAQEL
BQAwRDESMBAGA1UECgwJU0lNVUxBVEVEMS4wLAYDVQQDDCVTSU1VTEFURUQgZ3B1
bGVhc2UgcmVoZWFyc2FsLCBub3QgQVdTMCAXDTI2MDEwMTAwMDAwMFoYDzIxMjYw
MTAxMDAwMDAwWjBEMRIwEAYDVQQKDAlTSU1VTEFURUQxLjAsBgNVBAMMJVNJTVVM
QVRFRCBncHVsZWFzZSByZWhlYXJzYWwsIG5vdCBBV1MwggEiMA0GCSqGSIb3DQEB
AQUAA4IBDwAwggEKAoIBAQCJu5LPZD1PJWx/87eIlqgEQtFMZzVR+HSYur83JGQA
9V9Swxw3+xMQYBm9icFbPU1htdafKatHpRGfuwhIKXtNH1S271EBIZiwB8r0yi7o
bayz5AOR/wcGxaM/CQ7TCBCLtamU9UcnWgpt6PIbVEy36nd+d8A/GEwkWAEet5wU
4dp0vwkfce9fdSZ8gcHG8H5dfssF1W/O7ufpRLCxSvkUTbP3VghNwDiUlPoeGfZq
bh6hBHRt/WTPBxne1zlQiqLGd9URaanZQpIGuqFeDPR2BqWhD4wVwrIKTZQd9nGC
rgkUz0ESjmg2WkNaow5Ux3iHsrnoy/7bnletmD4wgvRbAgMBAAEwDQYJKoZIhvcN
AQELBQADggEBAFEW0XiiyG5tD+L961vKiddY8h31pU7bDKylW+peLLlaId3NHwlH
6l+McWN2y9ErnB2KUmN96eFUTMeOwtJjHSvrKpZvjTPEj1kV1+mSlPkuVOi0qiUi
Um16M95Uk96sVoGsCifQrhJZM8dN2eCHdcv5Dt3t5vGII7LbqWqkmoSHFaJHMULs
UQlT+fdZ3jmevJI5WZWSpzJWDfmNPRSzHFqiKqhYb/Q+o9TiRUO94z3gVeBiRAdW
nHMOHCLbMLfoYPIiz/D104rN1oCj71Z1fl7jG2A4kGYlmMvqHTKptWulVoVzRwfv
BoB80vJnx8u7aqYROZt7BdZqi23QtunI1NY=
-----END CERTIFICATE-----
"""


@cache
def key() -> Any:
    """The private half, as `cryptography` has it."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    e = 65537
    d = pow(e, -1, (_P - 1) * (_Q - 1))
    public = rsa.RSAPublicNumbers(e, _P * _Q)
    return rsa.RSAPrivateNumbers(_P, _Q, d, d % (_P - 1), d % (_Q - 1), pow(_Q, -1, _P), public).private_key()


def pkcs7(document: bytes) -> str:
    """The document signed as IMDS gives it under `rsa2048`: base64 of a PKCS#7 message without a certificate in it."""
    import base64

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

    builder = pkcs7.PKCS7SignatureBuilder().set_data(document)
    builder = builder.add_signer(x509.load_pem_x509_certificate(CERTIFICATE.encode()), key(), hashes.SHA256())
    options = [pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoCerts, pkcs7.PKCS7Options.NoCapabilities]
    text = base64.b64encode(builder.sign(Encoding.DER, options)).decode()
    return "\n".join(text[n : n + 64] for n in range(0, len(text), 64))


def signature(message: bytes) -> str:
    """RSA over SHA-256, in hex, as CloudTrail signs a digest."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    made: bytes = key().sign(message, padding.PKCS1v15(), hashes.SHA256())
    return made.hex()


def public_key() -> bytes:
    """The public half, in the form in which CloudTrail lists its keys (PKCS#1, DER)."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    made: bytes = key().public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    return made
