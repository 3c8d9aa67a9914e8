"""The tunnel, to a real streaming server, through a small SSH server and through OpenSSH."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from provisioner.errors import HostError, HostKeyError
from provisioner.remote import keys, tunnel
from tests.remote.sse import streaming
from tests.remote.sshd import SSHD, Cable, Sshd, in_process, openssh


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with streaming(events=5) as port:
        yield port


def get(port: int, path: str = "/stream") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def listening(port: int) -> list[str]:
    """The addresses that a port is listened on, as the kernel says."""
    found = []
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(name).read_text().splitlines()[1:] if Path(name).exists() else []:
            _, local, _, state = line.split()[:4]
            if state == "0A" and int(local.split(":")[1], 16) == port:
                found.append(local.split(":")[0])
    return found


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except OSError:
        return True
    return False


def test_a_stream_comes_through_whole(sshd: Sshd, server: int) -> None:
    with tunnel.open(*sshd.args, **sshd.keys, remote_port=server) as way:
        assert way.url == f"http://127.0.0.1:{way.local_port}"
        status, body = get(way.local_port)
        assert status == 200 and [line.split()[1] for line in body.splitlines() if line] == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc/net/tcp")
def test_only_this_computer_can_reach_the_listener(sshd: Sshd, server: int) -> None:
    with tunnel.open(*sshd.args, **sshd.keys, remote_port=server) as way:
        assert listening(way.local_port) == ["0100007F"]


def test_after_close_nothing_listens_and_no_connection_is_left(sshd: Sshd, server: int) -> None:
    with tunnel.open(*sshd.args, **sshd.keys, remote_port=server) as way:
        port = way.local_port
        assert not refused(port)
        idle = socket.create_connection(("127.0.0.1", port), 2)
        time.sleep(0.05)
        began = time.monotonic()
        way.close()
        assert time.monotonic() - began < tunnel.CLOSE_S + 5
        assert refused(port) and listening(port) == []
        idle.settimeout(8)
        assert idle.recv(1) == b""
        way.close()


def test_a_burst_of_connections_is_not_reset(real: Sshd, server: int) -> None:
    answers: list[int] = []
    with tunnel.open(*real.args, **real.keys, remote_port=server) as way:
        threads = [threading.Thread(target=lambda: answers.append(get(way.local_port)[0])) for _ in range(48)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [200] * 48


def test_alive_is_an_answer_and_nothing_else(small: Sshd, server: int) -> None:
    with tunnel.open(*small.args, **small.keys, remote_port=server) as way:
        assert way.alive("/health") and way.status("/broken") == 503 and not way.alive("/broken")
    with tunnel.open(*small.args, **small.keys, remote_port=1) as way:
        assert not way.alive("/health") and way.status("/health", timeout=1) is None


def test_a_server_that_dribbles_its_answer_is_not_alive(small: Sshd) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def dribble() -> None:
        sock, _ = listener.accept()
        with contextlib.suppress(OSError):
            while True:
                sock.sendall(b"H")
                time.sleep(0.1)

    threading.Thread(target=dribble, daemon=True).start()
    with tunnel.open(*small.args, **small.keys, remote_port=listener.getsockname()[1]) as way:
        began = time.monotonic()
        assert not way.alive("/health", timeout=0.3)
        assert time.monotonic() - began < 10
    listener.close()


@pytest.mark.parametrize("path", ["health", "/a b", "/a\r\nX: y", "", "/é"])
def test_a_path_that_could_be_more_than_a_path_is_refused(small: Sshd, server: int, path: str) -> None:
    with tunnel.open(*small.args, **small.keys, remote_port=server) as way, pytest.raises(ValueError):
        way.alive(path)


def test_a_half_open_tunnel_is_noticed_and_closes_in_time(small: Sshd, server: int) -> None:
    cable = Cable(small.port)
    with tunnel.open(*small.args, **small.keys, remote_port=server, route=cable.route, keepalive=0.1) as way:
        port = way.local_port
        assert way.alive()
        cable.cut.set()
        assert not way.alive(timeout=0.3)
        began = time.monotonic()
    assert time.monotonic() - began < tunnel.CLOSE_S + 5 and refused(port)
    cable.close()


@pytest.mark.parametrize("kind", ["same type", "other type"])
def test_a_wrong_host_key_opens_nothing_and_hears_nothing(tmp_path: Path, kind: str) -> None:
    key = paramiko.ECDSAKey.generate() if kind == "other type" else None
    pinned = keys.make_pair(tmp_path, "pinned").public
    with in_process(tmp_path, key=key) as sshd:
        with pytest.raises(HostKeyError), tunnel.open(*sshd.args, client_key=sshd.client.private, host_key=pinned, remote_port=1):
            pass
        assert sshd.auth_messages == 0


def test_only_the_given_key_is_offered(tmp_path: Path, server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ssh").mkdir()
    for name in ("id_ed25519", "id_rsa"):
        keys.make_pair(tmp_path / ".ssh", name)
    (tmp_path / ".ssh/config").write_text("Host *\n  User somebody\n  Compression yes\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(paramiko, "Agent", lambda: pytest.fail("the agent was asked"))
    with in_process(tmp_path / "sshd") as sshd, tunnel.open(*sshd.args, **sshd.keys, remote_port=server) as way:
        assert len(way._forwarder.ssh_pkeys) == 1 and way._forwarder.ssh_username == sshd.user
        assert sshd.seen.count(50) == 1 and not way._forwarder.compression
        assert way._forwarder.ssh_host_key.asbytes() == keys.blob(sshd.host_key) and way._forwarder.ssh_password is None


def test_the_connection_carries_a_session_and_no_socket_waits_to_send(real: Sshd, server: int) -> None:
    with tunnel.open(*real.args, **real.keys, remote_port=server) as way:
        assert way.alive() and not way._session.status_event.wait(0.2) and not way._session.closed
        for sock in (way._link.transport.sock, way._forwarder.listeners[0].socket):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


@pytest.mark.skipif(SSHD is None, reason="OpenSSH's sshd is not installed: a machine that forbids forwarding was not tried")
def test_a_machine_that_forbids_forwarding_is_not_alive(tmp_path: Path, server: int) -> None:
    with openssh(tmp_path, extra="DisableForwarding yes\n") as sshd, tunnel.open(*sshd.args, **sshd.keys, remote_port=server) as way:
        assert not way.alive(timeout=30)


def test_nothing_is_written_to_the_terminal(real: Sshd, capfd: pytest.CaptureFixture[str]) -> None:
    with tunnel.open(*real.args, **real.keys, remote_port=1) as way:
        assert way.status("/health", timeout=30) is None
    assert capfd.readouterr() == ("", "")


def test_nobody_to_tunnel_to_is_an_error_that_says_so(tmp_path: Path) -> None:
    pair = keys.make_pair(tmp_path, "client")
    with (
        pytest.raises(HostError, match="cannot reach"),
        tunnel.open("127.0.0.1", 1, "me", client_key=pair.private, host_key=pair.public, remote_port=1),
    ):
        pass
