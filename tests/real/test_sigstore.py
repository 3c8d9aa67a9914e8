"""sigstore signatures that nobody here had a part in: of the public service, from 2024 and 2026, by jobs of GitHub Actions.

They are of other in-toto statements than ours, and lie as samples in two source archives on the package index, from where they are
fetched; both archives are held to their SHA-256 and none of it is kept in this repository. Judged by what `verify` calls, under
the roots that the package brings, with no network.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from provisioner.evidence import keyless
from provisioner.evidence.canonical import rfc3339
from provisioner.evidence.keyless import Asked, Foreign, Unvouched
from tests.real.conftest import ROOT, cannot

pytestmark = pytest.mark.slow
GITHUB = "https://token.actions.githubusercontent.com"


@dataclass(frozen=True)
class Sample:
    archive: str
    sha256: str
    member: str
    identity: str
    since: str  # of the certificate, as the program `sigstore` shows it

    def __str__(self) -> str:
        return self.archive


SAMPLES = [
    Sample(
        "pypi-attestations==0.0.30",
        "14ff13c76bbef02a483c2b77532da02bfd746b5141b881f355e06b9807434423",
        "test/assets/pypi_attestation_models-0.0.4a2.tar.gz.sigstore",
        "https://github.com/trailofbits/pypi-attestation-models/.github/workflows/release.yml@refs/tags/v0.0.4a2",
        "2024-06-10T19:47:25",
    ),
    Sample(
        "conda-sigstore==0.1.5",
        "0c0bc9cb0a75821f6b26cbb7f7fd6dfd0ced566fbe554fec180da9b589567016",
        "tests/fixtures/prefix-actionlint.v0.sigs",
        "https://github.com/hunger/octoconda/.github/workflows/octoconda.yaml@refs/heads/main",
        "2026-03-31T02:58:31",
    ),
]


@pytest.fixture(scope="module", params=SAMPLES, ids=str)
def sample(request: pytest.FixtureRequest) -> tuple[Sample, bytes, bytes]:
    """One, its bundle, and the statement inside."""
    one: Sample = request.param
    name, _, version = one.archive.partition("==")
    folder = Path(os.environ.get("GPULEASE_REAL") or ROOT / ".cache/real") / "attestations"
    path = folder / f"{name.replace('-', '_')}-{version}.tar.gz"
    if not path.is_file():
        command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-input", "--no-deps"]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as part:  # several workers may fetch it at once
            done = subprocess.run([*command, "--no-binary", name, "-d", part, one.archive], capture_output=True, text=True, timeout=600)
            if done.returncode:
                cannot(f"the source of {one.archive} could not be fetched: {done.stderr.strip()[-600:]}")
            (Path(part) / path.name).replace(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == one.sha256
    with tarfile.open(path) as archive:
        file = archive.extractfile(f"{path.name.removesuffix('.tar.gz')}/{one.member}")
        assert file is not None
        read = json.load(file)
    bundle = read[0] if isinstance(read, list) else read
    return one, json.dumps(bundle).encode(), base64.b64decode(bundle["dsseEnvelope"]["payload"])


def test_a_signature_of_the_public_service_counts_as_the_identitys_that_made_it(sample: tuple[Sample, bytes, bytes]) -> None:
    one, raw, payload = sample
    signed = keyless.checked(raw, b"", payload, Asked(one.identity, GITHUB))
    assert rfc3339(signed.since).startswith(one.since) and signed.until - signed.since == 600_000


def test_it_counts_for_no_other_identity_issuer_or_statement(sample: tuple[Sample, bytes, bytes]) -> None:
    one, raw, payload = sample
    for asked in (Asked(one.identity[:-1], GITHUB), Asked(one.identity, f"{GITHUB}/"), Asked(SAMPLES[one is SAMPLES[0]].identity, GITHUB)):
        with pytest.raises(Unvouched, match=r"does not match|do not match"):
            keyless.checked(raw, b"", payload, asked)
    with pytest.raises(Foreign, match="another statement"):
        keyless.checked(raw, b"", payload + b" ", Asked(one.identity, GITHUB))


def test_a_flipped_bit_in_it_makes_it_nobody_elses(sample: tuple[Sample, bytes, bytes]) -> None:
    one, raw, payload = sample
    asked = Asked(one.identity, GITHUB)
    was, accepted = keyless.checked(raw, b"", payload, asked), 0
    places = range(0, len(raw), 7)
    for place in places:
        spoilt = bytearray(raw)
        spoilt[place] ^= 1 << place % 8
        try:
            assert keyless.checked(bytes(spoilt), b"", payload, asked) == was
            accepted += 1
        except (Foreign, Unvouched):
            continue
    assert accepted < len(places) // 10, "the newer one has a timestamp beside the log's own date, and one of the two is enough"
