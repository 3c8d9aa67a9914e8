"""One wheel and one sdist, built once from a copy of the checkout that holds what git would hold."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Built:
    wheel: Path
    sdist: Path


def files_of_the_checkout() -> list[Path]:
    """What a fresh clone would hold: tracked, or new and not ignored. In an unpacked sdist: everything."""
    git = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True)
    if git.returncode != 0:
        kept = (path for path in ROOT.rglob("*") if not {".venv", "__pycache__"} & set(path.parts))
        return [path.relative_to(ROOT) for path in kept if path.is_file()]
    return [path for name in git.stdout.decode().split("\0") if name and (ROOT / (path := Path(name))).is_file()]


def copy_checkout(to: Path) -> Path:
    for path in files_of_the_checkout():
        (to / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, to / path)
    return to


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Built:
    """The wheel is built from the sdist, so both layouts are tried. One worker builds, the others wait."""
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    out = shared / "built"
    with (shared / "built.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            checkout = copy_checkout(shared / "checkout")
            command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(checkout)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
    return Built(next(out.glob("*.whl")), next(out.glob("*.tar.gz")))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Run a command in an empty folder with a state folder of its own, and with nothing of this checkout in reach."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV", "PYTEST", "MAKE", "MFLAGS"))}

    def call(
        *command: str | Path, cwd: Path = elsewhere, ok: bool = True, timeout: float = 600, **env: str
    ) -> subprocess.CompletedProcess[str]:
        environment = {**kept, "XDG_STATE_HOME": str(tmp_path / "state"), "NO_COLOR": "1", **env}
        done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)
        assert not ok or done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    yield call
