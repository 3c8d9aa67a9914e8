"""Processes: the cloud outlives the run, machines do not outlive the cloud, and nothing is left behind for ever."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioner.rehearsal.client import Rehearsal, attach

from .conftest import STANDIN, Cloud, wait_for

Start = Callable[..., Rehearsal]
_STARTER = """
import sys, time
from pathlib import Path
from provisioner.rehearsal import client
print(client.start(Path(sys.argv[1]), host_command=sys.argv[2]).pid, flush=True)
time.sleep(60)
"""


def _alive(pid: int) -> bool:
    """Not counting zombies, where that can be told."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rsplit(") ", 1)[1][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _host(cloud: Cloud, instance: str) -> int:
    return int(wait_for(lambda: (cloud.truth(instance)["host"] or {}).get("port") and cloud.truth(instance)["host"]["pid"]))


def test_the_cloud_survives_the_sigkill_of_who_started_it(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    starter = subprocess.Popen(
        [sys.executable, "-c", _STARTER, str(tmp_path / "state"), STANDIN], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}
    )
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    endpoint = (tmp_path / "state" / "endpoint.json").read_text()
    starter.kill()
    starter.wait()
    starter.stdout.close()
    rehearsal = attach(json.loads(endpoint)["endpoint"])
    assert rehearsal.truth() == [] and _alive(pid)
    rehearsal.stop()
    assert not _alive(pid)


def test_machines_die_with_the_sigkill_of_the_cloud(start: Start, tmp_path: Path) -> None:
    rehearsal = start()
    cloud = Cloud(rehearsal, tmp_path / "state0")
    pids = [_host(cloud, cloud.launch()) for _ in range(2)]
    os.kill(rehearsal.pid, signal.SIGKILL)
    wait_for(lambda: not any(_alive(pid) for pid in pids))


def test_stop_ends_everything_and_can_be_said_twice(start: Start, tmp_path: Path) -> None:
    rehearsal = start()
    cloud = Cloud(rehearsal, tmp_path / "state0")
    pid = _host(cloud, cloud.launch({"stubborn": True}))
    rehearsal.stop()
    assert not _alive(pid) and not _alive(rehearsal.pid)
    assert not (tmp_path / "state0" / "endpoint.json").exists()
    rehearsal.stop()


@contextlib.contextmanager
def _kept_awake(rehearsal: Rehearsal) -> Iterator[None]:
    """Asked again and again: on a busy computer, loading boto3 takes longer than a cloud that is to end soon stays."""
    enough = threading.Event()

    def ask() -> None:
        while not enough.wait(0.05):
            with contextlib.suppress(OSError):  # an answer that took too long is no reason to stop asking
                rehearsal.truth()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        enough.set()
        asking.join()


def test_it_ends_by_itself_when_idle_but_not_while_a_machine_lives(start: Start, tmp_path: Path) -> None:
    rehearsal = start(idle_exit=10.0)  # on a busy computer the first question takes seconds
    with _kept_awake(rehearsal):
        cloud = Cloud(rehearsal, tmp_path / "state0")
        instance = cloud.launch()
    time.sleep(10.5)
    assert cloud.describe(instance)["State"]["Name"] == "running"
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    wait_for(lambda: os.waitpid(rehearsal.pid, os.WNOHANG)[0] == rehearsal.pid)


