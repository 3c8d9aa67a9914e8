"""What a machine is told at birth, run where it can be run without one, and read back from text real machines printed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from provisioner.errors import HostError, RefusedError
from provisioner.model import Result
from provisioner.remote import bootstrap
from provisioner.remote.bootstrap import arm_script, instant, parse_armed, require_armed, span, user_data
from provisioner.remote.keys import client_pair, host_pair
from provisioner.secret import Secret

LEASE = "r-20261121t140210z-0123abcd"
DEADLINE = 1_795_284_000
CAPTURED = sorted((Path(__file__).parent / "armed").glob("*.json"))
WHOLE = json.loads((Path(__file__).parent / "armed/debian12-systemd252.json").read_text())


def text_of(folder: Path, **changes: int) -> bytes:
    client, host = client_pair(folder), host_pair(folder)
    made = user_data(
        lease=LEASE,
        deadline_epoch=DEADLINE,
        client_public=client.public + " me@laptop",
        host_private=host.private_text(),
        host_public=host.public,
        **changes,
    )
    return made.reveal_bytes()


class Box:
    """A machine that is a folder: the arming script runs for real, `systemctl` and `poweroff` only say that they were called."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls = root, root / "calls"
        for name in ("bin", "proc/sys/kernel", "run"):
            (root / name).mkdir(parents=True)
        self.shim("systemctl", f'echo "systemctl $*" >> "{self.calls}"')
        self.shim("poweroff", f'echo "poweroff $*" >> "{self.calls}"')
        self.shim("sleep", f'echo "sleep $*" >> "{self.calls}"')
        self.uptime(100)

    def shim(self, name: str, line: str) -> None:
        (self.root / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (self.root / "bin" / name).chmod(0o755)

    def uptime(self, seconds: float) -> None:
        (self.root / "proc/uptime").write_text(f"{seconds} 0.00\n")

    def sh(self, *argv: str, path: str = "") -> subprocess.CompletedProcess[str]:
        env = {"PATH": path or f"{self.root}/bin:/usr/bin:/bin", "GPULEASE_ROOT": str(self.root)}
        return subprocess.run(["sh", *argv], env=env, capture_output=True, text=True, timeout=60)

    def arm(self, deadline: int, **more: int) -> None:
        done = self.sh("-c", arm_script(lease=LEASE, deadline_epoch=deadline, **more))
        assert (done.returncode, done.stderr) == (0, "")

    def check(self) -> subprocess.CompletedProcess[str]:
        return self.sh(str(self.root / "usr/local/lib/gpulease/lease-check"))

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def off(self) -> bool:
        return "systemctl --no-block poweroff" in self.called()

    def unit(self, name: str) -> str:
        return (self.root / "etc/systemd/system" / name).read_text()


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "ma chine")


def test_the_user_data_is_the_cloud_config_that_was_agreed(tmp_path: Path) -> None:
    data = text_of(tmp_path)
    assert data.startswith(b"#cloud-config\n") and len(data) < 8 << 10
    config = yaml.safe_load(data)
    assert config["ssh_deletekeys"] is True and config["disable_root"] is True and config["ssh_pwauth"] is False
    assert config["ssh_keys"]["ed25519_private"] == (tmp_path / "host_ed25519").read_text()
    assert config["ssh_keys"]["ed25519_public"] == (tmp_path / "host_ed25519.pub").read_text().strip()
    assert config["ssh_authorized_keys"] == [(tmp_path / "client_ed25519.pub").read_text().strip()]
    assert config["bootcmd"] == [["sh", "-c", arm_script(lease=LEASE, deadline_epoch=DEADLINE)]]
    assert set(config) == {"ssh_deletekeys", "ssh_keys", "ssh_authorized_keys", "disable_root", "ssh_pwauth", "bootcmd"}


def test_the_same_lease_gives_the_same_bytes(tmp_path: Path) -> None:
    client, host = client_pair(tmp_path), host_pair(tmp_path)
    made = [
        user_data(
            lease=LEASE, deadline_epoch=DEADLINE, client_public=client.public, host_private=host.private_text(), host_public=host.public
        )
        for _ in range(2)
    ]
    assert made[0] == made[1]


def test_user_data_that_is_too_long_is_refused_with_both_numbers(tmp_path: Path) -> None:
    client, host = client_pair(tmp_path), host_pair(tmp_path)
    with pytest.raises(RefusedError, match=r"has [0-9]+ bytes; at most 16384"):
        user_data(
            lease=LEASE, deadline_epoch=DEADLINE, client_public=client.public, host_private=Secret("x" * 20_000), host_public=host.public
        )


@pytest.mark.parametrize("lease", ["", "r-1\n", "r 1", "$(id)", "'", "-r", "END\n", "x" * 65])
def test_a_lease_id_that_could_be_more_than_a_name_is_refused(lease: str) -> None:
    with pytest.raises(RefusedError):
        arm_script(lease=lease, deadline_epoch=DEADLINE)


