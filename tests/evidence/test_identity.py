"""Identity documents: AWS's signature, believed under the certificates that we hold and under no other."""

from __future__ import annotations

import base64
import hashlib
import random
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from provisioner.evidence import certificates, identity, statement, verify
from provisioner.evidence.canonical import milliseconds
from provisioner.rehearsal import worthless
from tests.evidence.amazon import PINNED, document, forged, signed
from tests.evidence.bundles import files_of, forge, state, write
from tests.evidence.journals import FILES, STORIES
from tests.evidence.tape import INST, PRODUCER, REGION, Tape

OLDEST = timedelta(days=180)
LEFT = timedelta(days=365)


def pem(text: bytes) -> bytes:
    return b"-----BEGIN PKCS7-----\n" + text + b"\n-----END PKCS7-----\n"


def test_a_signed_document_is_read_and_names_the_certificate_that_signed_it() -> None:
    found = identity.verify(signed(), [PINNED])
    assert found.fields["instanceId"] == INST and len(found.certificate) == 64
    assert identity.verify(pem(signed()), [PINNED]) == found


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_what_openssl_accepts_as_amazons_documentation_calls_it_is_refused_here(tmp_path: Path) -> None:
    for name, data in (("rsa2048", pem(forged(instanceType="p5.48xlarge"))), ("aws.pem", PINNED)):
        (tmp_path / name).write_bytes(data)
    asked = ["openssl", "smime", "-verify", "-in", "rsa2048", "-inform", "PEM", "-certfile", "aws.pem", "-noverify"]
    believed = subprocess.run(asked, cwd=tmp_path, capture_output=True)
    assert believed.returncode == 0 and b"p5.48xlarge" in believed.stdout, "the forgery that this test is about"
    strict = subprocess.run([*asked, "-nointern"], cwd=tmp_path, capture_output=True)
    assert strict.returncode != 0
    with pytest.raises(identity.Forged, match="was not made with the key"):
        identity.verify((tmp_path / "rsa2048").read_bytes(), [PINNED])


def test_a_forger_who_takes_amazons_serial_number_has_still_not_its_key() -> None:
    with pytest.raises(identity.Forged, match="was not made with the key"):
        identity.verify(forged(disguised=True), [PINNED])


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_lengths_that_are_not_said_in_advance_are_read_as_amazon_writes_them(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = worthless.key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for name, data in (("key.pem", key), ("aws.pem", PINNED), ("document", document())):
        (tmp_path / name).write_bytes(data)
    command = "openssl smime -sign -nodetach -stream -binary -nocerts -md sha256 -in document -signer aws.pem -inkey key.pem -outform DER"
    made = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=True).stdout
    assert made[1] == 0x80, "an indefinite length"
    assert identity.verify(base64.b64encode(made), [PINNED]).fields["instanceId"] == INST


def test_no_flipped_bit_changes_what_a_document_says() -> None:
    raw = base64.b64decode(signed())
    said = identity.verify(base64.b64encode(raw), [PINNED]).fields
    for place in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[place // 8] ^= 1 << place % 8
        try:
            assert identity.verify(base64.b64encode(bytes(changed)), [PINNED]).fields == said
        except identity.Forged:
            continue


def test_nothing_that_is_thrown_at_it_breaks_it_or_is_believed() -> None:
    random_, raw = random.Random(7), base64.b64decode(signed())
    said = identity.verify(base64.b64encode(raw), [PINNED]).fields
    for _ in range(3000):
        changed = bytearray(raw)
        for _ in range(random_.randint(1, 6)):
            changed[random_.randrange(len(changed))] = random_.randrange(256)
        if random_.random() < 0.3:
            changed = changed[: random_.randrange(len(changed))]
        try:
            assert identity.verify(base64.b64encode(bytes(changed)), [PINNED]).fields == said
        except identity.Forged:
            continue


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"AAAA",
        b"not base64!",
        b"MIAGCSqGSIb3DQEHAqCA",
        b"MIAw" * 4000,
        b"x" * (identity.LIMIT + 1),
        base64.b64encode(b"\x30\x80" * 500),
    ],
)
def test_what_is_no_message_is_refused_whatever_it_is(text: bytes) -> None:
    with pytest.raises(identity.Forged):
        identity.verify(text, [PINNED])


def test_a_document_without_an_instance_or_with_two_meanings_is_refused() -> None:
    with pytest.raises(identity.Forged, match="no instanceId"):
        identity.verify(signed(instanceId=None), [PINNED])
    twice = worthless.pkcs7(document().replace(b"{", b'{"instanceId":"i-2",', 1)).encode()
    with pytest.raises(identity.Forged, match="given twice"):
        identity.verify(twice, [PINNED])


def test_the_rehearsals_certificate_is_for_simulated_statements_only() -> None:
    table = certificates.table()
    assert table.simulated == PINNED and table.of("us-east-1", simulated=True) == (PINNED,)
    assert "SIMULATED" in x509.load_pem_x509_certificate(table.simulated).subject.rfc4514_string()
    assert PINNED not in [pem for pems in table.regions.values() for pem in pems]
    assert table.of("xx-nowhere-1", simulated=False) == ()


