"""How long letting go takes, and what gpulease itself costs a run in time, memory and bytes. Everything is SIMULATED.

    python benchmarks/letting_go.py [--signals 200] [--runs 20]

*signal*: one process that holds a lease on a machine of a rehearsal, by the same `hold` as a run, and gets a real SIGINT at a
moment of its wait that is not its choice; from the instant before the signal is sent until the cloud accepted
TerminateInstances, by the cloud's own record; what comes after is not waited for. Machines are stand-ins that do nothing,
so that 200 are affordable.
*run*: the same of whole runs (`gpulease run smoke --rehearse`), stopped in their eval: with the sessions, the tunnel and
the server to be closed first. Fewer, because each lives a life.
*own time*: a whole run in a rehearsal that waits for nothing (every imposed delay zero), and one whose delays are EC2-like
in kind (`--delay` seconds to start and as many to go). What the first takes is ours: our code, the pretended machine's and
the pretended server's. What the second takes beyond the first and its delays is how much later than possible we notice.
Both against 17 minutes, which a run on EC2 takes that starts for 12 and measures for 5.
Numbers only: nothing here decides a test.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

GPULEASE = [sys.executable, "-P", "-m", "provisioner"]
STANDIN = f"{sys.executable} {ROOT / 'tests' / 'rehearsal_endpoint' / 'standin_host.py'}"
EC2_RUN_S = 17 * 60
NOTHING = {"timing": {"pending_s": 0.0, "stopping_s": 0.05, "kill_grace_s": 0.05, "vanish_s": 0.2}}
"""What has ended is soon no longer listed, so that the last of many leases meets the same cloud as the first."""


def accepted(cloud: Any, lease: str) -> float:
    from provisioner.journal import instant

    return next(instant(t["asked"]) for t in cloud.truth() if t["lease"] == lease and t["class"] == "instance" and t["asked"])


def signals_to_one_process(count: int, folder: Path) -> list[float]:
    """Milliseconds from SIGINT to the accepted request, of `count` leases one after the other."""
    from provisioner.journal import Journal
    from provisioner.lease import hold
    from provisioner.model import LaunchSpec, Requirements
    from provisioner.providers.aws import AwsProvider
    from provisioner.rehearsal import client
    from provisioner.scope import Cancelled, Scope, SystemClock
    from provisioner.scope import signals as routed

    cloud = client.start(folder / "cloud", idle_exit=300, faults=[NOTHING], host_command=STANDIN, timeout=60)
    provider, clock, found = AwsProvider("us-east-1", endpoint=cloud.endpoint), SystemClock(), list[float]()
    offer = provider.offers(Requirements(gpu="L4", gpus=1))[0]
    made = provider.account_of(offer.region).create("CreateSecurityGroup", GroupName="one", Description="of the user's own")
    group = str(made.data["GroupId"])
    here = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "127.0.0.1/32"}]}
    provider.account_of(offer.region).change("AuthorizeSecurityGroupIngress", GroupId=group, IpPermissions=[here])
    try:
        for number in range(count):
            lease, scope, sent = f"r-20261121t140210z-{number:08d}", Scope(), list[float]()

            def send(at: list[float] = sent) -> None:
                at.append(time.time())
                os.kill(os.getpid(), signal.SIGINT)

            spec = LaunchSpec(offer, 60, "2030-01-01T00:00:00Z", b"{}", ingress_cidr="127.0.0.1/32", group=group)
            with routed(scope, lambda text: None), Journal(folder / f"{number}.jsonl", clock) as journal:
                try:
                    with hold(lease, provider, journal, clock, patience=0.1) as held:
                        held.create("instance", spec)
                        threading.Timer(0.1 + number % 50 / 1000, send).start()
                        scope.sleep(30)
                except Cancelled:
                    pass
            found.append((accepted(cloud, lease) - sent[0]) * 1000)
    finally:
        cloud.stop()
    return found


def signals_to_runs(count: int, folder: Path) -> list[float]:
    """The same of whole runs, each stopped in its eval."""
    from provisioner.rehearsal import client

    cloud = client.start(folder / "cloud", idle_exit=300, faults=[{"host": {"token_ms": 40.0}}], timeout=60)
    found = []
    try:
        for number in range(count):
            state = folder / f"state{number}"
            run = subprocess.Popen(
                [*GPULEASE, "run", "smoke", "--rehearse", "--endpoint", cloud.endpoint, "--yes", "--keep", "5m"],
                env={**os.environ, "XDG_STATE_HOME": str(state)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            journal = _journal(state)
            while '"stage":"eval"' not in journal.read_text() and run.poll() is None:
                time.sleep(0.05)
            time.sleep(0.3 + number % 7 / 10)
            sent = time.time()
            run.send_signal(signal.SIGINT)
            run.wait()
            found.append((accepted(cloud, journal.parent.name) - sent) * 1000)
    finally:
        cloud.stop()
    return found


def _journal(state: Path) -> Path:
    while True:
        if found := list((state / "gpulease" / "runs").glob("r-*/journal.jsonl")):
            return found[0]
        time.sleep(0.05)


def whole_run(folder: Path, delay: float) -> dict[str, float]:
    """One run from start to exit: wall seconds, its own processor seconds, its largest memory."""
    from provisioner.rehearsal import client

    folder.mkdir()
    timing = {**NOTHING["timing"], "pending_s": delay, "stopping_s": delay or 0.05}
    host = {"host": {"start_delay_s": 0.0, "first_token_ms": 1.0, "token_ms": 0.1}}
    cloud = client.start(folder / "cloud", idle_exit=300, faults=[{"timing": timing}, host], timeout=60)
    began = time.monotonic()
    command = [*GPULEASE, "run", "smoke", "--rehearse", "--endpoint", cloud.endpoint, "--yes", "--json"]
    done = subprocess.Popen(command, env={**os.environ, "XDG_STATE_HOME": str(folder)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    said = json.loads(done.stdout.read())  # type: ignore[union-attr]
    _, status, used = os.wait4(done.pid, 0)
    wall = time.monotonic() - began
    cloud.stop()
    if status or said["verdict"] != "released":
        raise SystemExit(f"the run ended with {status}: {said.get('error')}")
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "mib": used.ru_maxrss / 1024}


def user_data_bytes() -> int:
    from provisioner.remote import bootstrap, keys

    with tempfile.TemporaryDirectory() as folder:
        client, host = keys.client_pair(Path(folder)), keys.host_pair(Path(folder))
        made = bootstrap.user_data(
            lease="r-20261121t140210z-7f3a9k2m",
            deadline_epoch=1_800_000_000,
            client_public=client.public,
            host_private=host.private_text(),
            host_public=host.public,
        )
    return len(made)


def at(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def main() -> None:
    parser = argparse.ArgumentParser(description="How long letting go takes, and what gpulease costs a run.")
    parser.add_argument("--signals", type=int, default=200)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--delay", type=float, default=20.0)
    options = parser.parse_args()
    print(f"SIMULATED  {platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d')}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for what, count, measure in (("signal", options.signals, signals_to_one_process), ("run", options.runs, signals_to_runs)):
            if count:
                inner = folder / what
                inner.mkdir()
                found = measure(count, inner)
                print(
                    f"{what:<7} SIGINT to accepted TerminateInstances: p50 {at(found, 50):.0f} ms, p99 {at(found, 99):.0f} ms, "
                    f"worst {max(found):.0f} ms, of {len(found)}",
                    flush=True,
                )
        bare, slow = whole_run(folder / "bare", 0.0), whole_run(folder / "slow", options.delay)
        late = slow["wall"] - bare["wall"] - 2 * options.delay
        print(
            f"own     a run that waits for nothing: {bare['wall']:.1f} s, {bare['cpu']:.1f} s of processor, {bare['mib']:.0f} MiB at most"
        )
        print(f"late    noticed after {2 * options.delay:.0f} s of imposed delays: {late:.1f} s later than possible")
        print(f"        together {100 * (bare['wall'] + max(late, 0)) / EC2_RUN_S:.1f} % of {EC2_RUN_S // 60} minutes on EC2")
        from provisioner.providers import aws_actions

        counts = ", ".join(f"{name} {len(aws_actions.of(name))}" for name in aws_actions.POLICIES if name != aws_actions.ROLE)
        print(f"policy  actions: {counts}")
        print(f"data    user-data: {user_data_bytes()} bytes of 16384")


if __name__ == "__main__":
    main()
