"""A server as a transient unit of a real systemd: begun, seen, and stopped with all that it started.

The server is a stand-in that answers as vLLM does; what runs it is the product's playbook, on the machine, over SSH.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from provisioner.errors import RuntimeFailed
from provisioner.model import Host
from provisioner.remote import facts
from provisioner.remote.play import Player
from provisioner.remote.ssh import free_port
from provisioner.runtimes import ServeSpec, get
from provisioner.runtimes.server import Server, serve
from provisioner.secret import Secret
from tests.realos.machine import LEASE, USER, Machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FAKE = Path(__file__).parents[1] / "runtimes/fake_server.py"
UNIT = f"gpulease-{LEASE}-server.service"
KEY = "k-secret-1234567890-canary"
VLLM = """#!/bin/sh
[ "$1" = serve ] || { echo 0.33.0+cpu; exit; }
setsid sleep 987654 &  # a child with a session of its own: only the unit's control group still knows of it
exec /usr/bin/python3 -I -S /opt/fake/server.py "$@"
"""
PROCESSES = 'pgrep -f "[/]opt/fake/server.py|[s]leep 987654"'


def served(host: Host, **env: str) -> AbstractContextManager[Server]:
    spec = ServeSpec(
        model="Qwen/Qwen3-0.6B",
        revision="c1899de289a04d12100db370d81485cdf75e47ca",
        name="qwen",
        version="0.33.0",
        port=free_port(host),
        command="/opt/fake/vllm",
        api_key=Secret(KEY),
        env=env,
    )
    return serve(
        host,
        get("vllm"),
        spec,
        lease=LEASE,
        play=Player(host, sleep=time.sleep),
        exposed=lambda: facts.exposed(facts.read(host, "listeners").value),
        sleep=time.sleep,
        timeout_s=60,
        every_s=0.5,
    )


def gone(host: Host) -> bool:
    shown = host.run('systemctl show --property=LoadState,ActiveState "$unit"', values={"unit": UNIT}).stdout
    left = host.run(PROCESSES, check=False).exit == 0
    return "LoadState=not-found" in shown and "ActiveState=inactive" in shown and not left


def test_a_server_is_one_unit_of_the_login_and_nothing_of_it_is_left_when_it_was_stopped(guest: Machine) -> None:
    guest.write("/opt/fake/vllm", VLLM, 0o755)
    guest.write("/opt/fake/server.py", FAKE.read_bytes())
    guest.born(7200)
    with guest.ssh() as host:
        with served(host) as server:
            assert server.key_required and server.exposed == ()
            shown = host.run(
                'systemctl show --property=ActiveState,User,UID,ControlGroup,LimitNOFILE "$unit"', values={"unit": UNIT}
            ).stdout
            assert "ActiveState=active" in shown and "LimitNOFILE=65535" in shown
            members = host.run('ps -o user=,args= -p "$(systemctl show --value --property=MainPID "$unit")"', values={"unit": UNIT}).stdout
            assert members.split()[0] == USER and "start.sh" in members
            groups = host.run(f'for p in $({PROCESSES}); do grep -o gpulease.* "/proc/$p/cgroup" | sort -u; done').stdout
            assert groups.split() == [UNIT, UNIT]
            log = host.run(f"stat -c %a .gpulease/{LEASE}/server.log; cat .gpulease/{LEASE}/server.log").stdout
            assert log.startswith("600\n") and "[secret]" in log and KEY not in log
            assert KEY not in host.run("ps -ef ww").stdout
        assert gone(host)

        # It ignores SIGTERM, and so does what it started in the group: systemd kills both, and the playbook waits for that.
        began = time.monotonic()
        with served(host, FAKE="stubborn"):
            pass
        assert gone(host) and time.monotonic() - began > 15

        # It ends by itself before it is ready: its own last words are the error, and there is no unit left to stop.
        words = "torch.OutOfMemoryError: CUDA out of memory"
        with pytest.raises(RuntimeFailed) as raised, served(host, FAKE="die", LAST_WORDS=words):
            raise AssertionError("it was said to answer")
        assert "GPU memory ran out" in str(raised.value) and words in raised.value.why and not getattr(raised.value, "__notes__", [])
        assert gone(host)
