"""Break the product in a copy, one mutant at a time, and see which test dies of it.

    python -m tests.mutants.run [NAME…]

Each mutant gets a copy of its own, which comes first on PYTHONPATH, so that the processes that the tests start
(`python -P -m …`) run the broken code as well, whatever is installed. Only a test that ran and failed is a kill: a copy
that cannot be imported, or a selection that selects nothing, is an error of the table.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
NEEDED = ("provisioner", "cost", "profiles", "playbooks", "pyproject.toml")
NEEDED_TESTS = ("__init__.py", "conftest.py", "aws", "core", "cost", "drill", "os", "rehearsal_endpoint", "remote")
LONGEST_S = 60
FAILED = 1
"""What pytest exits with when tests ran and some failed."""


@dataclass(frozen=True)
class Fate:
    killed: bool
    by: str  # the test that noticed, or what pytest said
    seconds: float

    def __str__(self) -> str:
        return f"{'KILLED  ' if self.killed else 'SURVIVED'}  {self.seconds:5.1f} s  {self.by}"


@contextlib.contextmanager
def copy() -> Iterator[Path]:
    """What the tests need of this checkout, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="gpulease-mutant-", ignore_cleanup_errors=True) as folder:
        root = Path(folder) / "copy"
        (root / "tests").mkdir(parents=True)
        for source, name in [*((ROOT, name) for name in NEEDED), *((ROOT / "tests", name) for name in NEEDED_TESTS)]:
            place = root / (source / name).relative_to(ROOT)
            if (source / name).is_dir():
                shutil.copytree(source / name, place, ignore=shutil.ignore_patterns("__pycache__"))
            elif (source / name).exists():
                shutil.copy2(source / name, place)
        yield root


def fate(mutant: Mutant) -> Fate:
    """Apply it in a copy and run its tests."""
    with copy() as root:
        path = root / mutant.file
        path.write_text(mutant.broken(path.read_text("utf-8")), "utf-8")
        began = time.monotonic()
        code, said = pytest_in(root, mutant.tests)
        if code not in (0, FAILED):
            raise RuntimeError(f"{mutant.name}: pytest ended with {code}, so nothing was tried\n{said[-2000:]}")
        died = re.search(r"^(?:FAILED|ERROR) (\S+?::\S+)", said, re.M)
        return Fate(code == FAILED, died[1] if died else said.strip().splitlines()[-1], time.monotonic() - began)


def pytest_in(root: Path, tests: Sequence[str]) -> tuple[int, str]:
    """pytest's exit code and output in a copy, with whatever it started ended."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "GPULEASE_"))}
    env |= {"PYTHONPATH": str(root), "XDG_STATE_HOME": str(root.parent / "state"), "PYTHONDONTWRITEBYTECODE": "1"}
    words = ["-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", "-o", f"timeout={LONGEST_S}", f"--basetemp={root.parent / 'tmp'}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *words, *tests],
        cwd=root,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=3 * LONGEST_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, said


def main(names: Sequence[str]) -> int:
    known = {mutant.name: mutant for mutant in MUTANTS}
    if unknown := [name for name in names if name not in known]:
        print(f"no mutant is called {unknown[0]!r}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    survivors = 0
    for name in names or known:
        ended = fate(known[name])
        survivors += not ended.killed
        print(f"{name:40}  {ended}", flush=True)
    print(f"{len(names or known) - survivors} killed, {survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
