"""OpenSSH signatures: what ssh-keygen makes is taken here, what is made here ssh-keygen takes, and nothing else is either."""

from __future__ import annotations

import base64
import hashlib
import struct
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from provisioner.evidence import sign, sshsig, verify
from provisioner.evidence.sign import Unsigned
from provisioner.evidence.sshsig import BadSigners
from tests.evidence.bundles import copy

KINDS = {"ed25519": [], "ecdsa-256": ["-b", "256"], "ecdsa-384": ["-b", "384"], "ecdsa-521": ["-b", "521"], "rsa": ["-b", "2048"]}


def key(folder: Path, kind: str = "ed25519") -> Path:
    path = folder / f"key-{kind}"
    subprocess.run(["ssh-keygen", "-q", "-t", kind.split("-")[0], *KINDS[kind], "-N", "", "-C", "", "-f", path], check=True)
    return path


def signed(path: Path, message: bytes, namespace: str = sshsig.NAMESPACE, *more: str) -> bytes:
    command = ["ssh-keygen", "-Y", "sign", "-q", "-n", namespace, *more, "-f", path]
    return subprocess.run(command, input=message, capture_output=True, check=True).stdout


def by_ssh_keygen(folder: Path, line: str, signature: bytes, message: bytes) -> int:
    (folder / "allowed").write_text(f"alice {line}\n")
    (folder / "signature").write_bytes(signature)
    command = ["ssh-keygen", "-Y", "verify", "-f", folder / "allowed", "-I", "alice", "-n", sshsig.NAMESPACE, "-s", folder / "signature"]
    return subprocess.run(command, input=message, capture_output=True).returncode


def message_of(bundle: Path) -> bytes:
    payload, _ = sign.opened((bundle / "statement.dsse.json").read_bytes(), (bundle / "signer.pub.json").read_bytes())
    return sign.pae(payload)


@pytest.mark.parametrize("kind", KINDS)
def test_what_ssh_keygen_signs_is_taken_and_one_byte_more_is_not(kind: str, tmp_path: Path) -> None:
    path = key(tmp_path, kind)
    made = signed(path, b"message")
    line = path.with_suffix(".pub").read_text().strip()
    assert sshsig.checked(made, b"message").line == line
    listed = subprocess.run(["ssh-keygen", "-l", "-f", path], capture_output=True, text=True, check=True).stdout
    assert sshsig.checked(made, b"message").fingerprint == listed.split()[1]
    with pytest.raises(Unsigned, match="does not match"):
        sshsig.checked(made, b"message.")


def test_a_signature_for_another_purpose_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsigned, match="it is for 'git'"):
        sshsig.checked(signed(key(tmp_path), b"m", "git"), b"m")


def test_every_flipped_bit_of_a_signature_is_found(tmp_path: Path) -> None:
    made = signed(key(tmp_path), b"m")
    raw = base64.b64decode(b"".join(made.splitlines()[1:-1]))
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        body = base64.encodebytes(bytes(flipped)).replace(b"\n", b"")
        lines = b"\n".join(body[n : n + 70] for n in range(0, len(body), 70))
        with pytest.raises(Unsigned):
            sshsig.checked(b"-----BEGIN SSH SIGNATURE-----\n" + lines + b"\n-----END SSH SIGNATURE-----\n", b"m")


def security_key(touched: int) -> tuple[str, bytes]:
    """What a security key would make: an Ed25519 key here in its place."""
    private, string = Ed25519PrivateKey.generate(), sshsig._string
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    kind = b"sk-ssh-ed25519@openssh.com"
    blob = string(kind) + string(public) + string(b"ssh:")
    signed_ = b"SSHSIG" + b"".join(map(string, (sshsig.NAMESPACE.encode(), b"", b"sha512", hashlib.sha512(b"m").digest())))
    rest = bytes([touched]) + struct.pack(">L", 7)
    made = private.sign(hashlib.sha256(b"ssh:").digest() + rest + hashlib.sha256(signed_).digest())
    signature = string(kind) + string(made) + rest
    raw = b"SSHSIG" + struct.pack(">L", 1) + b"".join(map(string, (blob, sshsig.NAMESPACE.encode(), b"", b"sha512", signature)))
    body = base64.b64encode(raw)
    lines = b"\n".join(body[n : n + 70] for n in range(0, len(body), 70))
    armored = b"-----BEGIN SSH SIGNATURE-----\n" + lines + b"\n-----END SSH SIGNATURE-----\n"
    return f"{kind.decode()} {base64.b64encode(blob).decode()}", armored


