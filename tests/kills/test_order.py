"""What a process tells the kernel, as strace sees it: no request that changes something leaves before its intent was synced.

One whole `gpulease run` with all that makes requests: a zone without room, a spot machine that is taken back, another one after
it, the guard at AWS, and the letting go. The watchdog is traced too.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioner import rehearsed
from provisioner.errors import Exit
from provisioner.providers.aws import AwsProvider
from tests.life.conftest import Bench
from tests.life.conftest import bench as bench
from tests.life.test_spot import SLOW, SPOT, taken
from tests.real.conftest import cannot

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ANNOUNCED = {
    "CreateSecurityGroup": ("create", "security-group"),
    "AuthorizeSecurityGroupIngress": ("create", "security-group"),
    "RunInstances": ("create", "instance"),
    "POST /schedules": ("create", "schedule"),
    "TerminateInstances": ("remove", "instance"),
    "DeleteVolume": ("remove", "volume"),
    "DeleteNetworkInterface": ("remove", "network-interface"),
    "DeleteSecurityGroup": ("remove", "security-group"),
    "DELETE /schedules": ("remove", "schedule"),
    "CancelSpotInstanceRequests": ("remove", "spot-request"),
}
CHANGES = re.compile(r"Action=((?!Describe|Get|List|Simulate|Lookup)\w+)|(POST|DELETE|PUT) (/schedules)")
CALL = re.compile(r"^(\w+)\((\d+)(?:, (.*))?\)\s+= (-?\d+)")


def calls(trace: Path) -> Iterator[tuple[str, int, str, int]]:
    """(name, file descriptor, the rest, result) of each call, in the order in which they returned."""
    for line in trace.read_text("utf-8", "replace").splitlines():
        if found := CALL.match(line):
            yield found[1], int(found[2]), found[3] or "", int(found[4])


def violations(trace: Path, seen: Counter[str]) -> Iterator[str]:
    """Each request of this thread that was not announced on disk. `seen` counts the requests that were looked at."""
    unsynced: list[tuple[str, str]] = []
    synced: list[tuple[str, str]] = []
    used: dict[str, int] = {}
    for name, _fd, rest, result in calls(trace):
        if name == "write" and rest.startswith(r'"{\"at\":'):
            intent = re.search(r'\\"class\\":\\"([\w-]+)\\".*?\\"op\\":\\"(\w+)\\"', rest) if r"\"kind\":\"intent\"" in rest else None
            unsynced.append((intent[2], intent[1]) if intent else ("", ""))
        elif name == "fdatasync" and result == 0:
            synced, unsynced = synced + unsynced, []
        elif name in ("sendto", "sendmsg", "write") and (change := CHANGES.search(rest)):
            request = change[1] or f"{change[2]} {change[3]}"
            seen[request] += 1
            if request not in ANNOUNCED:
                yield f"{request}: nobody said what announces it"
            elif unsynced:
                yield f"{request} left while a line was not synced yet"
            elif ANNOUNCED[request] not in synced[used.get(request, 0) :]:
                yield f"{request} left, and no new intent of {ANNOUNCED[request]} was on disk"
            used[request] = len(synced)


def test_no_request_leaves_before_its_intent_is_synced(
    bench: Bench, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    if shutil.which("strace") is None:
        cannot("apt-get install strace")
    rehearsed.prepare(AwsProvider("us-east-1", endpoint=bench.cloud.endpoint), ["us-east-1"])  # what `gpulease init aws` does, in no lease
    full = {"action": "RunInstances", "kind": "error", "code": "InsufficientInstanceCapacity", "times": 1}
    bench.cloud.faults([full, taken(8), SLOW])
    bench.state.mkdir(mode=0o700, exist_ok=True)
    profile = bench.profile(**SPOT, on_interruption="continue")
    strace = ["strace", "-ff", "--seccomp-bpf", "-s", "1500", "-e", "trace=write,sendto,sendmsg,fdatasync", "-o", str(tmp_path / "trace")]
    words = [*strace, sys.executable, "-P", "-m", "provisioner", *bench.run_words(profile)]
    done = subprocess.run(words, env=bench.env, capture_output=True, text=True, timeout=240)
    assert done.returncode == Exit.OK, done.stderr
    seen: Counter[str] = Counter()
    found = [what for trace in sorted(tmp_path.glob("trace.*")) for what in violations(trace, seen)]
    assert found == []
    assert seen["RunInstances"] >= 3, "a zone without room, one that was taken back, and the one after it"
    assert {"CreateSecurityGroup", "TerminateInstances", "DeleteSecurityGroup", "POST /schedules", "DELETE /schedules"} <= set(seen)
    sent = Counter(entry["action"] for entry in bench.cloud.log() if entry["action"] in seen)
    assert all(seen[action] == count for action, count in sent.items()), (seen, sent)
    record_property("measured", f"strace: {sum(seen.values())} requests that change something, 0 left before their intent was synced")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["write(3, W) = 9", "sendto(5, S) = 9", "fdatasync(3) = 0"], "left while a line was not synced yet"),
        (["write(3, W) = 9", "fdatasync(3) = -1 EIO", "sendto(5, S) = 9"], "left while a line was not synced yet"),
        (["sendto(5, S) = 9"], "no new intent"),
        (["write(3, W) = 9", "fdatasync(3) = 0", "sendto(5, S) = 9", "sendto(5, S) = 9"], "no new intent"),
        (["write(3, W) = 9", "fdatasync(3) = 0", "sendto(5, S) = 9"], ""),
    ],
)
def test_a_request_that_leaves_too_early_would_be_seen(lines: list[str], said: str, tmp_path: Path) -> None:
    written = r'"{\"at\":{},\"body\":{\"class\":\"instance\",\"op\":\"create\"},\"kind\":\"intent\"}"'
    trace = tmp_path / "trace.1"
    trace.write_text("\n".join(lines).replace("W", written).replace("S", '"Action=RunInstances&Version=2016-11-15"') + "\n")
    found = list(violations(trace, Counter()))
    assert said in "".join(found) and bool(found) == bool(said)