@pytest.mark.parametrize("changes", [{"deadline_epoch": 0}, {"deadline_epoch": 1 << 40}, {"max_run_s": 0}, {"lease_silence_s": -1}])
def test_a_guard_without_a_time_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(RefusedError):
        arm_script(**{"lease": LEASE, "deadline_epoch": DEADLINE, **changes})


def test_a_public_key_of_two_lines_is_refused(tmp_path: Path) -> None:
    host = host_pair(tmp_path)
    with pytest.raises(RefusedError):
        user_data(
            lease=LEASE, deadline_epoch=DEADLINE, client_public="ssh-rsa AA\nssh-rsa BB", host_private=Secret("x"), host_public=host.public
        )


def test_arming_writes_three_timers_and_starts_them_without_waiting(box: Box) -> None:
    box.arm(DEADLINE, max_run_s=3600)
    assert "OnCalendar=2026-11-21 18:00:00 UTC\nPersistent=true\n" in box.unit("gpulease-deadline.timer")
    assert re.search(r"^OnActiveSec=[0-9]+s$", box.unit("gpulease-deadline-twin.timer"), re.M)
    assert "Unit=gpulease-deadline.service" in box.unit("gpulease-deadline-twin.timer")
    assert "OnUnitInactiveSec=30s" in box.unit("gpulease-lease.timer")
    for name in bootstrap.GUARD_UNITS:
        assert "AccuracySec=1s" in box.unit(name) and "DefaultDependencies=no" in box.unit(name)
        assert (box.root / "etc/systemd/system/timers.target.wants" / name).resolve().name == name
    assert box.called() == ["systemctl daemon-reload", "systemctl --no-block restart " + " ".join(bootstrap.GUARD_UNITS)]
    assert "kernel.panic = 10" in (box.root / "etc/sysctl.d/90-gpulease.conf").read_text()
    assert os.stat(box.root / "run/gpulease/lease").st_mode & 0o777 == 0o666


def test_a_second_boot_keeps_the_deadline_and_shortens_the_twin(box: Box) -> None:
    deadline = int(time.time()) + 5000
    box.arm(deadline, max_run_s=5000)
    first = box.unit("gpulease-deadline.timer")
    box.shim("date", 'case $1 in +%s) echo $(( $(/bin/date +%s) + 4000 )) ;; *) exec /bin/date "$@" ;; esac')
    box.arm(deadline, max_run_s=5000)
    assert box.unit("gpulease-deadline.timer") == first
    assert re.search(r"OnActiveSec=(99\d|1000)s", box.unit("gpulease-deadline-twin.timer"))


@pytest.mark.parametrize(("clock", "left"), [(0, 5000), (DEADLINE + 9, 1)])
def test_a_wrong_clock_cannot_buy_the_machine_more_than_the_run(box: Box, clock: int, left: int) -> None:
    box.shim("date", f"echo {clock}")
    box.arm(DEADLINE, max_run_s=5000)
    assert f"OnActiveSec={left}s" in box.unit("gpulease-deadline-twin.timer")


def test_a_lease_that_is_renewed_keeps_the_machine_on(box: Box) -> None:
    box.arm(DEADLINE, lease_silence_s=900)
    for uptime in (100, 900, 1700, 2500):
        box.uptime(uptime)
        assert box.sh("-c", bootstrap.RENEW).returncode == 0
        assert box.check().returncode == 0
    assert not box.off()


def test_a_lease_that_falls_silent_powers_the_machine_off(box: Box) -> None:
    box.arm(DEADLINE, lease_silence_s=900)
    for uptime, off in ((100, False), (130, False), (999.9, False), (1000.2, True)):
        box.uptime(uptime)
        box.check()
        assert box.off() is off, uptime
    assert "no client for 900 s" in (box.root / "run/gpulease/fired").read_text()


def test_a_lease_file_that_is_gone_counts_as_silence(box: Box) -> None:
    box.arm(DEADLINE, lease_silence_s=900)
    (box.root / "run/gpulease/lease").unlink()
    box.check()
    box.uptime(1001)
    box.check()
    assert box.off()


def test_a_clock_that_jumps_is_not_a_sign_of_life_and_not_a_silence(box: Box) -> None:
    box.arm(DEADLINE, lease_silence_s=900)
    box.check()
    box.shim("date", "echo 99999999999")
    box.uptime(500)
    box.check()
    assert not box.off()
    box.uptime(1001)
    box.check()
    assert box.off()


