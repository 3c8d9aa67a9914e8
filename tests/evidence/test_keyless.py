"""Signatures through sigstore: made by the library's own client at a service of the test's, taken by its own verifier, or refused."""

from __future__ import annotations

import base64
import copy as copies
import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from provisioner.errors import RefusedError
from provisioner.evidence import keyless, sign, verify
from provisioner.evidence.keyless import Asked, Foreign, Signing, Unvouched
from tests.evidence.broken import VALUES
from tests.evidence.bundles import copy
from tests.evidence.sigstore_service import ALICE, ISSUER, JOB, Service, config_at, served, text, token
from tests.evidence.test_auditor import agree, auditor

Made = tuple[Path, Asked]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with served(Service()) as service:
        yield service


def roots(service: Service, at: Path) -> Any:
    return keyless.trusted_root(config_at(at, service))


def statement(folder: Path) -> tuple[bytes, bytes]:
    """The envelope's bytes, and the statement inside."""
    raw = (folder / "statement.dsse.json").read_bytes()
    return raw, base64.b64decode(json.loads(raw)["payload"])


def signed(folder: Path, service: Service, tmp: Path, identity: str = ALICE) -> bytes:
    (tmp / "token").write_text(token(identity))
    raw, _ = Signing(tmp / "token", config_at(tmp / "config.json", service), lambda _: None, None).sign(*statement(folder))
    (folder / keyless.FILE).write_bytes(raw)
    return raw


@pytest.fixture
def made(service: Service, tmp_path: Path) -> Made:
    folder = copy("normal", tmp_path / "b")
    signed(folder, service, tmp_path)
    return folder, Asked(ALICE, ISSUER, roots(service, tmp_path / "config.json"))


def refused(folder: Path, asked: Asked | None, code: str, ends: int, *words: str) -> None:
    report = verify.verify(folder, sigstore=asked)
    assert report.exit == ends and [p.code for p in report.problems] == [code] and report.keyless is None, report.text()
    assert all(word in report.problems[0].message for word in words), report.problems[0].message


