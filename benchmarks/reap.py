"""How long `gpulease reap` needs to look at many regions with many machines: seconds, processor, answers, bytes, memory.

    python benchmarks/reap.py [--regions 17] [--machines 1000] [--answer-ms 0 100]

The cloud is benchmarks/listings.py in a process of its own on this computer: pages of real size, made before the clock starts,
so that nearly all of the time is the client's. Every machine is ours and each is a lease with its disk, interface and security
group: four times as many resources as machines. (What is not ours EC2 does not even send: `reap` asks by tag.) The rows: nothing
of ours there, and all of it, with each answer held back for so many milliseconds. Each row is measured in a process
of its own. It touches nothing: the look is dry.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--regions", type=int, default=17)
    options.add_argument("--machines", type=int, default=1000)
    options.add_argument("--answer-ms", type=int, nargs="+", default=[0, 100])
    options.add_argument("--one", metavar="ENDPOINT", help=argparse.SUPPRESS)
    asked = options.parse_args()
    import boto3

    regions = sorted(boto3.Session().get_available_regions("ec2"))[: asked.regions]
    if asked.one:
        print(json.dumps(measured(regions, asked.one)))
        return
    for machines in (0, asked.machines):
        for answer_ms in asked.answer_ms:
            print(row(regions, machines, answer_ms), flush=True)


def row(regions: list[str], machines: int, answer_ms: int) -> str:
    serving = [sys.executable, ROOT / "benchmarks" / "listings.py", "--machines", str(machines), "--answer-ms", str(answer_ms), *regions]
    with subprocess.Popen(serving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
        asking = [sys.executable, __file__, "--regions", str(len(regions)), "--one", endpoint]
        env = {**os.environ, "XDG_STATE_HOME": tempfile.mkdtemp()}
        seen = json.loads(subprocess.run(asking, stdout=subprocess.PIPE, check=True, env=env).stdout)
        server.stdin.close()
    return (
        f"{len(regions)} regions x {machines} machines, {answer_ms} ms an answer: "
        f"{seen['resources']} resources of {seen['leases']} leases, {seen['unchecked']} regions unchecked, {seen['answers']} answers, "
        f"{seen['took']:.1f} s ({seen['processor']:.1f} s of processor), peak {seen['peak']} MiB"
    )


def measured(regions: list[str], endpoint: str) -> dict[str, float]:
    from provisioner.reap_command import reap_leases

    began, spent = time.monotonic(), time.process_time()
    _, record, _ = reap_leases([], False, regions, None, endpoint)
    took, ours = time.monotonic() - began, time.process_time() - spent
    return {
        "resources": sum(len(lease["resources"]) for lease in record["leases"]),
        "leases": len(record["leases"]),
        "unchecked": len(record["unchecked"]),
        "answers": record["answers"],
        "took": took,
        "processor": ours,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


if __name__ == "__main__":
    main()
