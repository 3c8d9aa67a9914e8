"""The metadata service of a machine: the same scripts as on EC2, answered by the machine, with nothing sent to anybody."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable

import pytest

from provisioner.rehearsal.host_imds import Metadata
from provisioner.rehearsal.host_spec import parse_spec
from provisioner.remote.link import direct
from provisioner.remote.spot import WATCH, Notice, notice, watch_values
from provisioner.remote.ssh import SshHost, connect

from .conftest import CLIENT_KEY, HOST_KEY, Box, until

META = "http://169.254.169.254/latest"
TOKEN = f"token=$(curl -sf -X PUT {META}/api/token -H 'X-aws-ec2-metadata-token-ttl-seconds: 60'); "
WITH = '-H "X-aws-ec2-metadata-token: $token"'
SOON = {"action": "terminate", "time": "2026-11-25T08:22:00Z"}
Start = Callable[..., Box]


def service(**metadata: str) -> Metadata:
    return Metadata(parse_spec(json.dumps({"instance": "i-1", "type": "g6.xlarge", "metadata": metadata})), lambda: False)


def with_token(service: Metadata, path: str) -> tuple[int, str]:
    status, token = service.answer("PUT", "/latest/api/token", {"x-aws-ec2-metadata-token-ttl-seconds": "60"})
    assert status == 200
    return service.answer("GET", path, {"x-aws-ec2-metadata-token": token})


def test_a_script_written_for_ec2_learns_which_machine_it_is_on(box: Box) -> None:
    assert box.out(f"{TOKEN} curl -sf {WITH} {META}/meta-data/instance-id") == "i-0123456789abcdef0"
    document = json.loads(box.out(f"{TOKEN} curl -sfS --max-time 2 {WITH} {META}/dynamic/instance-identity/document"))
    assert document["instanceType"] == "g6.xlarge" and document["simulated"] == "gpulease-rehearsal"
    assert box.run(f"{TOKEN} curl -sf {WITH} {META}/meta-data/spot/instance-action")[:2] == (22, "")
    assert box.out(f"{TOKEN} curl -s -o /dev/null -w '%{{http_code}}' {WITH} {META}/meta-data/spot/instance-action") == "404"


def test_without_a_token_it_tells_nothing(box: Box) -> None:
    assert box.run(f"curl -sf {META}/meta-data/instance-id")[0] == 22
    assert box.out(f"curl -s -w '%{{http_code}}' {META}/meta-data/instance-id") == "401"
    assert box.out(f"curl -s -w '%{{http_code}}' -H 'X-aws-ec2-metadata-token: made-up' {META}/meta-data/instance-id") == "401"
    assert box.run(f"curl -sfX PUT {META}/api/token")[0] == 22


def test_an_option_that_is_not_simulated_is_said_and_other_addresses_go_to_the_real_curl(box: Box) -> None:
    code, _, err = box.run(f"curl --http3 {META}/meta-data/instance-id")
    assert code == 2 and "SIMULATED" in err and "--http3" in err
    assert box.run("curl -s --max-time 2 http://127.0.0.1:1/")[0] in (7, 127)  # 127: this computer has no curl


def test_a_notice_comes_while_the_machine_runs_and_can_be_taken_back(start: Start) -> None:
    box = start()
    ask = f"{TOKEN} curl -sf {WITH} {META}/meta-data/spot/instance-action"
    assert box.run(ask)[0] == 22
    box.say({"notice": SOON})
    assert json.loads(until(lambda: box.run(ask)[1])) == SOON
    assert box.out(f"{TOKEN} curl -sf {WITH} {META}/meta-data/spot/termination-time") == SOON["time"]
    box.say({"notice": None})
    until(lambda: box.run(ask)[0] == 22)


def test_the_machine_says_once_that_its_server_has_answered_so_many(start: Start) -> None:
    box = start(faults={"spot_notice_after_requests": 3})
    assert box.port and box.process.stdout
    control = json.loads((box.root / "run/machine.json").read_text())["control"]
    for answered in (1, 2, 3, 4):  # as the simulated server counts
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(control)
            link.sendall(b"requests\0/\0%d" % answered)
            link.shutdown(socket.SHUT_WR)
            link.recv(64)
    assert json.loads(box.process.stdout.readline()) == {"requests": 3}
    box.process.terminate()
    assert box.process.stdout.read() == b""


@pytest.fixture
def host(start: Start) -> SshHost:
    box = start()
    with connect(
        "127.0.0.1", box.port, "ubuntu", client_key=CLIENT_KEY, host_key=f"ssh-ed25519 {HOST_KEY.get_base64()}", route=direct
    ) as made:
        made.box = box  # type: ignore[attr-defined]
        yield made  # type: ignore[misc]


def test_the_watch_is_silent_until_the_notice_and_then_says_it_once(host: SshHost) -> None:
    lines: list[str] = []
    watch = threading.Thread(target=lambda: host.stream(WATCH, lines.append, values=watch_values("0.05"), timeout=30))
    watch.start()
    host.run("sleep 0.5")
    assert lines == [] and watch.is_alive()
    host.box.say({"notice": SOON})  # type: ignore[attr-defined]
    watch.join(10)
    assert not watch.is_alive() and len(lines) == 1
    assert notice(lines[0]) == Notice("terminate", notice(json.dumps(SOON)).at)


def test_the_watch_looks_no_oftener_than_it_was_told_and_stays_silent_where_the_service_does_not_answer(start: Start) -> None:
    box = start(faults={"no_metadata": True})
    key = f"ssh-ed25519 {HOST_KEY.get_base64()}"
    with connect("127.0.0.1", box.port, "ubuntu", client_key=CLIENT_KEY, host_key=key, route=direct) as host:
        lines: list[str] = []
        ended = host.stream(WATCH, lines.append, values=watch_values("0", looks=1), timeout=30)
        assert (ended.exit, lines, ended.stderr) == (0, [], "")
        assert host.run(f"curl -sS --max-time 0 {META}/", check=False).exit == 28


def test_a_tokens_life_and_the_two_ways_to_get_none() -> None:
    imds = service()
    ask = imds.answer
    for wrong in ("0", "21601", "-1", "soon", ""):
        assert ask("PUT", "/latest/api/token", {"x-aws-ec2-metadata-token-ttl-seconds": wrong})[0] == 400
    assert ask("PUT", "/latest/api/token", {"x-aws-ec2-metadata-token-ttl-seconds": "60", "x-forwarded-for": "1.2.3.4"})[0] == 403
    assert ask("GET", "/latest/api/token", {})[0] == 405
    assert with_token(imds, "/latest/meta-data/instance-life-cycle") == (200, "on-demand")
    assert with_token(imds, "/latest/meta-data/placement/") == (200, "availability-zone\nregion")
    assert "spot/" not in with_token(imds, "/latest/meta-data/")[1]
    assert with_token(imds, "/latest/meta-data/nothing") == (404, "")


def test_version_1_answers_only_where_the_launch_allowed_it_and_nothing_where_it_was_switched_off() -> None:
    assert service(tokens="optional").answer("GET", "/latest/meta-data/instance-id", {}) == (200, "i-1")
    assert service(tokens="required").answer("GET", "/latest/meta-data/instance-id", {})[0] == 401
    assert service(endpoint="disabled").answer("PUT", "/latest/api/token", {"x-aws-ec2-metadata-token-ttl-seconds": "60"})[0] == 403
