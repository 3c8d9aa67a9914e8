"""A rehearsal cloud that outlives what is tested, and the command line as a user starts it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioner import journal as J
from provisioner.data import folder
from provisioner.ledger import LeaseFolder, standing
from provisioner.model import Verdict
from provisioner.rehearsal import client

GONE = {"terminated", "closed", "cancelled", "gone", "deleted"}
FAST = {"timing": {"pending_s": 0.2, "stopping_s": 0.3, "kill_grace_s": 0.1}}


@dataclass
class Ended:
    code: int
    answer: dict[str, Any]
    story: str


class Bench:
    """One state folder, one cloud, and `gpulease` started against them."""

    def __init__(self, tmp: Path) -> None:
        self.state = tmp / "state"
        self.cloud = client.start(tmp / "cloud", idle_exit=120.0, faults=[FAST])
        self.env = {**os.environ, "XDG_STATE_HOME": str(self.state), "HOME": str(tmp)}
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *words: str, file_limit: int | None = None) -> subprocess.Popen[str]:
        def limit() -> None:
            if file_limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

        self.started.append(
            subprocess.Popen(
                [sys.executable, "-P", "-m", "provisioner", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=self.env,
                start_new_session=True,
                preexec_fn=limit,
            )
        )
        return self.started[-1]

    def run_words(self, profile: str = "smoke") -> list[str]:
        return ["run", profile, "--rehearse", "--endpoint", self.cloud.endpoint, "--yes", "--json"]

    def run(self, *more: str, profile: str = "smoke", faults: Sequence[Mapping[str, Any]] = (), file_limit: int | None = None) -> Ended:
        """One whole `gpulease run`."""
        if faults:
            self.cloud.faults(faults)
        return self.end(self.start(*self.run_words(profile), *more, file_limit=file_limit))

    def profile(self, **changes: Any) -> str:
        """The smoke profile with some of its keys changed, as a file of the user's."""
        document = yaml.safe_load((folder("profiles") / "smoke.yaml").read_text())
        for key, value in changes.items():
            document[key] = {**document.get(key, {}), **value} if isinstance(value, dict) else value
        path = self.state.parent / "changed.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return str(path)

    @contextlib.contextmanager
    def small_disk(self, kib: int) -> Iterator[None]:
        """The state folder on a file system of that size. Needs root; skipped, not passed, where mounting is not allowed."""
        self.state.mkdir(mode=0o700)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=0700", "gpulease-test", str(self.state)], capture_output=True, text=True
        )
        if mounted.returncode:
            pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", str(self.state)], check=True)

    def end(self, process: subprocess.Popen[str], within: float = 90.0) -> Ended:
        out, err = process.communicate(timeout=within)
        return Ended(process.returncode, json.loads(out) if out.strip() else {}, err)

    def folders(self) -> list[LeaseFolder]:
        runs = self.state / "gpulease" / "runs"
        return [LeaseFolder(p) for p in sorted(runs.iterdir()) if p.name.startswith("r-") and "." not in p.name] if runs.is_dir() else []

    @property
    def folder(self) -> LeaseFolder:
        return self.folders()[-1]

    def entries(self, kind: str) -> list[dict[str, Any]]:
        return [e["body"] for e in J.read(self.folder.journal).entries if e["kind"] == kind]

    def ec2(self, region: str = "us-east-1") -> Any:
        """Somebody else with rights in the same account."""
        import boto3

        keys = {"aws_access_key_id": "somebody", "aws_secret_access_key": "else"}
        return boto3.client("ec2", region_name=region, endpoint_url=self.cloud.endpoint, **keys)

    def left(self) -> list[dict[str, Any]]:
        """The ground truth, asked of the cloud and of nobody else: what of ours still exists."""
        return [thing for thing in self.cloud.truth() if thing.get("lease") and thing["state"] not in GONE]

    def until(self, done: Callable[[], bool], within: float = 40.0) -> bool:
        end = time.monotonic() + within
        while time.monotonic() < end:
            with contextlib.suppress(FileNotFoundError, IndexError):
                if done():
                    return True
            time.sleep(0.05)
        return done()

    def stage(self, name: str, state: str = "begin") -> bool:
        return any(b["stage"] == name and b["state"] == state for b in self.entries("stage"))

    def released(self, within: float = 40.0) -> bool:
        """The ground truth and the journal agree that nothing is left."""
        return self.until(lambda: not self.left() and standing(self.folder).held.verdict is Verdict.RELEASED, within)

    def verify(self) -> int:
        self.until(lambda: (self.folder.evidence / "statement.dsse.json").is_file(), 20)
        return subprocess.run(
            [sys.executable, "-P", "-m", "provisioner", "verify", str(self.folder.evidence)], env=self.env, capture_output=True
        ).returncode

    def statement(self) -> dict[str, Any]:
        """What the proof says."""
        envelope = json.loads((self.folder.evidence / "statement.dsse.json").read_bytes())
        predicate: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))["predicate"]
        return predicate

    def close(self) -> None:
        for process in self.started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=60)
        self.cloud.stop()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()