def test_the_table_of_certificates_ages_and_this_test_with_it() -> None:
    """It fails when nobody has compared the table with AWS's page for half a year, and a year before a certificate ends."""
    table, now = certificates.table(), datetime.now(UTC)
    checked = datetime.fromtimestamp((milliseconds(f"{table.as_of}T00:00:00Z") or 0) / 1000, UTC)
    assert now - checked < OLDEST, f"compare certificates.json with {certificates.SOURCE}: python tools/certificates.py PAGE"
    for region, pems in table.regions.items():
        for one in map(x509.load_pem_x509_certificate, pems):
            assert one.not_valid_after_utc - now > LEFT, f"{region}: ends {one.not_valid_after_utc:%Y-%m-%d}"


def test_each_certificate_of_the_table_is_whole_self_signed_and_amazons_in_name() -> None:
    for one in (x509.load_pem_x509_certificate(pem) for pems in certificates.table().regions.values() for pem in pems):
        one.verify_directly_issued_by(one)
        assert "Amazon Web Services LLC" in one.subject.rfc4514_string() and one.public_key().key_size == 2048  # type: ignore[union-attr]


def story(text: bytes, *, simulated: bool = False) -> Tape:
    """A run with one machine, whose identity document says this."""
    settings = {"region": REGION, "endpoint": "http://127.0.0.1:4566"} if simulated else {"region": REGION}
    tape = Tape().genesis(simulated=simulated, settings=settings).guards().launch().run().release().quiet().verdict()
    tape.aws[f"aws/iid/{INST}.p7"] = text
    return tape.end(files={**FILES, **tape.aws})


def begun(**changed: Any) -> bytes:
    return signed(**{"pendingTime": launch_of(STORIES["normal"]()), **changed})


def launch_of(tape: Tape) -> str:
    launched: str = state(tape)["predicate"]["instances"][0]["launchTime"]
    return launched


def test_a_proof_with_a_document_for_every_machine_is_identified_and_says_so_first(tmp_path: Path) -> None:
    report = verify.verify(write(tmp_path / "b", story(begun())), "identified", certificates=[PINNED])
    assert report.exit == 0 and report.text().startswith("VERDICT  AWS-identified. ")
    assert b"AWS-identified" in (tmp_path / "b" / "report.html").read_bytes()
    assert {"identity-is-static", "client-signed-only"} <= set(report.predicate["limits"] if report.predicate else ())


def test_the_rehearsals_own_document_lifts_a_simulated_proof_only(tmp_path: Path) -> None:
    rehearsed = verify.verify(write(tmp_path / "a", story(begun(), simulated=True)), "identified")
    assert rehearsed.exit == 0 and rehearsed.text().startswith("VERDICT  SIMULATED, AWS-identified. ")
    real = verify.verify(write(tmp_path / "b", story(begun())))
    assert real.exit == 1 and [p.code for p in real.problems] == ["E501"] and real.tier == ""


def test_a_region_without_a_certificate_here_is_not_identified_and_no_contradiction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "table", lambda: certificates.Table("2026-11-25", {}, PINNED))
    report = verify.verify(write(tmp_path / "b", story(begun())))
    assert report.exit == 0 and report.tier == "client" and report.warnings[0].code == "W504"
    assert "not identified: no AWS certificate for us-east-1 here" in report.text()
    assert "(its maker says AWS-identified; that could not be checked here)" in report.text().splitlines()[0]
    assert verify.verify(tmp_path / "b", "identified").exit == 2


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ({"instanceId": "i-0ffffffffffffffff"}, "E502", "instanceId"),
        ({"instanceType": "t3.nano"}, "E502", "instanceType"),
        ({"region": "eu-west-1"}, "E502", "region"),
        ({"pendingTime": "2026-11-18T09:00:00Z"}, "E503", "s apart"),
        ({"pendingTime": "yesterday"}, "E503", "an unknown number of s apart"),
    ],
)
def test_a_document_of_another_machine_or_another_time_is_a_contradiction(
    changed: dict[str, str], code: str, said: str, tmp_path: Path
) -> None:
    report = verify.verify(write(tmp_path / "b", story(begun(**changed))), certificates=[PINNED])
    assert report.exit == 1 and [p.code for p in report.problems] == [code] and said in report.problems[0].message


@pytest.mark.parametrize("how", [forged, lambda: forged(disguised=True), lambda: b"AAAA\n", lambda: b""], ids=range(4))
def test_a_forged_document_is_a_contradiction(how: Callable[[], bytes], tmp_path: Path) -> None:
    report = verify.verify(write(tmp_path / "b", story(how())), certificates=[PINNED])
    assert report.exit == 1 and [p.code for p in report.problems] == ["E501"]


def test_whoever_could_not_check_a_document_claims_nothing_by_it(tmp_path: Path) -> None:
    tape = story(forged())
    files = {name: hashlib.sha256(data).hexdigest() for name, data in files_of(tape).items()}
    made = statement.build(
        tape.entries, files, producer=PRODUCER, results=FILES["results.json"], aws=tape.aws, unchecked="no-certificate-for-the-region"
    )
    report = verify.verify(write(tmp_path / "b", tape, made), certificates=[PINNED])
    assert report.exit == 0 and report.tier == "client" and "identity-unchecked" in made["predicate"]["limits"]
    assert report.warnings[0].code == "E501"


def test_a_claim_of_a_tier_without_its_document_is_a_contradiction(tmp_path: Path) -> None:
    def lift(made: dict[str, Any]) -> None:
        made["predicate"]["corroboration"] |= {"tier": "identified", "iid": "present"}

    report = verify.verify(forge(tmp_path / "b", "normal", lift))
    assert report.exit == 1 and [p.code for p in report.problems] == ["E301"]
