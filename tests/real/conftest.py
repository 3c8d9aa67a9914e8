"""What the real-input tests stand on: installed once, kept between runs, and loud when it cannot be had.

A test that cannot run here says why and is skipped; with GPULEASE_NO_SKIP=1, as `.ci/run` sets it, it fails instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import yaml

from tests.life.conftest import Bench, Ended
from tests.real import machine as m
from tests.real import make_tiny_model

ROOT = Path(__file__).parents[2]


def cannot(why: str) -> NoReturn:
    if os.environ.get("GPULEASE_NO_SKIP", "") not in ("", "0"):
        pytest.fail(f"may not be skipped (GPULEASE_NO_SKIP) and cannot run: {why}", pytrace=False)
    pytest.skip(f"REAL INPUT NOT TESTED: {why}")


@pytest.fixture(scope="session")
def installed() -> Path:
    """The folder with vLLM, the AWS command line and libcloud in it."""
    began = time.monotonic()
    done = subprocess.run(
        [str(ROOT / "tools/real-input.sh")], capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable}, cwd=ROOT
    )
    print(f"{done.stdout}tools/real-input.sh took {time.monotonic() - began:.0f} s")
    if done.returncode:
        cannot(f"tools/real-input.sh ended with {done.returncode}: {done.stderr.strip()[-600:]}")
    return Path(os.environ.get("GPULEASE_REAL") or ROOT / ".cache/real").resolve()


@pytest.fixture(scope="session")
def awscli(installed: Path) -> Path:
    return installed / "awscli/bin/aws"


class Client(Bench):
    """`gpulease` as a user starts it, against a machine of their own. The story goes to a file, so that it can be read on the way."""

    def __init__(self, tmp: Path, machine: m.Machine, model: Path) -> None:
        self.state, self.machine, self.here = tmp / "state", machine, tmp
        (tmp / "home").mkdir()
        self.env = {**os.environ, "XDG_STATE_HOME": str(self.state), "HOME": str(tmp / "home")}
        self.started: list[subprocess.Popen[str]] = []
        document = yaml.safe_load((Path(__file__).parent / "vllm-on-cpu.yaml").read_text())
        document["model"]["id"], document["runtime"]["command"] = str(model), str(machine.vllm / "bin/vllm")
        self.written = tmp / "vllm-on-cpu.yaml"
        self.written.write_text(yaml.safe_dump(document, sort_keys=False))

    def run_words(self, profile: str = "") -> list[str]:
        return ["run", profile or str(self.written), *self.machine.words, "--yes", "--json"]

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "provisioner", *words]

    def start(self, *words: str, file_limit: int | None = None) -> subprocess.Popen[str]:
        out, err = (self.here / f"{name}.{len(self.started)}" for name in ("stdout", "stderr"))
        with out.open("w") as o, err.open("w") as e:
            self.started.append(
                subprocess.Popen(
                    self.words(*words),
                    stdin=subprocess.DEVNULL,
                    stdout=o,
                    stderr=e,
                    text=True,
                    env=self.env,
                    start_new_session=True,
                )
            )
        return self.started[-1]

    def story(self) -> str:
        return (self.here / f"stderr.{len(self.started) - 1}").read_text()

    def end(self, process: subprocess.Popen[str], within: float = 180.0) -> Ended:
        code = process.wait(within)
        out = (self.here / f"stdout.{self.started.index(process)}").read_text()
        return Ended(code, json.loads(out) if out.strip() else {}, (self.here / f"stderr.{self.started.index(process)}").read_text())

    def reach(self, what: str, *more: str, within: float = 240.0) -> None:
        """Start a run and wait until its story says so."""
        process = self.start(*self.run_words(), *more)
        assert self.until(lambda: what in self.story() or process.poll() is not None, within), self.story()
        assert process.poll() is None, self.story()

    def close(self) -> None:
        for process in self.started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny_model.make(folder)
    return folder


@pytest.fixture
def client(tmp_path: Path, installed: Path, model: Path) -> Iterator[Client]:
    if why := m.missing():
        cannot(why)
    with m.machine(tmp_path / "machine", installed / "vllm") as there:
        made = Client(tmp_path, there, model)
        try:
            yield made
        finally:
            made.close()
