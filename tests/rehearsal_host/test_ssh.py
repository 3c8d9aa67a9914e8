"""A machine's SSH: what a client can tell about it, with paramiko and with OpenSSH's own client."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import paramiko
import pytest

from provisioner.rehearsal.host_ssh import authorized, new_host_key

from .conftest import CLIENT, HOST, HOST_KEY, Box, alive, answers, key_of, until

Start = Callable[..., Box]


def test_a_command_runs_in_the_home_of_ubuntu_with_the_shims_first_on_its_path(box: Box) -> None:
    home, path, first, user = box.out('pwd; echo "$PATH"; command -v python3; echo "$USER $GPULEASE_SIMULATED"').splitlines()
    assert home == f"{box.root}/home/ubuntu"
    assert path.startswith(f"{box.root}/bin:") and path.endswith(":/usr/local/bin:/usr/bin:/bin")
    assert (first, user) == (f"{box.root}/bin/python3", "ubuntu 1")


def test_stdin_stdout_stderr_and_the_exit_status_arrive_apart(box: Box) -> None:
    assert box.run("cat; echo wrong >&2; exit 7", b"given\n") == (7, "given\n", "wrong\n")


def test_a_megabyte_goes_through_unchanged(box: Box) -> None:
    data = bytes(range(256)) * 4096
    given, out, _ = box.client.exec_command("cat")
    threading.Thread(target=lambda: (given.write(data), given.channel.shutdown_write()), daemon=True).start()
    assert out.read() == data


def test_a_command_killed_by_a_signal_is_reported_as_a_signal_not_as_a_status(box: Box) -> None:
    assert box.run("kill -9 $$")[0] == -1


def test_twelve_channels_work_at_once(box: Box) -> None:
    # Each waits for all the others: one after the other they would wait for ever.
    meet = "mkdir -p twelve; touch twelve/{n}; while [ $(ls twelve | wc -l) -lt 12 ]; do sleep 0.02; done; echo {n}"
    opened = [box.client.exec_command(meet.format(n=n)) for n in range(12)]
    assert [out.read().decode().strip() for _, out, _ in opened] == [str(n) for n in range(12)]


def test_a_channel_that_waits_for_its_command_is_kept_while_others_come_and_go(box: Box) -> None:
    transport = box.client.get_transport()
    assert transport
    waiting = [transport.open_session(timeout=30) for _ in range(8)]
    assert box.out("echo between") == "between"
    for channel in waiting:
        channel.exec_command("echo late")
    assert [c.makefile("rb").read() for c in waiting] == [b"late\n"] * 8


def test_a_background_child_that_holds_the_output_keeps_the_channel_open_as_sshd_does(box: Box) -> None:
    _, out, _ = box.client.exec_command("sleep 2 & exit 3")
    assert out.channel.recv_exit_status() == 3
    assert not out.channel.eof_received
    out.read()
    assert out.channel.eof_received


def test_closing_a_channel_leaves_the_process_and_closes_its_pipes(box: Box) -> None:
    given, out, _ = box.client.exec_command("echo $$; exec cat >/dev/null")
    cat = int(out.readline())
    _, out2, _ = box.client.exec_command("echo $$; exec sleep 30")
    sleeper = int(out2.readline())
    given.channel.close()
    out2.channel.close()
    until(lambda: not alive(cat))  # its stdin ended
    assert alive(sleeper)
    box.run(f"kill {sleeper}")


def test_a_process_that_has_ended_is_reaped_at_once(box: Box) -> None:
    pid = box.out("sleep 30 >/dev/null 2>&1 </dev/null & echo $!")
    assert box.run(f"kill -9 {pid}; sleep 0.1; kill -0 {pid} 2>/dev/null")[0] != 0


def test_only_the_key_of_the_user_data_opens_and_only_for_ubuntu(box: Box) -> None:
    with pytest.raises(paramiko.AuthenticationException):
        box.connect(key_of(new_host_key()))
    with pytest.raises(paramiko.AuthenticationException):
        box.connect(user="root")
    transport = paramiko.Transport(("127.0.0.1", box.port))
    try:
        transport.start_client(timeout=30)
        with pytest.raises(paramiko.BadAuthenticationType) as refused:
            transport.auth_password("ubuntu", "ubuntu")
        assert refused.value.allowed_types == ["publickey"]
        assert transport.get_remote_server_key() == HOST_KEY
        assert "SIMULATED" in transport.remote_version
    finally:
        transport.close()


def test_a_wrong_host_key_is_what_the_fault_gives(start: Start) -> None:
    with pytest.raises(paramiko.BadHostKeyException):
        start(faults={"wrong_host_key": True}).connect()


def test_a_rotated_host_key_is_served_after_sshd_was_restarted(box: Box) -> None:
    fresh = new_host_key()
    rotate = 'cat > "$GPULEASE_ROOT/etc/ssh/ssh_host_ed25519_key" && sudo -n systemctl restart ssh'
    assert box.run(rotate, fresh.encode())[0] == 0
    transport = paramiko.Transport(("127.0.0.1", box.port))
    transport.start_client(timeout=30)
    assert transport.get_remote_server_key() == key_of(fresh)
    transport.close()
    assert box.run(rotate, HOST.encode())[0] == 0


def test_files_go_over_sftp_into_the_machines_own_folder(box: Box) -> None:
    sftp = box.client.open_sftp()
    with sftp.open("/etc/motd", "wb") as f:
        f.write(b"x" * 100_000)
    sftp.chmod("/etc/motd", 0o640)
    assert (box.root / "etc/motd").read_bytes() == b"x" * 100_000
    assert sftp.stat("/etc/motd").st_mode & 0o777 == 0o640  # type: ignore[operator]
    assert sftp.normalize(".") == f"{box.root}/home/ubuntu"
    with sftp.open("notes", "wb") as f:
        f.write(b"hers")
    sftp.posix_rename("notes", "kept")
    assert box.out("cat kept") == "hers"
    sftp.mkdir("folder")
    assert "folder" in sftp.listdir(".")
    with sftp.open("../../../../../outside", "wb") as f:
        f.write(b"")
    with pytest.raises(FileNotFoundError):
        sftp.stat("/no/such/file")
    sftp.close()


def test_a_tunnel_reaches_loopback_and_nothing_else(box: Box) -> None:
    transport = box.client.get_transport()
    assert transport
    port = box.out("echo ${SSH_CONNECTION##* }")
    assert port == "22"
    for target in (("192.0.2.1", 80), ("127.0.0.1", 1)):
        with pytest.raises(paramiko.ChannelException):
            transport.open_channel("direct-tcpip", target, ("127.0.0.1", 1), timeout=30)


def test_a_keepalive_is_answered(box: Box) -> None:
    transport = box.client.get_transport()
    assert transport
    transport.global_request("keepalive@openssh.com", wait=True)  # refused, as by sshd, which is an answer
    assert transport.is_active()


@pytest.mark.skipif(not shutil.which("ssh"), reason="there is no ssh here")
def test_the_real_ssh_client_runs_a_command_and_a_shell(box: Box, tmp_path: Path) -> None:
    key, known = tmp_path / "key", tmp_path / "known"
    key.write_text(CLIENT)
    key.chmod(0o600)
    known.write_text(f"[127.0.0.1]:{box.port} ssh-ed25519 {HOST_KEY.get_base64()}\n")
    options = [
        "-F",
        "none",
        "-i",
        str(key),
        "-o",
        f"UserKnownHostsFile={known}",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "IdentitiesOnly=yes",
    ]
    ssh = ["ssh", *options, "-o", "BatchMode=yes", "-p", str(box.port), "ubuntu@127.0.0.1"]
    env = {k: v for k, v in os.environ.items() if k != "SSH_AUTH_SOCK"}
    done = subprocess.run([*ssh, "cat; exit 9"], input=b"through ssh", capture_output=True, env=env, timeout=60)
    assert (done.returncode, done.stdout) == (9, b"through ssh")
    done = subprocess.run([*ssh, "-T"], input=b"echo shell $((6*7))\n", capture_output=True, env=env, timeout=60)
    assert done.stdout.strip() == b"shell 42"


def test_a_scheduled_shutdown_refuses_new_logins_in_its_last_five_minutes(box: Box) -> None:
    assert "Shutdown scheduled for" in box.run("sudo shutdown -h +4")[2]
    with pytest.raises(paramiko.AuthenticationException):
        box.connect()
    box.out("sudo shutdown -c")
    box.connect()


def test_ssh_that_is_cut_comes_back_after_its_time(start: Start) -> None:
    box = start(faults={"drop_ssh_after_s": 0.2, "drop_ssh_for_s": 0.3})
    transport = box.connect().get_transport()
    until(lambda: not transport.is_active())  # type: ignore[union-attr]
    with pytest.raises((OSError, paramiko.SSHException)):
        box.connect()
    until(lambda: answers(box), 3)
    assert box.connect().get_transport().is_active()  # type: ignore[union-attr]


def test_options_and_comments_in_authorized_keys_are_not_keys() -> None:
    text = 'command="x y" ssh-ed25519 AAAA me\n# ssh-rsa BBBB\necdsa-sha2-nistp256 CCCC\n\n'
    assert authorized(text) == {"AAAA", "CCCC"}
