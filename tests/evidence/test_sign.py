"""The key, its folder, and the one byte form of an envelope."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from provisioner.errors import RefusedError, RunError
from provisioner.evidence import sign
from provisioner.evidence.canonical import dumps
from tests.evidence.bundles import keys, state
from tests.evidence.journals import never_launched

STATEMENT = {"clean": True, "n": 1}


def code(raw: bytes, public: bytes) -> str:
    with pytest.raises(sign.Unsigned) as caught:
        sign.opened(raw, public)
    return caught.value.problem.code


def rewritten(change: Any, envelope: sign.Envelope) -> bytes:
    body = json.loads(envelope.raw)
    change(body)
    return dumps(body) + b"\n"


def test_the_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        first = sign.sign(STATEMENT, tmp_path / "keys")
    finally:
        os.umask(old)
    assert sign.sign(STATEMENT, tmp_path / "keys") == first
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "keys" / sign.KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert [p.name for p in (tmp_path / "keys").iterdir()] == [sign.KEY_FILE]


def test_what_was_signed_is_what_is_opened() -> None:
    made = sign.sign(STATEMENT, keys())
    assert sign.opened(made.raw, made.public) == (dumps(STATEMENT), made.keyid)


@pytest.mark.parametrize(("what", "mode"), [("", 0o750), ("", 0o705), (sign.KEY_FILE, 0o640), (sign.KEY_FILE, 0o604)])
def test_a_key_that_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path: Path, what: str, mode: int) -> None:
    sign.key(tmp_path / "keys")
    (tmp_path / "keys" / what).chmod(mode)
    with pytest.raises(RefusedError, match="readable by others") as caught:
        sign.key(tmp_path / "keys")
    assert caught.value.next.startswith("chmod ") and f"{mode:o}" in caught.value.what


def test_a_key_that_is_a_symlink_a_fifo_or_nonsense_is_refused(tmp_path: Path) -> None:
    for name in ("link", "fifo", "text", "empty"):
        folder = tmp_path / name
        folder.mkdir(mode=0o700)
        path = folder / sign.KEY_FILE
        if name == "link":
            path.symlink_to(keys() / sign.KEY_FILE)
        elif name == "fifo":
            os.mkfifo(path, 0o600)
        else:
            path.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n" if name == "text" else b"")
            path.chmod(0o600)
        with pytest.raises((RefusedError, OSError)):
            sign.key(folder)


def test_two_programs_that_make_a_key_at_once_end_up_with_one(tmp_path: Path) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(sign.key(tmp_path / "keys").public_key.keyid)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8 and len(set(made)) == 1


def test_a_statement_too_large_for_any_verifier_is_not_signed() -> None:
    with pytest.raises(RunError, match="at most"):
        sign.sign({"x": ["y" * 1000] * 900}, keys())


def test_another_key_or_a_changed_payload_does_not_match(tmp_path: Path) -> None:
    made, other = sign.sign(STATEMENT, keys()), sign.sign(STATEMENT, tmp_path / "other")
    assert code(made.raw, other.public) == "E101"
    assert code(rewritten(lambda b: b.update(payload=base64.b64encode(b'{"clean":false}').decode()), made), made.public) == "E101"
    assert code(rewritten(lambda b: b["signatures"][0].update(keyid=other.keyid), made), other.public) == "E101"
    assert code(made.raw, b"") == code(made.raw, made.public[:-1]) == code(made.raw, b"[]\n") == "E101"


def test_a_public_key_under_another_keys_id_is_not_taken(tmp_path: Path) -> None:
    made, other = sign.sign(STATEMENT, keys()), sign.sign(STATEMENT, tmp_path / "other")
    mixed = json.loads(other.public) | {"keyid": made.keyid}
    forged = rewritten(lambda b: b["signatures"][0].update(sig=json.loads(other.raw)["signatures"][0]["sig"]), made)
    assert code(forged, dumps(mixed) + b"\n") == "E101"


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.update(extra=1),
        lambda b: b["signatures"].append(dict(b["signatures"][0], keyid="0" * 64)),
        lambda b: b["signatures"].clear(),
        lambda b: b["signatures"][0].update(note="x"),
        lambda b: b["signatures"][0].pop("keyid"),
        lambda b: b.update(payload=b["payload"] + "="),
        lambda b: b.update(payload=b["payload"].replace("e", "e\n", 1)),
        lambda b: b.update(payload=7),
        lambda b: b.update(signatures={}),
        lambda b: b.update(payloadType=None),
    ],
)
def test_an_envelope_in_any_other_form_is_refused(change: Any) -> None:
    made = sign.sign(STATEMENT, keys())
    assert code(rewritten(change, made), made.public) == "E103"


@pytest.mark.parametrize(
    "spell",
    [lambda r: r[:-1], lambda r: r + b"\n", lambda r: b" " + r, lambda r: r.replace(b'":', b'": ', 1), lambda r: b"\xef\xbb\xbf" + r],
)
def test_an_envelope_that_was_re_saved_is_refused(spell: Any) -> None:
    made = sign.sign(STATEMENT, keys())
    assert code(spell(made.raw), made.public) == "E103"


def test_another_payload_type_is_named() -> None:
    made = sign.sign(STATEMENT, keys())
    assert code(rewritten(lambda b: b.update(payloadType="text/plain"), made), made.public) == "E104"


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow, id="all"), pytest.param(13, id="some")])
def test_every_single_bit_of_an_envelope_and_of_its_key_matters(step: int) -> None:
    """Flipped, nothing is opened; all of them in the slow suite."""
    made = sign.sign(state(never_launched()), keys())
    for part in (made.raw, made.public):
        for bit in range(0, len(part) * 8, step):
            spoilt = bytearray(part)
            spoilt[bit // 8] ^= 1 << bit % 8
            pair = (bytes(spoilt), made.public) if part is made.raw else (made.raw, bytes(spoilt))
            with pytest.raises(sign.Unsigned):
                sign.opened(*pair)


def test_the_signing_library_is_loaded_only_when_something_is_signed() -> None:
    check = "import sys, provisioner.evidence.verify, provisioner.evidence.say, provisioner.report.tables; "
    check += "sys.exit(any(m.split('.')[0] in ('securesystemslib', 'cryptography', 'pydantic', 'boto3') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", check], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_openssl_checks_the_signature_with_nothing_of_ours(tmp_path: Path) -> None:
    made = sign.sign(STATEMENT, keys())
    body, public = json.loads(made.raw), json.loads(made.public)["keyval"]["public"]
    payload, signature = (base64.b64decode(text) for text in (body["payload"], body["signatures"][0]["sig"]))
    (tmp_path / "signed").write_bytes(sign.pae(payload))
    (tmp_path / "sig").write_bytes(signature)
    (tmp_path / "key.der").write_bytes(bytes.fromhex("302a300506032b6570032100" + public))  # RFC 8410's form of the 32 bytes
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-keyform",
        "DER",
        "-inkey",
        "key.der",
        "-rawin",
        "-in",
        "signed",
        "-sigfile",
        "sig",
    ]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
    (tmp_path / "signed").write_bytes(sign.pae(payload + b" "))
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode != 0


def test_securesystemslib_checks_the_envelope_as_it_lies_there() -> None:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined,unused-ignore]

    made = sign.sign(STATEMENT, keys())
    public = json.loads(made.public)
    key = SSlibKey(public["keyid"], public["keytype"], public["scheme"], public["keyval"])
    assert list(Envelope.from_dict(json.loads(made.raw)).verify([key], 1)) == [made.keyid]
