"""Fuzz one parser after the other, with coverage as the guide, and keep a small corpus.

    .venv/bin/python -m pip install --require-hashes -r tests/fuzz/atheris.txt        Linux; Python 3.11 to 3.13
    .venv/bin/python -m tests.fuzz --seconds 180                                      each parser so long
    .venv/bin/python -m tests.fuzz history yaml --seconds 600

What it finds new is in .cache/fuzz/NAME; `--keep` puts the smallest of it into
tests/fuzz/corpus, which every test run plays again. A crash leaves its input in .cache/fuzz and its traceback here.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import time
from pathlib import Path

CACHE = Path(".cache/fuzz")
LONGEST, MOST, BYTES = 1500, 24, 12_000
"""Of what is kept: no input longer than this, so many of them, and so many bytes in all for one parser."""


def inside(name: str, seconds: int) -> None:
    """In a process of its own: the fuzzer never returns."""
    import atheris  # type: ignore[import-not-found,unused-ignore]

    with atheris.instrument_imports(include=["provisioner", "cost", "yaml", "rfc8785"]):
        from tests.fuzz import targets
    folder = CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    for data in [*targets.seeds(name), *targets.kept(name)]:
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)
    target = targets.TARGETS[name]
    target(b"")
    options = [f"-artifact_prefix={CACHE}/crash-{name}-", "-timeout=20", "-rss_limit_mb=3000", "-max_len=12000"]
    options += [f"-max_total_time={seconds}", "-print_final_stats=1", str(folder)]
    atheris.Setup([sys.argv[0], *options], target)
    atheris.Fuzz()


def outside(name: str, *more: str) -> tuple[int, list[tuple[float, str]]]:
    """Its exit code, and what it printed, each line with the seconds after which it came."""
    begun = time.monotonic()
    words = [sys.executable, "-u", "-m", "tests.fuzz", name, "--inside", *more]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as process:
        assert process.stdout is not None
        told = [(time.monotonic() - begun, line.rstrip()) for line in process.stdout]
    return process.returncode, told


def progress(told: list[tuple[float, str]]) -> str:
    """How many inputs, how many places of the code they reached, and when the last new one was."""
    reached, last = 0, 0.0
    for at, line in told:
        if (found := re.search(r"cov: (\d+)", line)) and int(found[1]) > reached:
            reached, last = int(found[1]), at
    runs = next((line.split()[-1] for _, line in reversed(told) if line.startswith("stat::number_of_executed_units:")), "?")
    return f"{runs} inputs, {reached} places reached, the last new one after {last:.0f} s"


def keep(name: str) -> int:
    """The fuzzer has written down only what reached something new; of that the smallest."""
    from tests.fuzz import targets

    chosen: list[bytes] = []
    for path in sorted((CACHE / name).iterdir(), key=lambda p: p.stat().st_size):
        data = path.read_bytes()
        if 0 < len(data) <= LONGEST and len(chosen) < MOST and sum(map(len, chosen)) + len(data) <= BYTES:
            chosen.append(data)
    targets.keep(name, [*chosen, *targets.kept(name)])
    return len(chosen)


def main(argv: list[str]) -> int:
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args(argv)
    if unknown := set(options.names) - set(TARGETS):
        parser.error(f"there is no parser {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    worst = 0
    for name in options.names or TARGETS:
        code, told = outside(name, "--seconds", str(options.seconds))
        print(f"{name:<15} {'ok' if code == 0 else f'FAILED ({code})'}  {progress(told)}", flush=True)
        if code:
            worst = 1
            print("\n".join(line for _, line in told[-40:]), flush=True)
        if options.keep:
            print(f"{'':<15} {keep(name)} kept", flush=True)
    return worst


if __name__ == "__main__":
    if "--inside" in sys.argv:
        rest = dict(zip(sys.argv[3::2], sys.argv[4::2], strict=False))
        inside(sys.argv[1], int(rest.get("--seconds", 60)))
    else:
        sys.exit(main(sys.argv[1:]))
