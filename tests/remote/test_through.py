"""Through the user's own `aws` program: a small real one stands in for it, and dials what it is told to."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.errors import HostError, HostKeyError, RefusedError
from provisioner.remote import keys, ssh, through, tunnel
from tests.remote.sshd import Sshd, in_process
from tests.remote.test_hostkey import tool

NAME = "i-0123456789abcdef0.us-east-1"
AWS = """exec {python} -c '
import os, socket, sys, threading
if "--version" in sys.argv:
    print("aws-cli/{version} Python/3.12 Linux")
    raise SystemExit
open("{folder}/calls", "a").write(" ".join(sys.argv[1:]) + "\\n")
open("{folder}/pids", "a").write(str(os.getpid()) + "\\n")
if os.path.exists("{folder}/refuse"):
    sys.exit(open("{folder}/refuse").read())
far = socket.create_connection(("127.0.0.1", {port}))
def down():
    while data := far.recv(65536):
        os.write(1, data)
    os._exit(0)
threading.Thread(target=down, daemon=True).start()
while data := os.read(0, 65536):
    far.sendall(data)
' "$@"
"""


def install(folder: Path, port: int, version: str = "2.31.0") -> None:
    tool(folder, "aws", AWS.format(python=sys.executable, folder=folder, port=port, version=version))


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Sshd, Path]]:
    folder = tmp_path / "bin"
    with in_process(tmp_path / "sshd") as sshd:
        install(folder, sshd.port)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        yield sshd, folder


def ended(folder: Path) -> bool:
    pids = [int(pid) for pid in (folder / "pids").read_text().split()]
    for _ in range(500):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("reach", "words"),
    [
        (
            "endpoint",
            "ec2-instance-connect open-tunnel --instance-id i-0123456789abcdef0 --remote-port 22 --region us-east-1 --profile work",
        ),
        (
            "ssm",
            "ssm start-session --target i-0123456789abcdef0 --document-name AWS-StartSSHSession --parameters portNumber=22 "
            "--region us-east-1 --profile work",
        ),
    ],
)
def test_ssh_and_the_tunnel_go_through_a_program_each(aws: tuple[Sshd, Path], reach: str, words: str) -> None:
    sshd, folder = aws
    way = {**sshd.keys, "route": through.route(reach, "work")}
    with ssh.wait_for_ssh(NAME, 22, sshd.user, within=60.0, **way) as host:
        assert host.run("echo through").stdout == "through\n"
        host.put(b"x" * 300_000, "big")
        assert len(host.get("big")) == 300_000
        with tunnel.open(NAME, 22, sshd.user, remote_port=sshd.port, **way) as opened:
            assert opened.local_port
        assert host.run("echo still").stdout == "still\n"
    assert (folder / "calls").read_text().splitlines() == [words, words]
    assert ended(folder), "the programs went with their connections"


def test_another_machine_at_the_other_end_is_still_told_apart(aws: tuple[Sshd, Path], tmp_path: Path) -> None:
    sshd, folder = aws
    other = keys.make_pair(tmp_path / "other", "host").public
    way = {"client_key": sshd.client.private, "host_key": other, "route": through.route("endpoint", None)}
    with pytest.raises(HostKeyError, match="not the one we prepared"), ssh.connect(NAME, 22, sshd.user, **way):
        pass
    assert sshd.auth_messages == 0 and ended(folder)


def test_a_program_that_is_refused_ends_the_wait_at_once(aws: tuple[Sshd, Path]) -> None:
    sshd, folder = aws
    (folder / "refuse").write_text("An error occurred (AccessDeniedException) when calling the OpenTunnel operation")
    waiting = ssh.wait_for_ssh(NAME, 22, sshd.user, within=60.0, route=through.route("endpoint", None), **sshd.keys)
    with pytest.raises(HostError, match="the program that carries the connection was refused") as e, waiting:
        pass
    assert "AccessDeniedException" in e.value.why and "aws ec2-instance-connect open-tunnel" in e.value.next
    assert len((folder / "calls").read_text().splitlines()) == 1


def test_a_program_that_fails_while_a_machine_boots_is_asked_again(aws: tuple[Sshd, Path]) -> None:
    sshd, folder = aws
    (folder / "refuse").write_text("the instance is not in a running state")
    waiting = ssh.wait_for_ssh(NAME, 22, sshd.user, within=1.0, pause=0.1, route=through.route("endpoint", None), **sshd.keys)
    with pytest.raises(HostError, match="did not answer within") as e, waiting:
        pass
    assert "not in a running state" in e.value.why
    assert len((folder / "calls").read_text().splitlines()) > 1


def test_what_is_missing_here_is_said_before_anything_is_rented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(RefusedError, match="there is no aws program"):
        through.check("endpoint")
    install(folder, 1, version="1.32.0")
    with pytest.raises(RefusedError, match="not version 2") as e:
        through.check("endpoint")
    assert "aws-cli/1.32.0" in e.value.why
    install(folder, 1)
    through.check("endpoint")
    with pytest.raises(RefusedError, match="session-manager-plugin"):
        through.check("ssm")
    tool(folder, "session-manager-plugin", "exit 0\n")
    through.check("ssm")


@pytest.mark.parametrize("address", ["203.0.113.9", "i-0123456789abcdef0", "i-0123456789abcdef0.", "--help.us-east-1", "i-01234567.x;y"])
def test_only_a_machine_and_a_region_become_arguments(address: str) -> None:
    with pytest.raises(RefusedError):
        through.argv("endpoint", address, 22, None)
