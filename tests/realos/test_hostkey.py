"""A host key of the machine's own, on OpenSSH and cloud-init: in place after the rotation, and still after reboots."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from provisioner.errors import HostKeyError
from provisioner.remote import bootstrap, hostkey
from tests.realos.machine import Machine, reboot, wait_for_reboot

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HOST_KEYS = "sudo sh -c 'cat /etc/ssh/ssh_host_*_key'"


def test_the_injected_host_key_is_gone_after_the_rotation_and_no_reboot_brings_it_back(guest: Machine) -> None:
    guest.born(7200)
    with guest.ssh() as host:
        fresh = hostkey.rotate(host, guest.host.public)
        assert fresh != guest.host.public
        bootstrap.require_armed(host, guest.deadline)  # the connection that it leaves behind works
    with ExitStack() as stack, pytest.raises(HostKeyError):
        stack.enter_context(guest.ssh(10))
    for times in (1, 2):
        with guest.ssh(host_key=fresh) as host:
            injected = guest.host.private_text().reveal().splitlines()[2]
            assert injected not in host.run(HOST_KEYS).stdout
            reboot(host)
        wait_for_reboot(guest, times)
    with guest.ssh(host_key=fresh) as host:
        bootstrap.require_armed(host, guest.deadline)
        host.run("cloud-init status --wait", check=False)  # all of its modules have run at this boot
        assert guest.host.private_text().reveal().splitlines()[2] not in host.run(HOST_KEYS).stdout
    with guest.ssh(host_key=fresh):
        pass