def test_a_signature_of_the_identity_that_was_asked_for_is_taken_and_says_whose_it_is(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, asked = made
    report = verify.verify(folder, sigstore=asked)
    assert report.exit == 0 and report.keyless is not None and not report.not_covered, report.text()
    assert report.keyless.sentence in report.text() and f"as {ALICE}, which {ISSUER} confirms" in report.text()
    assert "no key that you named vouches for" in report.text() and "nobody you named" not in report.text()
    assert (
        report.json()["sigstore"] == {"identity": ALICE, "issuer": ISSUER}
        and {"name": "sigstore", "state": "ok"} in report.json()["layers"]
    )
    assert report.keyless.until - report.keyless.since == 600_000
    assert agree(folder) == (0, 0) and auditor.main(["", str(folder)]) == 0
    assert "sigstore" in capsys.readouterr().out.partition("NOT JUDGED HERE")[2]


def test_a_job_in_ci_is_an_identity_too(service: Service, tmp_path: Path) -> None:
    folder = copy("held", tmp_path / "b")
    signed(folder, service, tmp_path, JOB)
    root = roots(service, tmp_path / "config.json")
    assert verify.verify(folder, sigstore=Asked(JOB, ISSUER, root)).exit == 0
    for near in (JOB[:-1], f"{JOB}/", JOB.upper(), f" {JOB}", ".*", "*"):
        refused(folder, Asked(near, ISSUER, root), "E112", 2)


def test_sigstores_own_program_takes_it(made: Made, tmp_path: Path) -> None:
    folder, _ = made
    command = [sys.executable, "-m", "sigstore", "--trust-config", tmp_path / "config.json", "verify", "identity", "--offline"]
    command += ["--bundle", folder / keyless.FILE, "--cert-identity", ALICE, "--cert-oidc-issuer", ISSUER, folder / "statement.dsse.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"OK: {folder / 'statement.dsse.json'}" in done.stderr, done.stderr


def test_another_identity_another_issuer_and_other_roots_are_2_and_the_statement_stands(made: Made, tmp_path: Path) -> None:
    folder, asked = made
    refused(folder, Asked("bob@example.org", ISSUER, asked.root), "E112", 2, "bob@example.org", "SANs do not match")
    refused(folder, Asked(ALICE, f"{ISSUER}/", asked.root), "E112", 2, "OIDCIssuer does not match")
    refused(folder, Asked(ALICE, ISSUER, roots(Service(), tmp_path / "other.json")), "E112", 2, "certificate chain")
    refused(folder, Asked(ALICE, ISSUER), "E112", 2, "certificate chain")  # the public service's roots, which the package brings
    said = verify.verify(folder, sigstore=Asked(ALICE, "https://other.example.org", asked.root)).text()
    assert said.startswith("VERDICT  intact, and not signed by the sigstore identity that you named.")


@pytest.mark.parametrize("log", ["tlogs", "ctlogs"])
def test_a_log_that_is_not_among_the_roots_does_not_count(log: str, made: Made, tmp_path: Path) -> None:
    """Each of the two logs alone: the authority's certificate is in order in both."""
    folder, _ = made
    config = json.loads((tmp_path / "config.json").read_text())
    config["trustedRoot"][log] = Service().trusted_root()[log]
    (tmp_path / "mixed.json").write_text(json.dumps(config["trustedRoot"]))
    refused(folder, Asked(ALICE, ISSUER, keyless.trusted_root(tmp_path / "mixed.json")), "E112", 2, "invalid")


def test_of_another_statement_it_is_a_contradiction_whoever_is_asked_for(made: Made, tmp_path: Path) -> None:
    folder, asked = made
    other = copy("held", tmp_path / "other")
    (other / keyless.FILE).write_bytes((folder / keyless.FILE).read_bytes())
    for who in (asked, Asked("bob@example.org", ISSUER), None):
        refused(other, who, "E109", 1, "did not sign these bytes")


def test_without_being_asked_for_it_is_said_and_not_judged(made: Made) -> None:
    report = verify.verify(made[0])
    assert report.exit == 0 and report.keyless is None and [w.code for w in report.warnings if w.code == "W109"] == ["W109"]
    assert "--sigstore-identity" in report.text() and ALICE not in report.text()


def test_whoever_asks_for_one_that_is_not_there_is_not_told_that_all_is_well(tmp_path: Path) -> None:
    folder = copy("normal", tmp_path / "b")
    refused(folder, Asked(ALICE, ISSUER), "E112", 2, "there is no statement.sigstore.json")
    assert verify.verify(folder).exit == 0


def test_where_the_package_is_missing_nothing_counts_and_its_name_is_said(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, asked = made
    monkeypatch.setitem(sys.modules, "sigstore", None)
    refused(folder, asked, "E112", 2, "-m pip install 'sigstore<5,>=4.5.1'")
    report = verify.verify(folder)
    assert report.exit == 0 and "W109" in report.text()
    (folder / keyless.FILE).write_bytes(b"{}")
    refused(folder, None, "E109", 1)
    with pytest.raises(RefusedError) as e:
        Signing(None, None, lambda _: None, None).sign(b"", b"")
    assert e.value.next == f"{sys.executable} -m pip install 'sigstore<5,>=4.5.1'"


def test_nobody_is_asked_for_by_an_empty_name() -> None:
    for identity, issuer in (("", ISSUER), (ALICE, "")):
        with pytest.raises(ValueError, match="both needed"):
            Asked(identity, issuer)


def entered(service: Service, folder: Path, tmp: Path, **wrong: Any) -> bytes:
    """A bundle by the same authority and logs, when the log does something wrong. What signing would have refused."""
    other = copies.copy(service)
    for name, value in wrong.items():
        setattr(other, name, value)
    with served(other):
        (tmp / "token").write_text(token())
        raw, _ = keyless._made(statement(folder)[0], keyless._read(tmp / "token"), config_at(tmp / "wrong.json", other))
    (folder / keyless.FILE).write_bytes(raw)
    return raw


def test_what_the_log_dates_after_the_certificates_end_does_not_count(made: Made, service: Service, tmp_path: Path) -> None:
    folder, asked = made
    entered(service, folder, tmp_path, late_s=60)
    refused(folder, asked, "E112", 2)


def test_an_entry_that_the_log_did_not_sign_does_not_count(made: Made, service: Service, tmp_path: Path) -> None:
    folder, asked = made
    entered(service, folder, tmp_path, signs_log=ec.generate_private_key(ec.SECP256R1()))
    refused(folder, asked, "E112", 2, "invalid log entry")


def test_an_attestation_of_the_statement_is_taken_and_one_of_another_is_a_contradiction(
    made: Made, service: Service, tmp_path: Path
) -> None:
    """What tools for in-toto make: the signature is over the statement inside the envelope, which stands in the bundle again."""
    from sigstore.dsse import Statement
    from sigstore.models import ClientTrustConfig
    from sigstore.oidc import IdentityToken
    from sigstore.sign import SigningContext

    folder, asked = made
    with served(copies.copy(service)) as other:
        trust = ClientTrustConfig.from_json(config_at(tmp_path / "again.json", other).read_text())
        with SigningContext.from_trust_config(trust).signer(IdentityToken(token())) as signer:
            bundle = signer.sign_dsse(Statement(statement(folder)[1]))
    (folder / keyless.FILE).write_text(bundle.to_json())
    assert verify.verify(folder, sigstore=asked).exit == 0
    refused(folder, Asked("bob@example.org", ISSUER, asked.root), "E112", 2)
    held = copy("held", tmp_path / "other")
    (held / keyless.FILE).write_text(bundle.to_json())
    for who in (asked, None):
        refused(held, who, "E109", 1, "of another statement")


def test_no_flipped_bit_makes_it_somebody_elses_or_makes_it_fall_over(made: Made) -> None:
    folder, asked = made
    honest, given = (folder / keyless.FILE).read_bytes(), statement(folder)
    was, accepted = keyless.checked(honest, *given, asked), 0
    for place in range(len(honest)):
        spoilt = bytearray(honest)
        spoilt[place] ^= 1 << place % 8
        try:
            assert keyless.checked(bytes(spoilt), *given, asked) == was
            accepted += 1
        except (Foreign, Unvouched):
            continue
    assert accepted < len(honest) // 50, "names that nobody signed: of a digest's kind, of the log in its own line; spare bits of base64"


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield way
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*way, key))


def test_no_value_in_another_values_place_makes_it_somebody_elses_or_makes_it_fall_over(made: Made) -> None:
    folder, asked = made
    bundle, given = json.loads((folder / keyless.FILE).read_bytes()), statement(folder)
    was = keyless.checked(json.dumps(bundle).encode(), *given, asked)
    for way in places(bundle):
        for value in [*VALUES, "REMOVED", "AGAIN"]:
            changed: Any = {"": copies.deepcopy(bundle)}
            above, key = changed, ""
            for step in way:
                above, key = above[key], step
            if value == "REMOVED":
                del above[key]
            else:
                above[key] = [above[key], above[key]] if value == "AGAIN" else value
            try:
                assert keyless.checked(json.dumps(changed.get("")).encode(), *given, asked) == was, (way, value)
            except (Foreign, Unvouched):
                continue


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"a":1,"a":2}',
        b'{"verificationMaterial":{"certificate":{"rawBytes":"AAAA"}}}',
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_what_is_no_bundle_is_refused(raw: bytes, made: Made) -> None:
    folder, asked = made
    (folder / keyless.FILE).write_bytes(raw)
    for who in (asked, None):
        refused(folder, who, "E109", 1, "it is no sigstore bundle")


