"""What a real machine does with its user data: it is off in time, each line of defence alone, and the right one did it.

systemd, cloud-init and OpenSSH are Debian's own. How late each was is taken down and never asserted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from provisioner.errors import HostError
from provisioner.model import Host
from provisioner.remote import bootstrap
from provisioner.remote.bootstrap import DEADLINE, LEASE, TWIN
from provisioner.remote.ssh import renew
from tests.realos.machine import Machine, reboot, wait_for_reboot

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LOGIN_S = 30  # time enough to boot and log in on a busy computer, before a deadline
Late = Callable[[str, float, float], None]


def since_boot(host: Host, unit: str, what: str) -> int:
    """When a unit came to life, in microseconds of a clock that all of them share."""
    return int(host.run('systemctl show --value --property="$what" "$unit"', values={"unit": unit, "what": what}).stdout)


def test_the_guards_stand_before_anybody_can_log_in_and_before_the_rest_of_cloud_init(guest: Machine) -> None:
    """Also when cloud-init comes late: whatever held it up, nothing of it went before ours."""
    guest.unit(
        "slow.service",
        "[Unit]\nDefaultDependencies=no\nBefore=cloud-init.service\n[Service]\nType=oneshot\nExecStart=/bin/sleep 4\n",
        "cloud-init.target",
    )
    guest.born(7200)
    with guest.ssh() as host:
        seen = bootstrap.require_armed(host, guest.deadline)
        assert seen.twin_left_s is not None and 7100 < seen.twin_left_s <= 7200
        assert host.run("sudo cat /var/lib/cloud/instance/user-data.txt").stdout.encode() == guest.told
        assert "Valid cloud-config" in host.run("sudo cloud-init schema --config-file /var/lib/cloud/instance/user-data.txt").stdout
        slow = since_boot(host, "slow.service", "ExecMainExitTimestampMonotonic")
        armed = [since_boot(host, unit, "ActiveEnterTimestampMonotonic") for unit in bootstrap.GUARD_UNITS]
        sshd = since_boot(host, "ssh.service", "InactiveExitTimestampMonotonic")
        config = since_boot(host, "cloud-config.service", "InactiveExitTimestampMonotonic")
        assert 0 < slow < min(armed) and max(armed) < min(sshd, config)


def test_logins_are_let_in_to_the_end_which_comes_also_when_nobody_could_get_in_any_more(
    guest: Machine, late: Late, record_property: Callable[[str, object], None]
) -> None:
    """`shutdown +N` would refuse logins for its last five minutes: the client could neither renew nor look."""
    began = time.time()
    guest.born(LOGIN_S)
    with guest.ssh() as host:
        record_property("measured", f"first login {time.time() - began:.1f} s after creation; user data of {len(guest.told)} bytes")
        until = guest.deadline - 6
        while time.time() < until:
            with guest.ssh(5) as other:
                bootstrap.require_armed(other, guest.deadline)
            time.sleep(1)
        host.run("sudo shutdown -P +4")  # and this would be seen, if it were so
        with ExitStack() as stack, pytest.raises(HostError):
            stack.enter_context(guest.ssh(2))
        guest.cut()
        with pytest.raises(HostError):
            host.run("true", timeout=1)
    end = guest.end(LOGIN_S + 60)
    assert end.code == 0 and end.fired[0].startswith("the deadline at "), end.fired
    late("all guards, the network cut", guest.deadline, end.at)


@pytest.mark.parametrize("alone, seconds", [(DEADLINE, LOGIN_S), (TWIN, 8)], ids=["calendar", "countdown"])
def test_either_timer_ends_the_machine_alone_and_without_a_network(guest: Machine, alone: str, seconds: int, late: Late) -> None:
    guest.without(*{DEADLINE, TWIN, LEASE} - {alone})
    guest.born(seconds, network=False)
    end = guest.end(seconds + 60)
    assert end.code == 0 and len(end.fired) == 1 and end.fired[0].endswith(f" by {alone}"), end.fired
    late(f"{alone} alone, no network", guest.deadline, end.at)


def test_a_machine_whose_clock_is_a_day_behind_is_off_when_the_run_is_over(guest: Machine, late: Late) -> None:
    """To such a machine the deadline is a day away. Only the twin can know better: it never has more than the run."""
    run = 8
    began = time.time()
    guest.born(86_400 + run, max_run_s=run)
    end = guest.end(90)
    assert end.fired and end.fired[0].endswith(f" by {TWIN}"), end.fired
    late("clock a day behind, counted from its creation", began + run, end.at)


def test_a_machine_whose_deadline_has_passed_when_it_boots_is_off_at_once(guest: Machine, late: Late) -> None:
    """Its clock is a day ahead, or cloud-init was held up for longer than the run."""
    began = time.time()
    guest.born(-86_400)
    end = guest.end(90)
    assert end.fired and end.fired[0].endswith(f" by {TWIN}"), end.fired
    late("deadline passed before it booted, counted from its creation", began, end.at)


def test_a_reboot_keeps_the_deadline_and_so_does_one_without_cloud_init(guest: Machine, late: Late) -> None:
    guest.without(LEASE)  # without cloud-init no client can be seen, and this one would end the machine sooner
    guest.born(1.5 * LOGIN_S)
    with guest.ssh() as host:
        first = bootstrap.require_armed(host, guest.deadline)
        reboot(host)
    wait_for_reboot(guest, 1)
    with guest.ssh() as host:
        second = bootstrap.require_armed(host, guest.deadline)
        assert second.twin_left_s is not None and first.twin_left_s is not None and second.twin_left_s < first.twin_left_s
        reboot(host, "sudo touch /etc/cloud/cloud-init.disabled")
    wait_for_reboot(guest, 2)
    end = guest.end(1.5 * LOGIN_S + 60)
    assert end.code == 0 and end.fired[0].startswith("the deadline at "), end.fired
    late("after two reboots, the second one without cloud-init", guest.deadline, end.at)


def test_a_reboot_into_emergency_mode_keeps_the_deadline(guest: Machine, late: Late) -> None:
    """What the boot waits for cannot be mounted: systemd gives up on it and starts a shell for an administrator."""
    guest.born(LOGIN_S)
    with guest.ssh() as host:
        reboot(host, "echo 'tmpfs /mnt tmpfs size=nonsense 0 0' | sudo tee -a /etc/fstab")
    end = guest.end(LOGIN_S + 60)
    assert end.code == 0 and "You are in emergency mode" in end.console
    assert end.fired[0].startswith("the deadline at "), end.fired
    late("rebooted into emergency mode", guest.deadline, end.at)


def test_a_deadline_that_passed_while_the_machine_was_down_ends_it_when_it_comes_up(guest: Machine, late: Late) -> None:
    """The calendar timer alone, without cloud-init: it remembers on the disk that it has not fired yet."""
    guest.without(TWIN, LEASE)
    guest.born(LOGIN_S)
    with guest.ssh() as host:
        (guest.folder / "hold").touch()
        reboot(host, "sudo touch /etc/cloud/cloud-init.disabled")
    wait_for_reboot(guest, 1)
    time.sleep(max(0.0, guest.deadline + 1 - time.time()))
    (guest.folder / "hold").unlink()
    began = time.time()
    end = guest.end(60)
    assert end.fired and end.fired[0].endswith(f" by {DEADLINE}"), end.fired
    late("deadline passed while it was down, counted from its return", began, end.at)


def test_silence_ends_a_machine_long_before_its_deadline(guest: Machine, late: Late) -> None:
    """At the pace of a silence of minutes: a look each half minute, the first one only to take note."""
    guest.write(f"/etc/systemd/system/{LEASE}.d/pace.conf", "[Timer]\nOnActiveSec=\nOnActiveSec=30s\nOnUnitInactiveSec=30s\n")
    began = time.time()
    guest.born(7200, lease_silence_s=10)
    end = guest.end(180)
    assert end.fired and end.fired[0].startswith("no client for ") and end.fired[0].endswith(f" by {LEASE}"), end.fired
    late("silence of 10 s, counted from its creation", began + 10, end.at)


def test_a_machine_stays_while_its_lease_is_renewed_and_goes_when_that_ends(guest: Machine, late: Late) -> None:
    guest.born(7200, lease_silence_s=6)
    with guest.ssh() as host:
        until = time.monotonic() + 15
        while time.monotonic() < until:
            renew(host)
            time.sleep(1)
        assert guest.up
        renew(host)
    last = time.time()
    end = guest.end(90)
    assert end.fired and end.fired[0].startswith("no client for ") and end.fired[0].endswith(f" by {LEASE}"), end.fired
    late("silence of 6 s after renewals, looking every second", last + 6, end.at)


def test_a_shutdown_that_hangs_is_forced(guest: Machine, late: Late) -> None:
    guest.unit(
        "stubborn.service",
        "[Service]\nExecStart=/bin/sleep infinity\nExecStop=/bin/sleep infinity\nTimeoutStopSec=infinity\n",
        "multi-user.target",
    )
    guest.born(8)
    end = guest.end(8 + 180)
    assert end.code == 0 and len(end.fired) == 1, end.fired
    assert "Reached target poweroff.target" not in end.console and "Powering off." not in end.console
    late("hung shutdown, forced 60 s after the deadline", guest.deadline, end.at)
