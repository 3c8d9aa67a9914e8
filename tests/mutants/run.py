"""Break the product in a copy, one mutant at a time, and see what notices: a simulated history, or a test.

    python -m tests.mutants.run [NAME…]

A stable process has the libraries loaded and forks for each mutant, so that one costs a second and not five. In the fork
the copy comes first, as it does on PYTHONPATH for the processes that the tests start (`python -P -m …`). Where a mutant's
file runs in the simulation, some histories are played first, and the number of the one that went wrong is said; else, or when
none did, the tests that the table names are run, and after them all the histories. Only a test that ran and failed is a kill: a
copy that cannot be imported, or a selection that selects nothing, is an error of the table.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.mutants.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
NEEDED = ("provisioner", "cost", "profiles", "playbooks", "auditor", "tests", "pyproject.toml")
SIMULATED = ("journal", "holdings", "lease", "ledger", "watchdog", "reap", "launching", "providers/aws_errors", "providers/aws_schedule")
FIRST, MOST = 60, 800
"""So many histories before any test, which show nearly all that any of them shows; and so many after the tests."""
LONGEST_S = 60
ALL_S = 800  # for all tests that the table names, without a mutant
FAILED = 1
"""What pytest exits with when tests ran and some failed."""

LIBRARIES = ("pytest", "boto3", "botocore.session", "cryptography.x509", "hypothesis", "paramiko", "pydantic", "typer", "jinja2", "yaml")


@dataclass(frozen=True)
class Fate:
    killed: bool
    by: str  # the history or the test that noticed, or what pytest said
    seconds: float

    def __str__(self) -> str:
        return f"{'KILLED  ' if self.killed else 'SURVIVED'}  {self.seconds:5.1f} s  {self.by}"


@contextlib.contextmanager
def copy() -> Iterator[Path]:
    """What the tests need of this checkout, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="gpulease-mutant-", ignore_cleanup_errors=True) as folder:
        root = Path(folder) / "copy"
        root.mkdir()
        for name in NEEDED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(ROOT / name, root / name)
        yield root


def fate(mutant: Mutant, root: Path) -> Fate:
    """Apply it in a copy, let it be hunted, and take it back."""
    path = root / mutant.file
    whole = path.read_text("utf-8")
    began = time.monotonic()
    _write(path, mutant.broken(whole))
    try:
        simulated = mutant.file.removeprefix("provisioner/").removesuffix(".py") in SIMULATED
        code, said = _forked(root, lambda: _hunt(FIRST)) if simulated else (0, "")
        if code == FAILED:
            return Fate(True, said.strip().splitlines()[-1], time.monotonic() - began)
        code, said = pytest_in(root, mutant.tests)
        if simulated and code == 0:
            hunted, found = _forked(root, lambda: _hunt(MOST))
            if hunted == FAILED:
                return Fate(True, found.strip().splitlines()[-1], time.monotonic() - began)
    finally:
        _write(path, whole)
    if code not in (0, FAILED):
        raise RuntimeError(f"{mutant.name}: pytest ended with {code}, so nothing was tried\n{said[-2000:]}")
    died = re.search(r"^(?:FAILED|ERROR) (\S+?::\S+)", said, re.M)
    return Fate(code == FAILED, died[1] if died else said.strip().splitlines()[-1], time.monotonic() - began)


_written = int(time.time()) - 10_000_000


def _write(path: Path, text: str) -> None:
    global _written
    path.write_text(text, "utf-8")
    _written += 2  # Python tells compiled files apart by the second
    os.utime(path, (_written, _written))


def pytest_in(root: Path, tests: Sequence[str], longest_s: int = 3 * LONGEST_S) -> tuple[int, str]:
    """pytest's exit code and output in a copy, with whatever it started ended."""

    def run() -> int:
        import pytest

        words = ["-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", "-o", f"timeout={LONGEST_S}", f"--basetemp={root.parent / 'tmp'}"]
        return int(pytest.main([*words, *tests]))

    return _forked(root, run, longest_s)


def _hunt(most: int) -> int:
    from tests.sim.hunt import hunt

    found = hunt(most)
    if found is not None:
        print(f"history {found[0]} of the simulation: {' '.join(found[1].split())[:110]}")
    return FAILED if found else 0


def _forked(root: Path, work: object, longest_s: int = 3 * LONGEST_S) -> tuple[int, str]:
    """Run it in a fork that sees the copy alone; its exit code, and what it said."""
    said = root.parent / "said"
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setsid()
            out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            for fd in (1, 2):
                os.dup2(out, fd)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdin = open(0)  # noqa: SIM115
            _become(root)
            code = work()  # type: ignore[operator]
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(code)
    code = _wait(child, longest_s)
    _end_what_it_left(root.parent)
    return code, said.read_text("utf-8", "replace")


def _end_what_it_left(folder: Path) -> None:
    """A test that fails half-way leaves its watchdogs, which outlive everything for hours, as they should. Where there is a /proc."""
    for words in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"{folder}/".encode() in words.read_bytes():
                os.kill(int(words.parent.name), signal.SIGKILL)


def _become(root: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("PYTEST_", "GPULEASE_"))]:
        del os.environ[name]
    os.environ |= {"PYTHONPATH": str(root), "XDG_STATE_HOME": str(root.parent / "state")}
    os.chdir(root)
    sys.path[:] = [str(root), *(place for place in sys.path if place and Path(place).resolve() != ROOT)]
    for name in [name for name in sys.modules if name.split(".")[0] in ("provisioner", "cost", "tests")]:
        del sys.modules[name]


def _wait(child: int, longest_s: int) -> int:
    end = time.monotonic() + longest_s
    code = 124
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            break
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if code == 124:
        os.waitpid(child, 0)
    return code


class Stable:
    """The process that forks. Started once, asked by name."""

    def __init__(self) -> None:
        words = [sys.executable, "-m", "tests.mutants.run", "--serve"]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def ask(self, name: str) -> Fate:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(name, file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline() or '{"error": "the process that forks has ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return Fate(**answer)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def serve() -> None:
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            __import__(name)
    known = {mutant.name: mutant for mutant in MUTANTS}
    with copy() as root:
        for line in sys.stdin:
            name = line.strip()
            try:
                if name == "--whole":
                    code, said = pytest_in(root, sorted({test for mutant in MUTANTS for test in mutant.tests}), ALL_S)
                    answer = {"killed": code != 0, "by": said[-4000:], "seconds": 0.0}
                else:
                    answer = asdict(fate(known[name], root))
            except Exception as e:
                answer = {"error": f"{type(e).__name__}: {e}"}
            print(json.dumps(answer), flush=True)


def main(names: Sequence[str]) -> int:
    if list(names) == ["--serve"]:
        serve()
        return 0
    known = {mutant.name: mutant for mutant in MUTANTS}
    if unknown := [name for name in names if name not in known]:
        print(f"no mutant is called {unknown[0]!r}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    survivors, stable = 0, Stable()
    for name in names or known:
        ended = stable.ask(name)
        survivors += not ended.killed
        print(f"{name:40}  {ended}", flush=True)
    stable.close()
    print(f"{len(names or known) - survivors} killed, {survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
