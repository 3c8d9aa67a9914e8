"""Timestamps as openssl makes them: taken under its root, refused for other bytes, and never believed for their own sake."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from provisioner.errors import RefusedError
from provisioner.evidence import timestamp, verify
from provisioner.evidence.canonical import rfc3339
from tests.evidence.bundles import copy
from tests.evidence.test_auditor import agree
from tests.evidence.tsa import Authority, openssl, served


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tsa") / "good")


@pytest.fixture
def folder(authority: Authority, tmp_path: Path) -> Path:
    folder = copy("normal", tmp_path / "b")
    (folder / timestamp.FILE).write_bytes(authority.stamped((folder / "statement.dsse.json").read_bytes()))
    return folder


def under(*roots: Path) -> list[bytes]:
    return [root.read_bytes() for root in roots]


def test_a_stamped_statement_says_by_when_it_existed_and_by_whom(authority: Authority, folder: Path) -> None:
    report = verify.verify(folder, authorities=under(authority.root))
    assert report.exit == 0 and report.stamp is not None and report.stamp.by == "CN=authority of a test"
    shown = openssl("ts", "-reply", "-in", folder / timestamp.FILE, "-text").decode()
    (said,) = [line.partition(": ")[2] for line in shown.splitlines() if line.startswith("Time stamp: ")]
    at = openssl("version").decode() and said.split()[2]
    assert rfc3339(report.stamp.at - 1000)[11:19] == at, "openssl's time, and the second that it may be off"
    assert report.stamp.sentence in report.text() and report.json()["timestamp"] == {"at": rfc3339(report.stamp.at), "by": report.stamp.by}
    assert not report.not_covered and agree(folder) == (0, 0)


def test_without_a_root_it_says_nothing_and_says_so(folder: Path) -> None:
    report = verify.verify(folder)
    assert report.exit == 0 and report.stamp is None and [w.code for w in report.warnings if w.code == "W107"] == ["W107"]
    assert "--tsa-cert" in report.text() and "existed by" not in report.text()


def test_of_another_statement_it_is_a_contradiction_with_and_without_a_root(authority: Authority, folder: Path) -> None:
    (folder / timestamp.FILE).write_bytes(authority.stamped(b"something else"))
    for authorities in ([], under(authority.root)):
        (problem,) = verify.verify(folder, authorities=authorities).problems
        assert problem.code == "E107" and "other bytes" in problem.message


def test_by_somebody_else_it_is_2_and_the_statement_stands(authority: Authority, folder: Path, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    report = verify.verify(folder, authorities=under(other.root))
    assert report.exit == 2 and [p.code for p in report.problems] == ["E108"] and report.stamp is None
    assert report.text().startswith("VERDICT  intact, and dated by nobody whom you trust.")
    assert verify.verify(folder, authorities=under(other.root, authority.root)).exit == 0
    leaf = verify.verify(folder, authorities=under(authority.folder / "tsa.pem"))
    assert leaf.exit == 2 and "root is needed" in leaf.problems[0].message


def test_a_certificate_that_is_for_something_else_stamps_no_times(tmp_path: Path) -> None:
    folder, web = copy("normal", tmp_path / "b"), Authority(tmp_path / "web")
    data = (folder / "statement.dsse.json").read_bytes()
    stamped = web.stamped(data)
    # openssl refuses to stamp with such a certificate, so one for it is put under the same key afterwards.
    (web.folder / "purpose").write_text("extendedKeyUsage=serverAuth\n")
    made = ("-CA", web.root, "-CAkey", web.folder / "root.key", "-set_serial", 77, "-days", 3000, "-extfile", web.folder / "purpose")
    openssl("x509", "-req", "-in", web.folder / "tsa.csr", *made, "-out", web.folder / "web.pem")
    cms = ("-sign", "-binary", "-nodetach", "-outform", "DER", "-econtent_type", "1.2.840.113549.1.9.16.1.4")
    info = openssl("ts", "-reply", "-in", _written(tmp_path / "t", stamped), "-token_out")
    content = openssl("cms", "-verify", "-noverify", "-inform", "DER", given=info)
    token = openssl("cms", *cms, "-signer", web.folder / "web.pem", "-inkey", web.folder / "tsa.key", given=content)
    reply = openssl("ts", "-reply", "-in", _written(tmp_path / "w", token), "-token_in")
    assert not web.takes(reply, data)
    (folder / timestamp.FILE).write_bytes(reply)
    report = verify.verify(folder, authorities=under(web.root))
    assert report.exit == 2 and [p.code for p in report.problems] == ["E108"]


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_no_flipped_bit_moves_the_time_or_makes_it_fall_over(authority: Authority, folder: Path) -> None:
    honest, statement = (folder / timestamp.FILE).read_bytes(), (folder / "statement.dsse.json").read_bytes()
    stamp = timestamp.checked(honest, statement, under(authority.root))
    accepted = 0
    for place in range(len(honest)):
        spoilt = bytearray(honest)
        spoilt[place] ^= 1 << place % 8
        try:
            accepted += timestamp.checked(bytes(spoilt), statement, under(authority.root)) == stamp
        except (timestamp.Foreign, timestamp.Unvouched):
            continue
        assert timestamp.checked(bytes(spoilt), statement, under(authority.root)) == stamp
    assert accepted < len(honest) // 20, "what does not matter to the time: names of parameters, the certificate's own spelling"


@pytest.mark.parametrize("token", [b"", b"0", b"\x30\x80" * 2000, b"\x30\x03\x02\x01\x02", b"x" * 70_000])
def test_what_is_no_timestamp_is_refused(token: bytes, folder: Path, authority: Authority) -> None:
    (folder / timestamp.FILE).write_bytes(token)
    report = verify.verify(folder, authorities=under(authority.root))
    assert [p.code for p in report.problems] == ["E002" if len(token) > timestamp.LIMIT else "E107"]


def test_where_the_package_is_missing_nothing_is_judged(folder: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    report = verify.verify(folder, authorities=under(authority.root))
    assert report.exit == 0 and report.stamp is None and "-m pip install 'rfc3161-client>=1.0.6'" in report.text()
    with pytest.raises(RefusedError, match="no timestamp can be asked for"):
        timestamp.fetched("http://127.0.0.1:9/", b"x")


def test_it_is_asked_for_over_http_and_taken_by_openssl(authority: Authority, tmp_path: Path) -> None:
    data = (copy("held", tmp_path / "b") / "statement.dsse.json").read_bytes()
    with served(authority) as url:
        token = timestamp.fetched(url, data)
    assert authority.takes(token, data) and timestamp.checked(token, data, under(authority.root)).by == "CN=authority of a test"


@pytest.mark.parametrize("spoil", [lambda q: b"<html>busy</html>", lambda q: b"x" * 100_000, lambda q: b""])
def test_an_authority_that_answers_something_else_ends_the_export(spoil: object, authority: Authority) -> None:
    with served(authority, spoil) as url, pytest.raises(RefusedError, match="gave no timestamp"):
        timestamp.fetched(url, b"statement")


def test_an_old_answer_to_another_request_is_not_taken(authority: Authority) -> None:
    old = authority.stamped(b"statement")
    with served(authority, lambda q: old) as url, pytest.raises(RefusedError) as e:
        timestamp.fetched(url, b"statement")
    assert "another request" in e.value.why


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/", "example.org", "http://127.0.0.1:9/"])
def test_an_address_that_cannot_be_asked_is_said(url: str) -> None:
    with pytest.raises(RefusedError):
        timestamp.fetched(url, b"statement")
