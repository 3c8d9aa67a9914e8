"""Commands and files over SSH, against a small server in this process and against OpenSSH."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from provisioner.errors import HostError, HostKeyError
from provisioner.remote import keys, ssh
from provisioner.remote.link import Target, open_link
from provisioner.scope import Cancelled, Scope
from tests.remote.sshd import SSHD, Cable, Sshd, in_process, openssh

SEEDS = (
    "$(touch {m})",
    "`touch {m}`",
    "'; touch {m}; '",
    '"; touch {m}; "',
    "\n touch {m}\n",
    "; touch {m}",
    "| touch {m}",
    "&& touch {m}",
    "\\'; touch {m} #",
    "$((`touch {m}`))",
)
FRAMES = (
    "{}",
    "-o{}",
    "--config={}",
    "-oProxyCommand={}",
    "a{}b",
    "{} ",
    " {}",
    "'{}'",
    '"{}"',
    "${{{}}}",
    "$'{}'",
    "\\{}",
    "~{}",
    "*{}",
    "!{}",
    "\t{}",
    "é{}",
    "{}\\",
    "#{}",
    "{}\r",
)
HOSTILE = [frame.format(seed) for seed in SEEDS for frame in FRAMES]


@pytest.fixture
def host(sshd: Sshd) -> Iterator[ssh.SshHost]:
    with ssh.connect(*sshd.args, **sshd.keys) as open_host:
        yield open_host


@pytest.fixture
def quick(small: Sshd) -> Iterator[ssh.SshHost]:
    with ssh.connect(*small.args, **small.keys) as open_host:
        yield open_host


def test_a_command_gives_its_output_and_its_exit_code(host: ssh.SshHost) -> None:
    result = host.run("echo out; echo err >&2; exit 3", check=False)
    assert (result.exit, result.stdout, result.stderr) == (3, "out\n", "err\n") and result.seconds > 0


def test_a_failing_command_is_an_error_with_its_last_words_cleaned(host: ssh.SshHost) -> None:
    with pytest.raises(HostError, match="exit code 7") as e:
        host.run("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do printf 'line %s \\033[2J\\n' $i >&2; done; exit 7")
    assert e.value.why.splitlines() == [f"line {i}" for i in range(3, 13)] and e.value.next


def test_stdin_arrives_whole_and_comes_back_whole(host: ssh.SshHost) -> None:
    data = b"".join(b"%d\n" % i for i in range(400_000))
    assert host.run("cat", stdin=data).stdout.encode() == data


def test_a_command_that_reads_no_stdin_still_ends(host: ssh.SshHost) -> None:
    assert host.run("echo done", stdin=b"x" * 5_000_000).stdout == "done\n"


def test_lines_are_handed_over_as_they_come_and_the_last_one_needs_no_newline(host: ssh.SshHost) -> None:
    arrived: list[tuple[str, float]] = []
    result = host.stream(
        'echo "$a"; sleep 0.2; printf last', lambda line: arrived.append((line, time.monotonic())), values={"a": "it's first"}
    )
    assert [line for line, _ in arrived] == ["it's first", "last"] and result.stdout == ""
    assert arrived[1][1] - arrived[0][1] > 0.1


def test_a_file_goes_there_and_back_with_its_mode(host: ssh.SshHost, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4000
    path = tmp_path / "a folder" / "-it's $(odd)\n"
    host.put(data, str(path), mode=0o640)
    assert path.read_bytes() == data and path.stat().st_mode & 0o777 == 0o640 and path.parent.stat().st_mode & 0o777 == 0o700
    assert host.get(str(path)) == data
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_hostile_values_reach_a_program_and_never_a_shell(small: Sshd, quick: ssh.SshHost, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    hostile = [text.replace("{m}", str(marker)) for text in HOSTILE]
    assert len(set(hostile)) == 200
    before = sorted(small.home.rglob("*"))
    for batch in range(0, 200, 20):
        values = {f"v{n}": value for n, value in enumerate(hostile[batch : batch + 20])}
        script = "; ".join(f'printf "%s\\0" "${name}"' for name in values)
        assert quick.run(script, values=values).stdout.split("\0")[:-1] == list(values.values())
    assert not marker.exists() and sorted(small.home.rglob("*")) == before


def test_hostile_values_are_harmless_on_openssh_too(real: Sshd, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    values = {f"v{n}": text.replace("{m}", str(marker)) for n, text in enumerate(HOSTILE)}
    with ssh.connect(*real.args, **real.keys) as host:
        script = "; ".join(f'printf "%s\\0" "${name}"' for name in values)
        assert host.run(script, values=values).stdout.split("\0")[:-1] == list(values.values())
    assert not marker.exists()


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_a_value_that_no_program_could_be_given_is_refused(value: str) -> None:
    with pytest.raises(HostError, match="the value of v holds"):
        ssh.command_line("true", {"v": value})


@pytest.mark.parametrize("name", ["PATH", "a-b", "a b", "1a", "", "a;b", "a\n"])
def test_a_name_that_is_not_ours_is_a_bug(name: str) -> None:
    with pytest.raises(ValueError):
        ssh.command_line("true", {name: "x"})


def test_a_command_that_is_too_long_is_refused_with_both_numbers() -> None:
    with pytest.raises(HostError, match="at most 65536"):
        ssh.command_line("true", {"v": "x" * 70_000})


def test_a_timeout_ends_the_wait_and_the_command_and_says_what_was_running(small: Sshd, quick: ssh.SshHost) -> None:
    before = small.signals
    with pytest.raises(HostError, match=r"no end after 0.2 s: sleep 30") as e:
        quick.run("sleep 30 # and more", timeout=0.2)
    assert e.value.why and e.value.next
    assert quick.run("echo still here").stdout == "still here\n"
    assert small.signals == before + 1


def test_endless_output_is_cut_and_the_end_is_still_seen(quick: ssh.SshHost) -> None:
    quick.output_limit = 1000
    result = quick.run("head -c 300000 /dev/zero | tr '\\0' x; head -c 5000 /dev/zero | tr '\\0' e >&2; exit 4", check=False)
    assert result.exit == 4
    assert result.stdout == "x" * 1000 + "\n[cut here: 299000 more bytes]"
    assert result.stderr.startswith("e" * 1000 + "\n[cut here: 4000")


def test_a_line_without_an_end_is_cut(quick: ssh.SshHost) -> None:
    quick.line_limit = 100
    lines: list[str] = []
    quick.stream("head -c 5000 /dev/zero | tr '\\0' x; echo; echo next", lines.append)
    assert lines == ["x" * 100 + " [line cut here: 4900 more bytes]", "next"]


def test_output_that_is_not_text_does_not_break_anything(quick: ssh.SshHost) -> None:
    assert quick.run("printf 'a\\377b'").stdout == "a\ufffdb"


def test_more_than_the_limit_is_never_read(quick: ssh.SshHost, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 1001)
    with pytest.raises(HostError, match="larger than 1000 bytes"):
        quick.get(str(tmp_path / "big"), limit=1000)
    assert len(quick.get(str(tmp_path / "big"), limit=1001)) == 1001


@pytest.mark.parametrize("name", ["nowhere", ".", "pipe"])
def test_what_is_not_a_file_is_not_read(quick: ssh.SshHost, tmp_path: Path, name: str) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HostError, match="exit code 24"):
        quick.get(str(tmp_path / name))


def test_a_file_that_cannot_be_written_leaves_the_old_one(quick: ssh.SshHost, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(HostError, match="exit code 21"):
        quick.put(b"x", str(tmp_path / "folder"))
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_file_that_did_not_arrive_whole_never_gets_its_name(quick: ssh.SshHost, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    values = {"path": str(tmp_path / "file"), "mode": "600", "size": "9"}
    assert quick.run(ssh._PUT, values=values, stdin=b"12345", check=False).exit == 23  # as when the connection is cut
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]


def test_a_background_process_that_keeps_the_output_open_does_not_keep_us(quick: ssh.SshHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "LINGER_S", 0.3)
    # Only OpenSSH reports an exit code while the output is still open; the small server ends by itself here.
    assert quick.run("sleep 0.5 & echo started", timeout=5).stdout == "started\n"


@pytest.mark.skipif(SSHD is None, reason="needs OpenSSH's sshd")
def test_where_a_login_begins_does_not_matter_files_are_put_and_found_at_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with openssh(tmp_path / "sshd", extra=f"SetEnv HOME={home}\n") as sshd, ssh.connect(*sshd.args, **sshd.keys) as host:
        host.put(b"secret", "folder/file")
        assert (home / "folder/file").read_bytes() == b"secret" == host.get("folder/file")
        assert host.run("pwd").stdout.strip() == str(home) == host.run('echo "$HOME"').stdout.strip()


def test_a_background_process_does_not_keep_us_on_openssh(real: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "LINGER_S", 0.2)
    with ssh.connect(*real.args, **real.keys) as host:
        result = host.run("sleep 40 & echo started; echo $! >&2", timeout=30)  # an error, were it waited for
        host.run('kill "$pid"', values={"pid": result.stderr.strip()})
    assert result.stdout == "started\n"


def test_several_threads_may_use_one_host(host: ssh.SshHost) -> None:
    said: list[str] = []
    threads = [threading.Thread(target=lambda n=n: said.append(host.run('echo "$n"', values={"n": str(n)}).stdout)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == [f"{n}\n" for n in range(6)]


def test_a_free_port_is_one_that_can_be_bound(host: ssh.SshHost) -> None:
    assert 1024 <= ssh.free_port(host) < 65536


def test_renewing_touches_the_lease_file(quick: ssh.SshHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPULEASE_ROOT", str(tmp_path))
    (tmp_path / "run/gpulease").mkdir(parents=True)
    ssh.renew(quick)
    assert (tmp_path / "run/gpulease/lease").exists()


def test_a_wrong_key_of_the_same_type_gets_not_one_byte_of_authentication(tmp_path: Path) -> None:
    with in_process(tmp_path) as sshd:
        other = keys.make_pair(tmp_path, "other").public
        with pytest.raises(HostKeyError) as e, ssh.connect(*sshd.args, client_key=sshd.client.private, host_key=other):
            pass
        assert keys.fingerprint(other) in e.value.why and keys.fingerprint(sshd.host_key) in e.value.why
        assert sshd.auth_messages == 0 and 30 in sshd.seen  # the key exchange, and nothing after it


def test_a_wrong_key_of_another_type_gets_not_one_byte_of_authentication(tmp_path: Path) -> None:
    with in_process(tmp_path, key=paramiko.ECDSAKey.generate()) as sshd:
        pinned = keys.make_pair(tmp_path, "pinned").public
        with pytest.raises(HostKeyError) as e, ssh.connect(*sshd.args, client_key=sshd.client.private, host_key=pinned):
            pass
        assert keys.fingerprint(pinned) in e.value.why and keys.fingerprint(sshd.host_key) in e.value.why
        assert sshd.auth_messages == 0


@pytest.mark.skipif(SSHD is None, reason="OpenSSH's sshd is not installed: wrong keys were not tried against it")
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_openssh_with_a_wrong_key_never_hears_who_we_are(tmp_path: Path, kind: str) -> None:
    with openssh(tmp_path / "sshd", host_type=kind) as sshd:
        with (
            pytest.raises(HostKeyError),
            ssh.connect(*sshd.args, client_key=sshd.client.private, host_key=keys.make_pair(tmp_path, "other").public),
        ):
            pass
        log = sshd.log.read_text() if sshd.log else ""
        assert "Connection from" in log and "publickey" not in log and sshd.user not in log


@pytest.mark.skipif(SSHD is None, reason="OpenSSH's sshd is not installed: its RSA and ECDSA keys were not tried")
@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_a_pinned_key_of_any_usual_type_is_accepted(tmp_path: Path, kind: str) -> None:
    with openssh(tmp_path, host_type=kind) as sshd, ssh.connect(*sshd.args, **sshd.keys) as host:
        assert host.run("echo in").stdout == "in\n"


def test_exactly_one_key_is_offered_whatever_the_user_has(real: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ssh").mkdir()
    keys.make_pair(tmp_path / ".ssh", "id_ed25519")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    stranger = keys.make_pair(tmp_path, "stranger")
    assert real.log is not None
    before = len(real.log.read_text())
    with (
        pytest.raises(HostError, match="does not let us in") as e,
        ssh.connect(*real.args, client_key=stranger.private, host_key=real.host_key),
    ):
        pass
    assert stranger.fingerprint in e.value.why and not isinstance(e.value, HostKeyError)
    time.sleep(0.1)
    assert real.log.read_text()[before:].count("Failed publickey") == 1


def test_nobody_there_is_an_error_that_says_so() -> None:
    key = paramiko.PKey.from_type_string("ssh-ed25519", keys.blob(PUBLIC))
    with (
        pytest.raises(HostError, match=r"cannot reach me@127\.0\.0\.1:1") as e,
        ssh.connect("127.0.0.1", 1, "me", client_key=key, host_key=PUBLIC),
    ):
        pass
    assert "refused" in e.value.why.lower()


PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHaxnXuRxMClnp4lxGASOoU/lXXDtOd2Zu7+v7rJC1Om"


def test_a_key_with_a_passphrase_is_refused_with_a_way_out(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    text = Ed25519PrivateKey.generate().private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.BestAvailableEncryption(b"x"))
    (tmp_path / "locked").write_bytes(text)
    for path in (tmp_path / "locked", tmp_path / "nowhere"):
        with (
            pytest.raises(HostError, match="cannot use the client key"),
            ssh.connect("127.0.0.1", 1, "me", client_key=path, host_key=PUBLIC),
        ):
            pass


def test_a_booting_machine_is_asked_again_until_it_answers(tmp_path: Path) -> None:
    naps: list[float] = []
    with in_process(tmp_path) as sshd:
        ports = [1, 1, sshd.port]

        def sleep(seconds: float) -> None:
            if seconds:
                naps.append(seconds)

        def route(address: str, port: int) -> tuple[str, int]:
            return address, ports.pop(0)

        with ssh.wait_for_ssh("127.0.0.1", 22, sshd.user, **sshd.keys, within=60, route=route, sleep=sleep) as host:
            assert host.run("echo up").stdout == "up\n"
    assert len(naps) == 2


def test_waiting_for_a_machine_that_never_comes_ends(tmp_path: Path) -> None:
    pair = keys.make_pair(tmp_path, "client")
    with (
        pytest.raises(HostError, match="did not answer within"),
        ssh.wait_for_ssh("127.0.0.1", 1, "me", client_key=pair.private, host_key=PUBLIC, within=0.1, pause=0.05),
    ):
        pass


def test_waiting_stops_at_once_for_a_wrong_host_key(tmp_path: Path) -> None:
    with in_process(tmp_path) as sshd:
        with pytest.raises(HostKeyError), ssh.wait_for_ssh(*sshd.args, client_key=sshd.client.private, host_key=PUBLIC, within=60):
            pass
        assert sshd.auth_messages == 0


def test_a_machine_that_refuses_our_key_while_it_boots_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "LOGIN_GRACE_S", 0.2)
    with in_process(tmp_path, lets_in=False) as sshd:
        with pytest.raises(HostError, match="still refuses our key"), ssh.wait_for_ssh(*sshd.args, **sshd.keys, within=60, pause=0.1):
            pass
        assert sshd.seen.count(50) >= 2


def test_a_cancelled_scope_ends_the_wait_for_a_machine_and_a_running_command(small: Sshd) -> None:
    scope = Scope()
    with ssh.connect(*small.args, **small.keys, sleep=scope.sleep) as host:
        threading.Timer(0.2, scope.cancel, ["SIGINT"]).start()
        with pytest.raises(Cancelled):
            host.run("sleep 30", timeout=20)  # a HostError, were it not woken
    with pytest.raises(Cancelled), ssh.wait_for_ssh("127.0.0.1", 1, "me", **small.keys, within=60, sleep=scope.sleep):
        pass


@pytest.mark.parametrize("busy", [False, True], ids=["silent command", "blocked on sending"])
def test_a_connection_that_goes_dead_in_silence_is_reported(sshd: Sshd, busy: bool) -> None:
    cable = Cable(sshd.port)
    with ssh.connect(*sshd.args, **sshd.keys, route=cable.route, keepalive=0.1) as host:
        threading.Timer(0.15, cable.cut.set).start()
        with pytest.raises(HostError, match="connection lost") as e:
            host.run("cat > /dev/null; sleep 20" if busy else "sleep 20", stdin=b"x" * (100_000_000 if busy else 0), timeout=15)
        assert "keepalive" in e.value.why and not isinstance(e.value.__context__, TimeoutError)
        with pytest.raises(HostError, match="connection lost"):
            host.run("true")
        cable.cut.clear()
        host.reconnect()
        assert host.run("echo back").stdout == "back\n"
    cable.close()


def test_a_connection_the_other_side_closes_is_reported_at_once(tmp_path: Path) -> None:
    with in_process(tmp_path) as sshd:
        link = open_link(Target(*sshd.args, sshd.client.private, sshd.host_key))
        host = ssh.SshHost(link.target, link)
        threading.Timer(
            0.2, lambda: [t.close() for t in threading.enumerate() if isinstance(t, paramiko.Transport) and t.server_mode]
        ).start()
        with pytest.raises(HostError, match="connection lost"):
            host.run("sleep 20")
        host.close()


def test_a_quiet_but_living_connection_is_not_lost(small: Sshd) -> None:
    with ssh.connect(*small.args, **small.keys, keepalive=0.05) as host:
        assert host.run("sleep 0.8; echo alive").stdout == "alive\n"


def test_anything_that_comes_in_is_a_sign_of_life_and_only_silence_is_not(tmp_path: Path) -> None:
    with in_process(tmp_path) as sshd, ssh.connect(*sshd.args, **sshd.keys, keepalive=0.1) as host:
        sshd.deaf = True
        lines: list[str] = []
        with pytest.raises(HostError, match="connection lost"):
            host.stream("for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.08; done; sleep 20", lines.append, timeout=15)
        assert len(lines) == 8


def test_nagle_is_off_and_nothing_is_logged_to_the_terminal(real: Sshd, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import socket

    with ssh.connect(*real.args, **real.keys) as host:
        assert host._link.transport.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        assert host._link.transport.preferred_keys == ("ssh-ed25519",)
    with (
        pytest.raises(HostKeyError),
        ssh.connect(*real.args, client_key=real.client.private, host_key=keys.make_pair(tmp_path, "k").public),
    ):
        pass
    assert capfd.readouterr() == ("", "")
