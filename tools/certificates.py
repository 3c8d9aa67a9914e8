"""Fills provisioner/evidence/certificates.json from AWS's page of certificates, saved to a file. Nothing is downloaded.

    python tools/certificates.py PAGE [YYYY-MM-DD]    PAGE is regions-certs.md or .html, as the browser saved it

The page has a section per region ("… — us-east-1") with three certificates; the one after "RSA-2048" is taken. Each must be
signed by itself, be Amazon's by name and have a key of 2048 bits: a copy with a wrong letter fails. Regions that the page
does not have stay as they are; what changed is printed, and is for a person to read before it is committed.
"""

from __future__ import annotations

import html
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

SOURCE = "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/regions-certs.html"
TABLE = Path(__file__).resolve().parents[1] / "provisioner" / "evidence" / "certificates.json"
REGION = re.compile(r"\b([a-z]{2}(?:-gov)?-(?:north|south|east|west|central|northeast|northwest|southeast|southwest)-\d)\b")
PEM = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")


def certificates(page: str) -> dict[str, str]:
    """The RSA-2048 certificate of each region on the page, as PEM."""
    text = html.unescape(re.sub(r"<[^>]+>", "\n", page))
    found: dict[str, str] = {}
    region = kind = ""
    for piece in re.split(r"(-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----)", text, flags=re.DOTALL):
        if (pem := PEM.fullmatch(piece)) is None:
            region = (REGION.findall(piece) or [region])[-1]
            kind = (re.findall(r"\b(DSA|RSA-2048|RSA)\b", piece) or [kind])[-1]
        elif kind == "RSA-2048" and region:
            found[region] = checked(region, "".join(pem[1].split()))
    return found


def checked(region: str, base64: str) -> str:
    """As PEM with lines of 64, or an error that names the region."""
    lines = [base64[n : n + 64] for n in range(0, len(base64), 64)]
    pem = "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])
    try:
        one = x509.load_pem_x509_certificate(pem.encode())
        one.verify_directly_issued_by(one)
    except Exception as e:
        raise SystemExit(f"{region}: not a whole certificate that signed itself: {e!r}") from e
    size: Any = getattr(one.public_key(), "key_size", 0)
    if size != 2048 or "Amazon Web Services LLC" not in one.subject.rfc4514_string():
        raise SystemExit(f"{region}: {one.subject.rfc4514_string()}, {size} bits")
    return pem


def main(argv: list[str]) -> int:
    if not argv:
        print(__doc__)
        return 2
    table = json.loads(TABLE.read_text("utf-8"))
    for region, pem in sorted(certificates(Path(argv[0]).read_text("utf-8")).items()):
        kept = table["regions"].setdefault(region, [])
        if pem not in kept:
            kept.append(pem)  # the old one stays: documents that it signed are not younger than it
            one = x509.load_pem_x509_certificate(pem.encode())
            print(f"{region}: new, until {one.not_valid_after_utc:%Y-%m-%d}, sha256 {one.fingerprint(hashes.SHA256()).hex()}")
    table["regions"] = dict(sorted(table["regions"].items()))
    table["asOf"] = argv[1] if len(argv) > 1 else f"{datetime.now(UTC):%Y-%m-%d}"
    table["source"] = SOURCE
    TABLE.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