@pytest.mark.parametrize("damage", ["", "x\ny\n", "\n\n", "$(touch hurt)\n900\n"])
def test_damaged_notes_start_the_count_again_and_run_nothing(box: Box, damage: str) -> None:
    box.arm(DEADLINE, lease_silence_s=900)
    (box.root / "run/gpulease/seen").write_text(damage)
    assert box.check().returncode == 0 and not box.off()
    assert (box.root / "run/gpulease/seen").read_text().endswith("\n100\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_notes_that_cannot_be_written_end_in_power_off_as_root_cannot_test(box: Box) -> None:
    box.arm(DEADLINE, lease_silence_s=50)
    (box.root / "run/gpulease").chmod(0o555)
    box.check()
    (box.root / "run/gpulease").chmod(0o755)
    assert box.off()


def test_power_off_asks_nicely_and_then_by_force(box: Box) -> None:
    box.arm(DEADLINE)
    box.calls.unlink()
    assert box.sh(str(box.root / "usr/local/lib/gpulease/poweroff"), "the deadline").returncode == 0
    time.sleep(0.05)
    assert sorted(box.called()) == ["poweroff -ff", "sleep 10", "sleep 60", "systemctl --no-block poweroff"]
    assert "power off: the deadline at 2" in (box.root / "run/gpulease/fired").read_text()


def test_a_rehearsal_cannot_power_off_the_computer_it_runs_on(box: Box) -> None:
    box.arm(DEADLINE)
    box.calls.unlink()
    elsewhere = box.root.parent / "elsewhere"
    elsewhere.mkdir()
    for name in ("poweroff", "systemctl", "sleep"):
        shutil.copy(box.root / "bin" / name, elsewhere / name)
    done = box.sh(str(box.root / "usr/local/lib/gpulease/poweroff"), path=f"{elsewhere}:/usr/bin:/bin")
    assert done.returncode == 1 and "refused" in done.stderr and box.called() == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed: the units were not verified")
def test_systemd_accepts_the_units_and_the_calendar(tmp_path: Path) -> None:
    root = tmp_path / "machine"  # systemd-analyze cannot take a path with a space in it
    Box(root).arm(DEADLINE)
    units = [
        str(root / "etc/systemd/system" / name) for name in (*bootstrap.GUARD_UNITS, "gpulease-deadline.service", "gpulease-lease.service")
    ]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units], capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if "gpulease" in line] == []
    calendar = subprocess.run(["systemd-analyze", "calendar", "2030-11-21 18:00:00 UTC"], capture_output=True, text=True)
    assert calendar.returncode == 0 and "2030-11-21 18:00:00 UTC" in calendar.stdout


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.stem)
def test_what_a_real_machine_printed_is_understood(path: Path) -> None:
    case = json.loads(path.read_text())
    seen = parse_armed(case["stdout"], case["deadline"])
    assert list(seen.missing) == case.get("missing", [])
    assert seen.deadline == case["deadline"]


@pytest.mark.parametrize(
    "change",
    ["", "== machine\nnow=5\n", "System has not been booted with systemd as init system", "== gpulease-deadline.timer\nActiveState=active"],
)
def test_what_cannot_be_read_counts_as_missing(change: str) -> None:
    seen = parse_armed(change, DEADLINE)
    assert not seen.good and len(seen.missing) >= 4


def test_another_deadline_than_ours_is_missing() -> None:
    seen = parse_armed(WHOLE["stdout"], WHOLE["deadline"] + 1)
    assert seen.missing == (f"gpulease-deadline.timer fires at {WHOLE['deadline']}; needs {WHOLE['deadline'] + 1}",)


def test_a_twin_that_fires_long_after_the_deadline_is_missing() -> None:
    late = re.sub(r"(?<=twin.timer\n)((?:.*\n)*?NextElapseUSecMonotonic=)\S.*", r"\g<1>9h", WHOLE["stdout"], count=1)
    assert any("twin" in why and "needs at most" in why for why in parse_armed(late, WHOLE["deadline"]).missing)


def test_guards_that_do_not_stand_are_an_error_that_names_them() -> None:
    class Bare:
        name = "ubuntu@203.0.113.9"

        def run(self, script: str, **_: object) -> Result:
            return Result(0, "== machine\nnow=1\n", "", 0.0)

    with pytest.raises(HostError, match="of its own guards do not stand") as e:
        require_armed(Bare(), DEADLINE)  # type: ignore[arg-type]
    assert "gpulease-deadline.timer is unknown" in e.value.why


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Sat 2026-11-21 18:00:00 UTC", DEADLINE),
        ("2026-11-21 18:00:00.123456 GMT", DEADLINE),
        ("@1795284000", DEADLINE),
        ("Sat 2026-11-21 18:00:00 CET", None),
        ("n/a", None),
        ("", None),
        ("0", None),
        ("Sat 2026-13-41 18:00:00 UTC", None),
    ],
)
def test_instants_are_read_in_utc_or_not_at_all(text: str, seconds: int | None) -> None:
    assert instant(text) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h 2min 3.5s", 3723.5), ("49min", 2940.0), ("1d", 86400.0), ("infinity", None), ("", None), ("0", None), ("1 h", None)],
)
def test_spans_are_read_or_not_at_all(text: str, seconds: float | None) -> None:
    assert span(text) == seconds