@pytest.mark.parametrize("touched", [1, 5, 0])
def test_a_security_key_counts_when_it_was_touched_which_is_stricter_than_ssh_keygen(touched: int, tmp_path: Path) -> None:
    line, armored = security_key(touched)
    assert by_ssh_keygen(tmp_path, line, armored, b"m") == 0
    if touched & 1:
        assert sshsig.checked(armored, b"m").line == line
    else:
        with pytest.raises(Unsigned, match="nobody touched"):
            sshsig.checked(armored, b"m")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("alice", "is not"),
        ("alice ssh-ed25519", "is not"),
        ("alice ssh-ed25519 AAAA", "ends early"),
        ("alice ssh-dss AAAA", "is not"),
        ("alice restrict KEY", "restrict is not known"),
        ('alice namespaces="a",no-touch KEY', "no-touch is not known"),
        ("alice namespaces=a KEY", "not understood"),
        ('alice valid-after="20261101" KEY', "not a time in UTC"),
        ('alice valid-before="20261399Z" KEY', "not a time"),
        ('alice namespaces="git KEY', "No closing quotation"),
    ],
)
def test_a_line_that_is_not_understood_is_an_error_and_never_a_permission(line: str, why: str) -> None:
    whole = sshsig.ed25519(b"k" * 32).line
    with pytest.raises(BadSigners, match=why):
        sshsig.signers("# comment\n\n" + line.replace("KEY", whole))


OPTIONS = {
    "": "vouched",
    f'namespaces="{sshsig.NAMESPACE}"': "vouched",
    'namespaces="git,shutdown-*"': "vouched",
    'namespaces="git"': "E102",
    'valid-after="20261101Z",valid-before="20261201Z"': "vouched",
    'valid-before="20261101Z"': "E105",
    'valid-after="202611190000Z"': "E105",
    "cert-authority": "E102",
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("which", ["own", "ssh"])
def test_a_line_vouches_for_what_it_allows_and_for_nothing_else(which: str, options: str, tmp_path: Path) -> None:
    bundle = copy("normal", tmp_path / "b")
    line = sshsig.ed25519(sign.raw_key((bundle / "signer.pub.json").read_bytes())).line
    if which == "ssh":
        path = key(tmp_path)
        (bundle / "statement.sshsig").write_bytes(signed(path, message_of(bundle)))
        line = path.with_suffix(".pub").read_text()
    report = verify.verify(bundle, signers=sshsig.signers(f'"Alice of example" {options} {line}'))
    if OPTIONS[options] == "vouched":
        assert report.exit == 0 and report.vouched == "Alice of example" and "vouched for as Alice of example" in report.text()
    else:
        assert report.exit == 2 and [p.code for p in report.problems] == [OPTIONS[options]] and not report.vouched


def test_ssh_keygen_itself_verifies_what_lies_in_the_bundle(tmp_path: Path) -> None:
    bundle, path = copy("normal", tmp_path / "b"), key(tmp_path)
    message = message_of(bundle)
    (bundle / "statement.sshsig").write_bytes(signed(path, message))
    assert by_ssh_keygen(tmp_path, path.with_suffix(".pub").read_text(), (bundle / "statement.sshsig").read_bytes(), message) == 0
    report = verify.verify(bundle)
    assert report.exit == 0 and report.ssh.startswith("SHA256:") and "nobody you named vouches for" in report.text()


def test_an_ssh_signature_over_something_else_is_a_contradiction(tmp_path: Path) -> None:
    bundle = copy("normal", tmp_path / "b")
    (bundle / "statement.sshsig").write_bytes(signed(key(tmp_path), message_of(copy("held", tmp_path / "other"))))
    report = verify.verify(bundle)
    assert report.exit == 1 and [p.code for p in report.problems] == ["E106"]
    (bundle / "statement.sshsig").write_bytes(b"x")
    assert verify.verify(bundle).exit == 1
