"""Secrets that are known beforehand, or read where they may lie, and looked for in all that a run leaves, shows and starts.

In six encodings: as it is, base64 at each of its three offsets, hex, URL-encoded, backwards, and its first twelve characters.
Looked through: the state folder, the bundle and each form of it that is handed over, what stands on the terminal, the user data,
what the cloud was asked, the arguments of every process on this computer and the environment of those that the run started.
The simulated machine's own files are left out: on a machine the key lies in files of its user's, mode 0600.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.errors import Exit
from tests.evidence.test_redact import spellings
from tests.life.conftest import Bench
from tests.life.test_bad_luck import OOM

HUB = "hf_canaryCanary0123456789abcdefXY"
LOGIN = {
    "AWS_SECRET_ACCESS_KEY": "canarySecret/accessKey+0123456789abcdefgh",
    "AWS_SESSION_TOKEN": "canarySession//0123456789+abcdefghijk==",
}


class Watcher(threading.Thread):
    """Reads what may be read while the run goes on: its short-lived secrets, arguments of all processes, environments of its own."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(daemon=True)
        self.bench, self.over, self.run_pid = bench, threading.Event(), 0
        self.keys: dict[str, bytes] = {}
        self.argv: set[bytes] = set()
        self.environments: dict[int, bytes] = {}
        self.user_data: set[bytes] = set()
        self.started: set[int] = set()

    def run(self) -> None:
        reader = threading.Thread(target=self.read_keys, daemon=True)  # to look through all processes takes longer than a key lives
        reader.start()
        while not self.over.wait(0.03):
            self.processes()
            if not self.user_data:
                self.told()
        reader.join()

    def read_keys(self) -> None:
        while not self.over.wait(0.01):
            for name in ("api.key", "keys/client_ed25519", "keys/host_ed25519"):
                for folder in self.bench.folders():
                    with contextlib.suppress(OSError):
                        self.keys[name] = (folder.path / name).read_bytes() or self.keys.get(name, b"")

    def processes(self) -> None:
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                pid = int(entry.name)
                self.argv.add((entry / "cmdline").read_bytes())
                parents[pid] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        self.started |= {pid for pid, parent in parents.items() if parent in self.started | {self.run_pid}}
        for pid in self.started & parents.keys() - {self.run_pid}:
            with contextlib.suppress(OSError):
                self.environments[pid] = (Path("/proc") / str(pid) / "environ").read_bytes() or self.environments.get(pid, b"")

    def told(self) -> None:
        with contextlib.suppress(Exception):  # there is no machine yet
            ec2 = self.bench.ec2()
            for one in [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]:
                said = ec2.describe_instance_attribute(InstanceId=one["InstanceId"], Attribute="userData")["UserData"].get("Value", "")
                self.user_data |= {base64.b64decode(said)} - {b""}


def unfolded(path: Path) -> Iterator[tuple[str, bytes]]:
    """A file's bytes, and what is packed in it."""
    data = path.read_bytes()
    yield str(path), data
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield f"{path}:{name}", archive.read(name)
    if path.suffix == ".pdf":
        for at, part in enumerate(data.split(b"stream\n")[1:]):
            with contextlib.suppress(zlib.error):
                yield f"{path}:{at}", zlib.decompressobj().decompress(part)
    if path.name.endswith("dsse.json"):
        yield f"{path}:payload", base64.b64decode(json.loads(data)["payload"])


def telling(key: bytes) -> str:
    """Of an API key all of it; of an OpenSSH private key the one line that holds its private part, as it would be pasted."""
    lines = key.decode().strip().splitlines()
    return lines[4] if lines[0].startswith("-----") else lines[0]


@pytest.mark.parametrize(
    "faults",
    [(), pytest.param(({"host": {"runtime_exit": OOM}},), marks=pytest.mark.slow)],
    ids=["a whole run", "a server that dies"],
)
def test_no_secret_is_in_anything_that_a_run_leaves_shows_or_starts(bench: Bench, faults: tuple[dict[str, object], ...]) -> None:
    bench.env |= {"HF_TOKEN": HUB, "AWS_ACCESS_KEY_ID": "AKIACANARY0123456789", **LOGIN}
    bench.cloud.faults([{"timing": {"pending_s": 2.0}}, *faults])  # until it boots the first host key is there to be read
    watcher = Watcher(bench)
    process = bench.start(*bench.run_words())
    watcher.run_pid = process.pid
    watcher.start()
    out, err = process.communicate(timeout=90)
    watcher.over.set()
    watcher.join(10)
    assert process.returncode == (Exit.OK if not faults else Exit.FAILED), err
    outputs = [("the run's answer", out.encode()), ("what it told", err.encode())]

    shown = [["proof"], ["verify", str(bench.folder.evidence)], ["report"], ["logs"], ["ls", "--all"]]
    handed = bench.state.parent / "handed"
    handed.mkdir()
    shown += [["export", "--to", str(handed / name), *more] for name, *more in (("a.zip",), ("b.zip", "--redact"), ("c.pdf",))]
    for words in shown:
        said = subprocess.run([sys.executable, "-P", "-m", "provisioner", *words], env=bench.env, capture_output=True, timeout=60)
        outputs += [(" ".join(words), said.stdout), (" ".join(words), said.stderr)]
    for folder in (bench.state, handed):
        for path in folder.rglob("*"):
            if path.is_file() and "rehearsal" not in path.parts:
                outputs += unfolded(path)
    outputs += [("the cloud was asked", json.dumps(bench.cloud.log()).encode())]
    outputs += [("arguments", line) for line in watcher.argv]
    environments = [("an environment", data) for data in watcher.environments.values()]
    data = [("user data", one) for one in watcher.user_data]

    keys = {name: telling(key) for name, key in watcher.keys.items()}
    assert {"keys/client_ed25519", "keys/host_ed25519"} <= keys.keys() and ("api.key" in keys or faults)
    assert watcher.user_data and environments and len(watcher.argv) > 5 and len(outputs) > 40
    secrets = {"HF_TOKEN": HUB, **LOGIN, **keys}
    signing = (bench.state / "gpulease" / "keys" / "ed25519.pem").read_text()
    secrets["the key that signs proofs"] = signing.splitlines()[1]
    allowed = {"keys/host_ed25519": data}  # a first host key has to travel in it; the machine makes another over the pinned connection
    where = {path: kept for path, kept in outputs if not path.endswith("keys/ed25519.pem")}
    found = [
        (name, path)
        for name, secret in secrets.items()
        for path, kept in [*where.items(), *(one for one in data if one not in allowed.get(name, []))]
        if any(spelt in kept for spelt in spellings(secret))
    ]
    # Of what it starts, the watchdog needs the cloud's login; nothing needs the hub's token or a key of the run's.
    found += [(name, path) for name in secrets.keys() - LOGIN.keys() for path, kept in environments if secrets[name].encode() in kept]
    assert not found
    assert any(spelt in one for spelt in spellings(keys["keys/host_ed25519"]) for _, one in data), "what is there is found"
    assert os.getpid() not in watcher.started