def test_one_whose_starter_is_gone_before_it_is_ready_ends(tmp_path: Path) -> None:
    """A signal between the start and the note of it: nobody knows of the process, and nobody will ask it to stop."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-P", "-m", "provisioner.rehearsal.serve", "--state", str(tmp_path / "state"), "--port", "0"]
    ended = subprocess.run([*command, "--idle-exit", "900"], stdout=write, stderr=subprocess.PIPE, timeout=60)
    os.close(write)
    assert ended.returncode == 1 and b"BrokenPipeError" in ended.stderr


def test_terminate_ends_the_whole_tree_even_what_left_the_session(cloud: Cloud) -> None:
    instance = cloud.launch({"child": True, "stubborn": True})
    host = _host(cloud, instance)
    child = int((cloud.state / "hosts" / instance / "child").read_text())
    assert _alive(host) and _alive(child)
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    cloud.until(instance, "terminated")
    assert not _alive(host) and not _alive(child)


def test_the_machine_gets_its_gpus_and_none_of_our_secrets(cloud: Cloud) -> None:
    instance = cloud.launch(InstanceType="g5.12xlarge")
    host = _host(cloud, instance)
    document = json.loads((cloud.state / "hosts" / instance / "heard").read_text())
    assert [gpu["name"] for gpu in document["gpus"]] == ["NVIDIA A10G"] * 4 and len({gpu["uuid"] for gpu in document["gpus"]}) == 4
    assert {gpu["memory_mib"] for gpu in document["gpus"]} == {23028}
    names = {item.split(b"=")[0] for item in Path(f"/proc/{host}/environ").read_bytes().split(b"\0")}
    assert not any(name.startswith((b"AWS", b"HF_", b"MOTO", b"PYTEST")) for name in names)


def test_the_way_to_a_machine_fails_as_a_network_does(cloud: Cloud) -> None:
    with pytest.raises(OSError) as unknown:
        cloud.rehearsal.route("203.0.113.254", 22)
    assert unknown.value.errno == errno.EHOSTUNREACH
    closed = cloud.until(cloud.launch(), "running")["PublicIpAddress"]
    with pytest.raises(TimeoutError):  # the default group lets nothing in
        cloud.rehearsal.route(closed, 22)
    group = cloud.group()
    slow = cloud.until(cloud.launch({"slow": 0.5}, SecurityGroupIds=[group]), "running")
    with pytest.raises(ConnectionRefusedError):
        cloud.rehearsal.route(slow["PublicIpAddress"], 22)
    instance = cloud.launch(SecurityGroupIds=[group])
    address = cloud.until(instance, "running")["PublicIpAddress"]
    assert wait_for(lambda: _host(cloud, instance)) and cloud.rehearsal.route(address, 22)[0] == "127.0.0.1"
    with pytest.raises(TimeoutError):
        cloud.rehearsal.route(address, 8000)
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    with pytest.raises(OSError):
        cloud.rehearsal.route(address, 22)


def test_a_browser_cannot_speak_to_it(cloud: Cloud) -> None:
    form = b"Action=RunInstances&Version=2016-11-15"
    for headers, status in (({}, 401), ({"Host": "evil.example"}, 403)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(cloud.rehearsal.endpoint, data=form, headers=headers), timeout=30)
        with refused.value:
            assert refused.value.code == status


@pytest.mark.skipif(
    os.getuid() != 0 or not sys.platform.startswith("linux"), reason="only root can become somebody else, and only Linux says who calls"
)
def test_another_user_of_this_computer_is_refused(cloud: Cloud) -> None:
    child = os.fork()
    if child == 0:  # as in any program that drops its rights: no test framework on this side
        status = 99
        try:
            os.setuid(65534)
            urllib.request.urlopen(f"{cloud.rehearsal.endpoint}/_rehearsal/truth", timeout=30)
            status = 0
        except urllib.error.HTTPError as e:
            status = e.code - 400
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc to see processor time")
def test_it_costs_next_to_nothing_when_idle(cloud: Cloud) -> None:
    cloud.until(cloud.launch(), "running")

    def ticks() -> int:
        fields = Path(f"/proc/{cloud.rehearsal.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    def quiet() -> bool:
        before = ticks()
        time.sleep(0.6)
        return ticks() - before <= 3  # of 60

    # On a busy computer what the launch began is done late. Whoever turns in circles has no quiet moment at all.
    assert any(quiet() for _ in range(20))


def test_a_port_that_is_taken_is_an_error_that_says_so(start: Start, cloud: Cloud) -> None:
    from provisioner.errors import RefusedError

    with pytest.raises(RefusedError, match="did not start"):
        start(port=int(cloud.rehearsal.endpoint.rsplit(":", 1)[1]))
