"""How long `gpulease reap` needs to look at many regions with many machines: seconds, answers, memory.

    python benchmarks/reap.py [--regions 17] [--machines 1000]

The cloud is moto in a process of its own on this computer, filled before the clock starts; it answers one request at a
time per interpreter, in tens to hundreds of milliseconds for a page, so most of the time is its. The second line is a
look at the same regions, empty: what the calls cost without their contents. There is no network in either figure.
The rehearsal is not used, because it gives each machine a real SSH host. It touches nothing: the look is dry.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time

SERVER = """
import os, sys
os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
from moto.server import ThreadedMotoServer
from moto.ec2.models import ec2_backends
regions, machines = sys.argv[1].split(","), int(sys.argv[2])
for region in regions:
    backend = ec2_backends["123456789012"][region]
    image = backend.register_image(name="x", description="").id
    for n in range(machines):
        lease = f"r-20261121t140000z-{n % 100:08d}"
        tags = {"gpulease:lease": lease, "gpulease:managed": "true", "gpulease:deadline": "2026-01-01T00:00:00Z"}
        backend.run_instances(image, 1, "", [], instance_type="g6.xlarge", is_instance_type_default=False, tags={"instance": tags})
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--regions", type=int, default=17)
    options.add_argument("--machines", type=int, default=1000)
    asked = options.parse_args()
    import boto3

    regions = sorted(boto3.Session().get_available_regions("ec2"))[: asked.regions]
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp()
    for machines in (asked.machines, 0):
        measure(regions, machines)


def measure(regions: list[str], machines: int) -> None:
    from provisioner.reap_command import reap_leases

    command = [sys.executable, "-c", SERVER, ",".join(regions), str(machines)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        port = int(server.stdout.readline())
        began, spent = time.monotonic(), time.process_time()
        _, record, _ = reap_leases([], False, regions, None, f"http://127.0.0.1:{port}")
        took, ours = time.monotonic() - began, time.process_time() - spent
        server.stdin.close()
    seen = sum(resource_["class"] == "instance" for lease in record["leases"] for resource_ in lease["resources"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{len(regions)} regions x {machines} machines: {seen} seen, {len(record['unchecked'])} regions unchecked, "
        f"{record['answers']} answers, {took:.1f} s ({ours:.1f} s of processor here), peak {peak:.0f} MiB"
    )


if __name__ == "__main__":
    main()
