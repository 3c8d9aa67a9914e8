"""Play a million histories, over all cores, and say what was exercised and what was found.

    python -m tests.sim [N] [--level core|fleets|aws] [--workers W] [--state FILE]   N at random: of ten, eight core, one fleets, one aws
    python -m tests.sim --exhaustive 1|2 [--level …]                            every crash point of every scenario; every pair
    python -m tests.sim --seed N --level LEVEL                                  one history, told in full

It goes on where it stopped: what was played is in the state file, unless that is of another tree: what an older tree
played says nothing of this one. Ends with 1 when something was found; the failing seed
is printed with the shortest script that does the same.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.sim import process as P
from tests.sim.checks import findings
from tests.sim.faults import CLASSES, fits
from tests.sim.install import simulated
from tests.sim.play import play
from tests.sim.scenarios import exhaustive
from tests.sim.script import AWS, CORE, FLEETS, SITES, Script, draw
from tests.sim.shrink import report

CHUNK = {CORE: 400, FLEETS: 50, AWS: 50}
FIRST = 1_000_000
"""Beyond the seeds of the fast set."""

Job = tuple[str, int, int]  # level, first seed, how many
Done = tuple[Job, float, dict[str, int], list[str]]


def work(job: Job) -> Done:
    level, first, count = job
    began, said = time.process_time(), list[str]()
    P.COVERED.clear()
    with simulated():
        for seed in range(first, first + count):
            said += _tried(draw(seed, level))
    gc.collect()
    return job, time.process_time() - began, {"|".join(key): n for key, n in P.COVERED.items()}, said


def work_scripts(chunk: tuple[int, Sequence[Script]]) -> Done:
    number, scripts = chunk
    began, said = time.process_time(), list[str]()
    P.COVERED.clear()
    with simulated():
        for script in scripts:
            said += _tried(script)
    job = (scripts[0].level, number, len(scripts))
    return job, time.process_time() - began, {"|".join(key): n for key, n in P.COVERED.items()}, said


def _tried(script: Script) -> list[str]:
    try:
        found = findings(play(script))
    except Exception as e:
        return [f"{script.level} seed {script.seed}: the simulator broke: {type(e).__name__}: {e}\n  {script!r}"]
    return [report(script, found)] if found else []


def jobs(total: int, levels: Sequence[str], done: set[str]) -> Iterator[Job]:
    next_seed = {level: FIRST for level in levels}
    played = 0
    while played < total:
        for level in levels:
            job = (level, next_seed[level], CHUNK[level])
            next_seed[level] += CHUNK[level]
            played += CHUNK[level]
            if f"{level}-{job[1]}" not in done:
                yield job


def tree() -> str:
    """A digest of all that a history runs: two trees that differ in it have not played the same."""
    root = Path(__file__).parents[2]
    files = sorted(path for part in ("provisioner", "cost", "profiles", "tests/sim") for path in (root / part).rglob("*.py"))
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()


def _chunks(levels: Sequence[str], crashes: int, size: int = 200) -> Iterator[tuple[int, Sequence[Script]]]:
    for level in levels:
        scripts = list(exhaustive(level, crashes))
        for first in range(0, len(scripts), size):
            yield first, scripts[first : first + size]


class Ledger:
    """What was played so far, kept after every chunk."""

    def __init__(self, path: Path) -> None:
        self.path, self.tree = path, tree()
        kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        if kept and kept.get("tree") != self.tree:
            print(f"{path} is of another tree, with {sum(kept.get('histories', {}).values())} histories: begun anew", file=sys.stderr)
            kept = {}
        self.done: set[str] = set(kept.get("done", []))
        self.histories = Counter(kept.get("histories", {}))
        self.seconds = Counter(kept.get("seconds", {}))
        self.covered = Counter(kept.get("covered", {}))
        self.found: list[str] = kept.get("found", [])

    def take(self, one: Done) -> None:
        (level, first, count), seconds, covered, said = one
        self.done.add(f"{level}-{first}")
        self.histories[level] += count
        self.seconds[level] += seconds  # type: ignore[assignment]
        self.covered.update(covered)
        self.found += said
        kept = {name: getattr(self, name) for name in ("tree", "histories", "seconds", "covered", "found")} | {"done": sorted(self.done)}
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(kept))
        part.replace(self.path)

    def line(self, total: int) -> str:
        played = sum(self.histories.values())
        rates = ", ".join(f"{level} {self.histories[level] / max(self.seconds[level], 1e-9):.0f}/s" for level in sorted(self.histories))
        return f"{played:>9} of {total}  {100 * played / max(total, 1):5.1f} %  found {len(self.found)}  per core: {rates}"


def table(covered: Counter[str]) -> str:
    """Call site × what befell it; a cell that was never exercised says so."""
    lines = ["", "requests: call site × fault class, once / three times / for ever"]
    for site in dict.fromkeys(site for level in (CORE, FLEETS, AWS) for site in SITES[level]):
        cells = []
        for c in CLASSES.values():
            if fits(c, site):
                counts = [covered[f"{site}|{c.name}|{often}"] for often in ("once", "three times", "for ever")]
                cells.append(f"{c.name} {'/'.join(str(n) if n else 'NEVER' for n in counts)}")
        lines.append(f"  {site:30} {'; '.join(cells)}")
    cuts: dict[str, Counter[str]] = {}
    for key, n in covered.items():
        site, what, who = key.split("|")
        if who in ("owner", "second", "third", "fourth"):
            cuts.setdefault(site, Counter())[f"{what} ({who})"] += n
    lines += ["", "crashes and mishaps: boundary × what happened there"]
    lines += [f"  {site:30} {', '.join(f'{what} {n}' for what, n in sorted(counts.items()))}" for site, counts in sorted(cuts.items())]
    disk = Counter({key: n for key, n in covered.items() if key.split("|")[1].startswith("E") and key.split("|")[1].isupper()})
    lines += ["", "the disk: call × errno × how often", *(f"  {key.replace('|', '  '):40} {n}" for key, n in sorted(disk.items()))]
    return "\n".join(lines)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("n", nargs="?", type=int, default=20_000)
    parser.add_argument("--level", choices=(CORE, FLEETS, AWS))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--exhaustive", type=int, choices=(1, 2))
    parser.add_argument("--seed", type=int)
    said = parser.parse_args(words)
    levels = (said.level,) if said.level else (CORE, FLEETS, AWS)
    if said.seed is not None:
        return _tell(draw(said.seed, levels[0]))
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "gpulease-sim"
    name = f"exhaustive-{said.exhaustive}" if said.exhaustive else "random"
    path = said.state or folder / f"{name}{f'-{said.level}' if said.level else ''}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = Ledger(path)
    gc.disable()  # a tenth of the time; once for each chunk is enough
    with multiprocessing.get_context("fork").Pool(said.workers, maxtasksperchild=200) as pool:
        if said.exhaustive:
            chunks = list(_chunks(levels, said.exhaustive))
            total = sum(len(scripts) for _, scripts in chunks)
            left = [chunk for chunk in chunks if f"{chunk[1][0].level}-{chunk[0]}" not in kept.done]
            ended: Iterator[Done] = pool.imap_unordered(work_scripts, left)
        else:
            total = said.n
            ended = pool.imap_unordered(work, jobs(total, levels, kept.done))
        for one in ended:
            kept.take(one)
            print(f"\r{kept.line(total)}", end="" if sys.stdout.isatty() else "\n", flush=True)
    print(table(kept.covered))
    print(kept.line(total))
    for text in kept.found:
        print(text)
    return 1 if kept.found else 0


def _tell(script: Script) -> int:
    print(repr(script))
    with simulated():
        history = play(script)
        found = findings(history)
    print("\n".join([*history.story, *(repr(claim) for claim in history.claims), *found]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