def test_a_certificate_of_a_version_that_there_is_not_is_refused(made: Made) -> None:
    """A flipped bit found it: that one is no ValueError of the library's."""
    folder, asked = made
    bundle = json.loads((folder / keyless.FILE).read_bytes())
    certificate = bundle["verificationMaterial"]["certificate"]
    certificate["rawBytes"] = text(base64.b64decode(certificate["rawBytes"]).replace(b"\xa0\3\2\1\2", b"\xa0\3\2\1\x0a", 1))
    (folder / keyless.FILE).write_text(json.dumps(bundle))
    refused(folder, asked, "E109", 1, "InvalidVersion")


def test_one_that_is_too_large_is_not_read(made: Made) -> None:
    folder, asked = made
    (folder / keyless.FILE).write_bytes(b" " * (keyless.LIMIT + 1))
    refused(folder, asked, "E002", 3)


def test_with_two_signatures_it_is_none(made: Made) -> None:
    folder, asked = made
    bundle = json.loads((folder / keyless.FILE).read_bytes())
    bundle["dsseEnvelope"] = {"payload": "", "payloadType": sign.PAYLOAD_TYPE, "signatures": [{"sig": text(b"x")}]}
    (folder / keyless.FILE).write_text(json.dumps(bundle))
    refused(folder, asked, "E109", 1, "not just one signature")


