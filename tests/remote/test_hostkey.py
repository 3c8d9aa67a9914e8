"""The key a machine was born with is worth nothing once it has made itself another."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from provisioner.errors import HostError, HostKeyError
from provisioner.remote import hostkey, keys, ssh, tunnel
from tests.remote.sshd import SSHD, Sshd, in_process, openssh

KEY = "etc/ssh/ssh_host_ed25519_key"


def tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n" + script)
    (folder / name).chmod(0o755)


@contextmanager
def stubborn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keygen: str = "", reload: str = "exit 0") -> Iterator[Sshd]:
    """A machine whose sshd goes on showing the key it has, whatever its tools do. Its root is a folder."""
    root = tmp_path / "root"
    (root / "etc/ssh").mkdir(parents=True)
    monkeypatch.setenv("GPULEASE_ROOT", str(root))
    with in_process(tmp_path / "sshd") as sshd:
        for name in ("sudo", "systemctl"):
            tool(sshd.home / "bin", name, 'shift; exec "$@"' if name == "sudo" else reload)
        if keygen:
            tool(sshd.home / "bin", "ssh-keygen", keygen)
        yield sshd


@pytest.fixture
def real_root(tmp_path: Path) -> Iterator[tuple[Sshd, Path]]:
    """OpenSSH's own server, with its host key where a machine has it, and a reload that is a real SIGHUP."""
    if SSHD is None:
        pytest.skip("OpenSSH's sshd is not installed: nothing was tested against it (apt-get install openssh-server)")
    root, tools = tmp_path / "root", tmp_path / "bin"
    tool(tools, "sudo", 'shift; exec "$@"')
    extra = f"SetEnv GPULEASE_ROOT={root} PATH={tools}:{os.environ['PATH']}\n"
    with openssh(tmp_path / "sshd", extra=extra, host=root / KEY) as sshd:
        tool(tools, "systemctl", f'[ "$1 $2" = "reload ssh.service" ] && exec kill -HUP {sshd.pid}')
        yield sshd, root


def test_openssh_shows_only_the_key_that_it_made_itself(real_root: tuple[Sshd, Path]) -> None:
    sshd, root = real_root
    injected = (root / KEY).read_text()
    with ssh.connect(*sshd.args, **sshd.keys) as host:
        fresh = hostkey.rotate(host, sshd.host_key)
        assert fresh != sshd.host_key and keys.key_type(fresh) == "ssh-ed25519"
        assert host.run("echo still here").stdout == "still here\n"
        host.reconnect()  # what comes later pins the new key too
        assert host.run("echo again").stdout == "again\n"
    with pytest.raises(HostKeyError, match="not the one we prepared"), ssh.connect(*sshd.args, **sshd.keys):
        pass
    new = {"client_key": sshd.client.private, "host_key": fresh}
    with ssh.connect(*sshd.args, **new), tunnel.open(*sshd.args, remote_port=9, **new):
        pass
    assert (root / KEY).read_text() != injected and (root / KEY).stat().st_mode & 0o777 == 0o600
    assert keys.public_line(subprocess.check_output(["ssh-keygen", "-y", "-f", str(root / KEY)], text=True)) == fresh
    assert sorted(path.name for path in (root / "etc/ssh").iterdir()) == ["ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"]
    assert "PRIVATE" not in repr(host) and (root / f"{KEY}.pub").read_text().split()[1] == fresh.split()[1]


def test_a_connection_that_was_open_before_the_rotation_goes_on(real_root: tuple[Sshd, Path]) -> None:
    sshd, _ = real_root
    with ssh.connect(*sshd.args, **sshd.keys) as other, ssh.connect(*sshd.args, **sshd.keys) as host:
        hostkey.rotate(host, sshd.host_key)
        assert other.run("echo unhurt").stdout == "unhurt\n"


needs_keygen = pytest.mark.skipif(
    subprocess.call(["sh", "-c", "command -v ssh-keygen"], stdout=subprocess.DEVNULL) != 0, reason="no ssh-keygen"
)


@needs_keygen
def test_a_machine_that_goes_on_showing_the_old_key_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stubborn(tmp_path, monkeypatch) as sshd, ssh.connect(*sshd.args, **sshd.keys) as host:
        with pytest.raises(HostError, match="does not show the host key that it made: SHA256:") as e:
            hostkey.rotate(host, sshd.host_key, within=0.5)
        assert "not the one we prepared" in e.value.why


@pytest.mark.parametrize(
    ("keygen", "reload", "words"),
    [
        ("exit 1", "exit 0", "a command ended with exit code 1"),
        ('for f; do :; done; : > "$f"; echo nonsense > "$f.pub"', "exit 0", "'nonsense', which is no public key"),
        ('for f; do :; done; : > "$f"; : > "$f.pub"', "exit 0", "'', which is no public key"),
        ('for f; do :; done; : > "$f"; cat "$HOLD" > "$f.pub"', "exit 0", "still has the key that came in its user-data"),
        ('for f; do :; done; : > "$f"; cat "$HOLD" > "$f.pub"', "exit 3", "a command ended with exit code 3"),
    ],
)
def test_a_rotation_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keygen: str, reload: str, words: str) -> None:
    monkeypatch.setenv("HOLD", str(tmp_path / "hold"))
    with stubborn(tmp_path, monkeypatch, keygen, reload) as sshd, ssh.connect(*sshd.args, **sshd.keys) as host:
        (tmp_path / "hold").write_text(sshd.host_key + "\n")
        with pytest.raises(HostError) as e:
            hostkey.rotate(host, sshd.host_key, within=0.5)
        assert words in f"{e.value.what} {e.value.why}"


def test_the_injected_private_key_leaves_the_lease_too(tmp_path: Path) -> None:
    born, fresh = keys.host_pair(tmp_path), keys.make_pair(tmp_path / "machine", "its own")
    hostkey.retire(tmp_path, fresh.public)
    assert (tmp_path / "host_ed25519.pub").read_text().strip() == fresh.public != born.public
    assert not born.private.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host_ed25519.pub", "machine"]
