"""Keys made, keys read, and what a user's known_hosts says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from provisioner.errors import HostKeyError, RefusedError
from provisioner.remote import keys
from provisioner.remote.known import find_host_key, host_key_or_refuse, known_host_key, scan_host_key
from tests.remote.sshd import in_process

ED = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHaxnXuRxMClnp4lxGASOoU/lXXDtOd2Zu7+v7rJC1Om"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJJU8a22UL1/ipT8/NQ/V+Mwr25g5ChSYvyLEgygqCxg"


def test_a_private_key_is_for_its_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        pair = keys.client_pair(tmp_path / "keys")
    finally:
        os.umask(old)
    assert pair.private.stat().st_mode & 0o777 == 0o600 and pair.private.parent.stat().st_mode & 0o777 == 0o700
    assert keys.read_pair(tmp_path / "keys", "client_ed25519") == pair and "PRIVATE" not in repr(pair)


def test_an_existing_key_is_never_overwritten(tmp_path: Path) -> None:
    before = keys.host_pair(tmp_path).private.read_bytes()
    with pytest.raises(FileExistsError):
        keys.host_pair(tmp_path)
    assert (tmp_path / "host_ed25519").read_bytes() == before


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed: fingerprints were not compared with its own")
def test_ssh_keygen_agrees(tmp_path: Path) -> None:
    pair = keys.client_pair(tmp_path)
    said = subprocess.run(["ssh-keygen", "-lf", str(pair.private)], capture_output=True, text=True, check=True).stdout
    assert said.split()[1] == pair.fingerprint
    public = subprocess.run(["ssh-keygen", "-y", "-f", str(pair.private)], capture_output=True, text=True, check=True).stdout
    assert keys.public_line(public) == pair.public


@pytest.mark.parametrize(
    "text", ["", "ssh-ed25519", ED + "\n" + OTHER, "ssh-rsa " + ED.split()[1], "ssh-ed25519 !!!!", "ssh-ed25519 AAAA", "x y"]
)
def test_what_is_not_exactly_one_key_is_refused(text: str) -> None:
    with pytest.raises(RefusedError):
        keys.public_line(text)


def hashed(name: str) -> str:
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("text", "host", "port", "found"),
    [
        (f"box {ED} me\n", "box", 22, ED),
        (f"# a note\n\nbox,10.0.0.1 {ED}\n", "10.0.0.1", 22, ED),
        (f"[box]:2222 {ED}\n", "box", 2222, ED),
        (f"box {ED}\n", "box", 2222, None),
        (f"{hashed('box')} {ED}\n", "box", 22, ED),
        (f"{hashed('[box]:2222')} {ED}\n", "box", 2222, ED),
        (f"{hashed('box')} {ED}\n", "fox", 22, None),
        (f"box ssh-ed25519 broken\nbox {ED}\n", "box", 22, ED),
        (f"@cert-authority box {ED}\n", "box", 22, None),
        ("|1|x\n|1|é|é ssh-ed25519 AAAA\n", "box", 22, None),
    ],
)
def test_known_hosts_is_read_as_ssh_reads_it(text: str, host: str, port: int, found: str | None) -> None:
    assert find_host_key(text, host, port) == found


def test_a_revoked_key_is_an_error() -> None:
    with pytest.raises(HostKeyError, match="revoked"):
        find_host_key(f"box {ED}\n@revoked box {ED}\n", "box", 22)


def test_an_unknown_key_is_shown_and_not_used(tmp_path: Path) -> None:
    with in_process(tmp_path) as sshd:
        assert scan_host_key("127.0.0.1", sshd.port) == sshd.host_key
        with pytest.raises(RefusedError) as e:
            host_key_or_refuse("127.0.0.1", sshd.port, user="me", path=tmp_path / "none")
        assert keys.fingerprint(sshd.host_key) in e.value.why and f"ssh -p {sshd.port} me@127.0.0.1 true" in e.value.next
        (tmp_path / "known").write_text(f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n")
        assert host_key_or_refuse("127.0.0.1", sshd.port, user="me", path=tmp_path / "known") == sshd.host_key
        with pytest.raises(RefusedError, match="does not show one"):
            host_key_or_refuse("127.0.0.1", 1, path=tmp_path / "none")
        assert known_host_key("elsewhere", 22, tmp_path / "known") is None
        assert sshd.auth_messages == 0