def test_the_roots_that_the_package_brings_are_read_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of a cache, which whatever ran before may have filled; and nothing is written into a home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    logs = [log.base_url for log in keyless.public_root()._inner.tlogs]
    assert "https://rekor.sigstore.dev" in logs and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "raw", ["", "[]", "{}", '{"mediaType":"x"}', '{"mediaType":"application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"}']
)
def test_a_file_without_roots_is_said(raw: str, tmp_path: Path) -> None:
    (tmp_path / "roots").write_text(raw)
    with pytest.raises(ValueError):
        keyless.trusted_root(tmp_path / "roots")


def test_a_service_that_does_not_answer_ends_the_wait(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyless, "TIMEOUT_S", 0.2)
    mute, go_on = copies.copy(service), threading.Event()
    monkeypatch.setattr(mute, "answer", lambda *_: (go_on.wait(30), (500, b"{}"))[1])
    with served(mute):
        (tmp_path / "token").write_text(token())
        with pytest.raises(RefusedError) as e:
            Signing(tmp_path / "token", config_at(tmp_path / "config.json", mute), lambda _: None, None).sign(b"x", b"y")
        go_on.set()
    assert "no answer" in e.value.why


@pytest.mark.parametrize("wrong", [{"late_s": 60}, {"signs_log": ec.generate_private_key(ec.SECP256R1())}], ids=["late", "log"])
def test_what_does_not_verify_is_not_handed_over(wrong: dict[str, Any], service: Service, tmp_path: Path) -> None:
    other = copies.copy(service)
    for name, value in wrong.items():
        setattr(other, name, value)
    with served(other):
        (tmp_path / "token").write_text(token())
        with pytest.raises(RefusedError) as e:
            Signing(tmp_path / "token", config_at(tmp_path / "config.json", other), lambda _: None, None).sign(b"x", b"y")
    assert "does not verify" in e.value.why


@pytest.mark.parametrize("answer", [(500, b"{}"), (200, b"<html>busy</html>"), (200, b"{}"), (403, b'{"message":"no"}')])
def test_a_service_that_answers_something_else_is_said_without_the_token(
    answer: tuple[int, bytes], service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, given = copies.copy(service), token()
    monkeypatch.setattr(other, "answer", lambda *_: answer)
    with served(other):
        (tmp_path / "token").write_text(given)
        with pytest.raises(RefusedError) as e:
            Signing(tmp_path / "token", config_at(tmp_path / "config.json", other), lambda _: None, None).sign(b"x", b"y")
    assert e.value.what == "sigstore did not sign" and e.value.why and given not in e.value.why


@pytest.mark.parametrize("given", ["", "x.y.z", token(lasts_s=-60), "\u00e9"])
def test_what_is_no_token_or_no_longer_one_is_asked_of_nobody(given: str, service: Service, tmp_path: Path) -> None:
    before = len(service.asked)
    (tmp_path / "token").write_text(given)
    with pytest.raises(RefusedError) as e:
        Signing(tmp_path / "token", config_at(tmp_path / "config.json", service), lambda _: None, None).sign(b"x", b"y")
    assert e.value.what == "that is no token to sign with" and (not given or given not in e.value.why) and len(service.asked) == before


def test_what_leaves_this_machine_is_a_digest_and_no_word_of_the_statement(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, sent = copy("normal", tmp_path / "b"), []
    other = copies.copy(service)
    monkeypatch.setattr(other, "answer", lambda path, headers, body: (sent.append(body), Service.answer(other, path, headers, body))[1])
    with served(other):
        signed(folder, other, tmp_path)
    raw, payload = statement(folder)
    assert len(sent) == 2 and hashlib.sha256(raw).hexdigest().encode() in sent[1]
    for part in (raw, payload):
        for at in range(0, len(part) - 24, 24):
            assert not any(part[at : at + 24] in body for body in sent)
