"""With the real machine behind it: it boots, speaks SSH, and its power-off ends the instance."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioner.rehearsal.client import Rehearsal

from .conftest import Cloud, wait_for

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("provisioner.rehearsal.host") is None,
    reason="provisioner/rehearsal/host.py IS NOT THERE: the real machine is untested",
)
_OFF = "#cloud-config\nbootcmd:\n  - [sh, -c, 'systemd-run --no-block --on-active=1 systemctl poweroff']\n"


def test_a_real_machine_boots_speaks_ssh_and_powers_itself_off(start: Callable[..., Rehearsal], tmp_path: Path) -> None:
    cloud = Cloud(start(host_command=""), tmp_path / "state0")
    params = cloud.params(SecurityGroupIds=[cloud.group()]) | {"UserData": _OFF}
    instance = cloud.ec2.run_instances(**params)["Instances"][0]["InstanceId"]
    address = cloud.until(instance, "running")["PublicIpAddress"]

    def banner() -> bytes | None:
        try:
            with socket.create_connection(cloud.rehearsal.route(address, 22), timeout=30) as connection:
                return connection.recv(64)
        except ConnectionRefusedError:
            return None

    assert wait_for(banner).startswith(b"SSH-2.0-")
    assert cloud.until(instance, "terminated")["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
