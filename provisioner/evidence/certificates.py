"""The certificates under which AWS signs identity documents, one region at a time, and the one of the rehearsal.

`certificates.json` is a dated copy of what AWS publishes. What ships today came by way of a public repository's copy and was not
yet compared with AWS's own page, which `tools/certificates.py` does; `source` in it says which of the two it is. A region
that is not in it is "not identified here", never "not signed": AWS adds regions and changes certificates.
A test fails when the table has not been looked at for half a year, or one of its certificates has less than a year left.

The rehearsal's certificate is for SIMULATED statements only and its key is public, so it can lift no other proof.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

SOURCE = "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/regions-certs.html"


@dataclass(frozen=True)
class Table:
    """PEM certificates by region, and when somebody last compared them with AWS's page."""

    as_of: str
    regions: dict[str, tuple[bytes, ...]]
    simulated: bytes

    def of(self, region: str, *, simulated: bool) -> tuple[bytes, ...]:
        """Those that may have signed a document of that region; none where the table has none."""
        return (self.simulated,) if simulated else self.regions.get(region, ())


@cache
def table() -> Table:
    """The one that ships."""
    data: dict[str, Any] = json.loads((files("provisioner.evidence") / "certificates.json").read_text(encoding="utf-8"))
    return Table(
        data["asOf"],
        {region: tuple(pem.encode() for pem in pems) for region, pems in data["regions"].items()},
        data["simulated"].encode(),
    )


def simulated_key() -> bytes:
    """The rehearsal's public key (DER), which signs its digests too: for simulated statements only."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = x509.load_pem_x509_certificate(table().simulated).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
