"""How a machine begins and ends: cloud-init, timers that fire, power-off, and nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioner.errors import HostKeyError
from provisioner.rehearsal.host_cloudinit import BadUserData, parse_user_data, shellify
from provisioner.remote import hostkey, ssh
from provisioner.remote.bootstrap import armed
from provisioner.remote.bootstrap import user_data as real_user_data
from provisioner.secret import Secret

from .conftest import CLIENT_KEY, HOST, HOST_KEY, REPO, Box, alive, answers, until, user_data

Start = Callable[..., Box]
LINUX = sys.platform == "linux"

GUARDS = """\
root="${GPULEASE_ROOT:-}"
mkdir -p "$root/usr/local/lib/gpulease" "$root/run/gpulease"
printf '#!/bin/sh\\nsystemctl poweroff\\n' > "$root/usr/local/lib/gpulease/poweroff"
chmod 755 "$root/usr/local/lib/gpulease/poweroff"
cd "$root/etc/systemd/system"
no='[Unit]\\nDefaultDependencies=no'
printf "$no\\n[Service]\\nType=oneshot\\nExecStart=/usr/local/lib/gpulease/poweroff\\n" > gpulease-deadline.service
printf "$no\\n[Timer]\\n%b\\n[Install]\\nWantedBy=timers.target\\n" "$1" > gpulease-deadline.timer
systemctl daemon-reload
systemctl enable --now gpulease-deadline.timer
"""


def guarded(timer: str) -> bytes:
    return user_data(["sh", "-c", GUARDS, "sh", timer])


def strays(box: Box) -> list[int]:
    """Processes that were made to be hard to find; each must be dead when the machine is."""
    lines = [
        "sleep 300 >/dev/null 2>&1 </dev/null & echo $!",
        "python3 -c 'import os,time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\nprint(os.getpid(), flush=True)\n"
        "os.dup2(os.open(os.devnull, os.O_RDWR), 1); os.dup2(1, 2)\ntime.sleep(300)'",
        "trap '' TERM HUP; (trap '' TERM; exec sleep 300) >/dev/null 2>&1 </dev/null & echo $!",
    ]
    if LINUX:
        lines.append("env -i /bin/sh -c 'exec sleep 300' >/dev/null 2>&1 </dev/null & echo $!")
    found = [int(box.out(line)) for line in lines]
    time.sleep(0.05)
    assert all(alive(pid) for pid in found)
    return found


def test_a_timer_that_fires_powers_the_machine_off_with_exit_0_and_every_process_dead(start: Start) -> None:
    box = start(guarded("OnActiveSec=1h"))
    found = strays(box)
    timer = '"$GPULEASE_ROOT/etc/systemd/system/gpulease-deadline.timer"'
    box.out(f"sed s/1h/300ms/ {timer} > t && cp t {timer}; systemctl daemon-reload; systemctl restart gpulease-deadline.timer")
    assert box.wait() == 0
    assert not any(alive(pid) for pid in found)
    assert "gpulease-deadline.timer fired" in box.log()


def test_a_deadline_at_an_instant_fires_at_that_instant(start: Start) -> None:
    at = int(time.time()) + 3
    box = start(guarded(f"OnCalendar={time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(at))} UTC\\nAccuracySec=1s\\nPersistent=true"))
    assert box.out("systemctl show gpulease-deadline.timer -p NextElapseUSecRealtime --value --timestamp=unix") == f"@{at}"
    assert box.wait() == 0
    assert at <= time.time() < at + 2.5


def test_sigterm_takes_the_machine_away_with_all_that_ran_on_it(start: Start) -> None:
    box = start()
    found = strays(box)
    transport = box.client.get_transport()
    box.process.send_signal(signal.SIGTERM)
    assert box.wait() == 143
    assert not any(alive(pid) for pid in found)
    until(lambda: not transport.is_active())  # type: ignore[union-attr]


def test_the_end_of_stdin_means_that_the_cloud_died(start: Start) -> None:
    box = start()
    found = strays(box)
    box.process.stdin.close()  # type: ignore[union-attr]
    assert box.wait() == 129
    assert not any(alive(pid) for pid in found)


@pytest.mark.parametrize("command", ["sudo systemctl --no-block poweroff", "sudo shutdown -h now"])
def test_every_way_to_power_off_ends_the_machine(start: Start, command: str) -> None:
    box = start()
    box.client.exec_command(command)
    assert box.wait() == 0


def test_halt_does_not_power_off_an_ec2_instance(box: Box) -> None:
    assert "does not power off" in box.run("sudo halt")[2]
    assert box.out("echo still here") == "still here"


def test_a_reboot_keeps_the_port_and_the_disk_and_runs_bootcmd_again(start: Start) -> None:
    box = start(
        user_data('date >> "$GPULEASE_ROOT/root/boots"'),
    )
    boot = box.out('cat "$GPULEASE_ROOT/proc/sys/kernel/random/boot_id"; touch kept "$GPULEASE_ROOT/run/gone"').split()[0]
    old = box.client.get_transport()
    sleeper = int(box.out("sleep 300 >/dev/null 2>&1 </dev/null & echo $!"))
    box.client.exec_command("sudo reboot")
    until(lambda: not old.is_active())  # type: ignore[union-attr]
    until(lambda: answers(box))
    assert not alive(sleeper)
    assert box.out('wc -l < "$GPULEASE_ROOT/root/boots"; ls kept "$GPULEASE_ROOT/run/gone" 2>/dev/null || true').split() == ["2", "kept"]
    assert box.out('cat "$GPULEASE_ROOT/proc/sys/kernel/random/boot_id"') != boot


def test_a_host_key_of_its_own_survives_a_reboot(start: Start) -> None:
    box = start(user_data())
    pins = {"client_key": CLIENT_KEY, "host_key": f"ssh-ed25519 {HOST_KEY.get_base64()}"}
    with ssh.connect("127.0.0.1", box.port, "ubuntu", **pins) as host:
        fresh = hostkey.rotate(host, pins["host_key"])
        boot = (box.root / "proc/sys/kernel/random/boot_id").read_text()
        host.run("sudo reboot", check=False)
    until(lambda: (box.root / "proc/sys/kernel/random/boot_id").read_text() not in ("", boot), 20.0)  # until then the old one still answers
    with ssh.wait_for_ssh("127.0.0.1", box.port, "ubuntu", within=20.0, pause=0.1, **{**pins, "host_key": fresh}) as host:
        assert host.run("echo back").stdout == "back\n"
    with pytest.raises(HostKeyError), ssh.connect("127.0.0.1", box.port, "ubuntu", **pins):
        pass
    assert HOST not in (box.root / "etc/ssh/ssh_host_ed25519_key").read_text()


def test_a_deadline_that_passed_while_the_machine_rebooted_fires_when_it_is_back(start: Start) -> None:
    """Persistent=true and a stamp older than the deadline; without either it would never fire again."""
    box = start(user_data())
    box.run(GUARDS.replace("$1", "OnCalendar=2026-01-02 00:00:00 UTC\\nPersistent=true"))
    assert box.out("systemctl show gpulease-deadline.timer -p SubState --value") == "elapsed"  # past, and armed only now
    stamp = box.root / "var/lib/systemd/timers/stamp-gpulease-deadline.timer"
    os.utime(stamp, (1767225600, 1767225600))  # as if armed on 2026-01-01
    box.client.exec_command("sudo reboot")
    assert box.wait() == 0
    assert "gpulease-deadline.timer fired" in box.log()


def test_cloud_init_does_its_parts_in_order_and_sshd_answers_only_after_bootcmd(start: Start) -> None:
    box = start(
        user_data(
            ["sh", "-c", 'sleep 0.2; echo "bootcmd $1" >> "$GPULEASE_ROOT/root/order"', "sh", "two words"],
            "exit 4",
            write_files=[{"path": "/etc/thing.conf", "content": "aGk=", "encoding": "b64", "permissions": "0600"}],
            runcmd=['echo runcmd >> "$GPULEASE_ROOT/root/order"', ["test", "-s", "/nonexistent"]],
            packages=["nothing"],
        )
    )
    assert box.port and (box.root / "root/order").read_text().startswith("bootcmd two words\n")
    code, status, _ = box.run("cloud-init status --wait --long")
    assert (code, "Failed to run bootcmd: exit code 4" in status, "Failed to run runcmd" in status) == (1, True, True)
    assert (box.root / "var/lib/cloud/instance/boot-finished").exists()
    assert (box.root / "root/order").read_text() == "bootcmd two words\nruncmd\n"
    conf = box.root / "etc/thing.conf"
    assert (conf.read_text(), conf.stat().st_mode & 0o777) == ("hi", 0o600)
    assert "ignored keys: packages" in (box.root / "var/log/cloud-init-output.log").read_text()


BLOCKING = """\
cd "$GPULEASE_ROOT/etc/systemd/system"
printf '[Timer]\\nOnActiveSec=9h\\n' > a.timer
printf '[Service]\\nExecStart=/bin/true\\n' > a.service
systemctl start a.timer; echo blocking $?
systemctl start --no-block a.timer; echo queued $?; systemctl is-active a.timer
"""


def test_a_blocking_start_in_bootcmd_would_hang_a_real_boot_and_is_refused(start: Start) -> None:
    box = start(user_data(BLOCKING, ["sh", "-c", GUARDS, "sh", "OnActiveSec=1h"]), faults={"no_timer": True})
    assert box.out("systemctl is-active a.timer") == "active"  # the queued job ran when sysinit.target was reached
    log = (box.root / "var/log/cloud-init-output.log").read_text()
    assert "blocking 1" in log and "waits for ever" in log and "queued 0\ninactive" in log
    # and the fault leaves the deadline unarmed
    assert box.run("systemctl is-active gpulease-deadline.timer")[:2] == (3, "inactive\n")
    assert "SIMULATED fault: no_timer" in log


def test_a_machine_that_never_boots_never_says_a_port_and_can_still_be_taken_away(start: Start) -> None:
    box = start(faults={"never_boots": True})
    until(lambda: (box.root / "var/log/syslog").exists() and "never_boots" in box.log())
    box.process.terminate()
    assert (box.wait(), box.process.stdout.read()) == (143, b"")  # type: ignore[union-attr]


def test_faults_can_be_added_while_it_lives_and_nonsense_is_only_logged(start: Start) -> None:
    box = start()
    box.say({"faults": {"driver": "535.54", "vram_mib": 2000}})
    query = "nvidia-smi --query-gpu=driver_version,memory.total --format=csv,noheader"
    until(lambda: box.out(query) == "535.54, 2000 MiB")
    box.say({"faults": {"no_such_fault": 1}})
    box.say({"faults": {"driver": None}})
    until(lambda: box.out(query) == "580.126.09, 2000 MiB")
    assert "unknown fault 'no_such_fault'" in box.log()


def test_the_guards_that_gpulease_itself_writes_stand_and_the_lease_is_renewed(start: Start) -> None:
    deadline = int(time.time()) + 3600
    data = real_user_data(
        lease="r-20261121t140210z-abcdefgh",
        deadline_epoch=deadline,
        client_public=f"ssh-ed25519 {CLIENT_KEY.get_base64()}",
        host_private=Secret(HOST),
        host_public=f"ssh-ed25519 {HOST_KEY.get_base64()}",
    )
    box = start(data.reveal_bytes())

    class Runs:
        name = "ubuntu@test"

        def run(self, script: str, **_: object) -> object:
            code, out, err = box.run(script)
            return type("Result", (), {"exit": code, "stdout": out, "stderr": err, "seconds": 0.0})

    seen = armed(Runs(), deadline)  # type: ignore[arg-type]
    assert seen.missing == ()
    assert seen.deadline == deadline
    box.out('touch -- "${GPULEASE_ROOT:-}/run/gpulease/lease"; systemctl start gpulease-lease.service')
    assert box.out("systemctl show -p Result --value gpulease-lease.service") == "success"
    box.client.exec_command("sudo systemctl start --no-block gpulease-deadline.service")
    assert box.wait() == 0


def test_user_data_that_cloud_init_would_ignore_is_refused_with_its_reason() -> None:
    for data, words in (
        (b"#!/bin/sh\n", "Unhandled"),
        (b"#cloud-config\n[", "yaml"),
        (b"#cloud-config\nbootcmd: x\n", "list"),
        (b"x" * 17000, "17000 bytes"),
    ):
        with pytest.raises(BadUserData, match=words):
            parse_user_data(data)


def test_a_list_in_bootcmd_is_quoted_and_a_string_is_a_line() -> None:
    assert shellify((["echo", "a b", "$X"], "echo $X")) == "#!/bin/sh\necho 'a b' '$X'\necho $X\n"


WITHOUT_PROC = """\
import sys, time
from pathlib import Path
from provisioner.rehearsal.host_init import Init
init = Init(Path(sys.argv[1]), linux=False)
proc = init.spawn(["/bin/sh", "-c", "sleep 300 & sleep 300"], env={"PATH": "/usr/bin:/bin"}, cwd=sys.argv[1])
while len(init.members()) < 3:
    time.sleep(0.01)
init.tick()
print(init.end_all(), proc.ended.wait(30), len(init.members()))
"""


def test_without_proc_every_process_is_found_through_its_group(tmp_path: Path) -> None:
    """The way of macOS, tried here with ps; in a process of its own, because it ends all that is below it."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_PROC, str(tmp_path)], cwd=REPO, capture_output=True, text=True, timeout=20)
    assert done.stdout == "[] True 0\n", done.stderr
