"""Bundles broken at random where it would hurt, by somebody without the key and by its owner; one seed, one bundle.

    python -m tests.evidence.mutations --count 1000000          goes on where it stopped; --from 0 begins anew

What must hold of each: nothing raises; without the key nothing is accepted that is not byte for byte what was signed; the
owner's statement is accepted only where it is the one that its journal leads to; what AWS signed and was changed shows no tier;
and the script in auditor/, which shares no code with us, is of the same opinion. A failure prints its seed, and
`--from SEED --count 1` is that bundle again.

One process for each core. Lines of journals that were read before are remembered, by both readers: most are the same in every
bundle. At the end of a chunk each one remembered must still be what it was, so that nobody can have written into it.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from provisioner.evidence import canonical, certificates, chain, identity, statement, verify
from provisioner.evidence.outcome import Report
from tests.evidence.broken import (
    OUTSIDERS,
    OWNERS,
    TALES,
    Members,
    Mutation,
    archive_changed,
    files_mixed,
    honest,
    owner_statement,
    payload,
)
from tests.evidence.bundles import keys

FREE = ("producer", "rendererVersion", "supersedes", "schemaMinor")
"""Parts of a statement that its owner may fill in: they are no claims about the run, or make it one of a later version."""


def one(seed: int, folder: Path, held: Members, agree: Callable[[Path, Report], object]) -> tuple[str, int]:
    """Make that seed's bundle and hold everybody to it; the name of the mutation and verify's exit code."""
    rng = random.Random(seed)
    before = honest(rng.choice(sorted(TALES)))
    mutation = rng.choice(OUTSIDERS if rng.randrange(2) else OWNERS)
    given = mutation(before, rng)
    if mutation is archive_changed:
        path = folder.with_name(f"{folder.name}.zip")
        path.write_bytes(given["zip"])
        report = verify.verify(path)
        report.text(), report.json()
        assert report.exit != 0 or any(report.predicate == payload(honest(s))["predicate"] for s in TALES), seed
        return mutation.__name__, report.exit
    written(given, held, folder)
    report = verify.verify(folder)
    report.text(), report.json()
    agree(folder, report)
    if report.exit == 0:
        accepted(report, mutation, before, given, seed)
    return mutation.__name__, report.exit


def written(given: Members, held: Members, folder: Path) -> None:
    """The folder has that bundle in it; `held` is what it has now."""
    for name in held.keys() - given.keys():
        (folder / name).unlink()
    for name, data in given.items():
        if held.get(name) != data:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    held.clear()
    held.update(given)


def accepted(report: Report, mutation: Mutation, before: Members, given: Members, seed: int) -> None:
    """What verify took for whole has to be so."""
    assert report.predicate is not None
    if mutation in OUTSIDERS:
        # What nobody signed may be gone or mixed: the reports, and files that the statement does not name.
        known = {"report.md", "report.html", *(s["name"] for s in payload(given)["subject"]), *verify.OWN}
        assert payload(given) == payload(before) or any(payload(given) == payload(honest(s)) for s in TALES), seed
        assert all(given[name] == before.get(name) or name not in known for name in given) or mutation is files_mixed, seed
    elif mutation is owner_statement:
        stated, was = payload(given)["predicate"], payload(before)["predicate"]
        later = stated["schemaMinor"] > statement.SCHEMA_MINOR
        assert later or {k: v for k, v in stated.items() if k not in FREE} == {k: v for k, v in was.items() if k not in FREE}, seed
    claimed = report.predicate
    assert not claimed["clean"] or (claimed["verdict"] == "released" and len(claimed["sweeps"]) >= 2), seed
    if "identified" in report.shown:
        assert all(document(data) in documents() for name, data in given.items() if name.endswith(".p7")), seed
    if "corroborated" in report.shown:
        assert all(gzip.decompress(data) in logged() for name, data in given.items() if name.endswith(".json.gz")), seed


def document(data: bytes) -> Any:
    return identity.verify(data, certificates.table().of("us-east-1", simulated=True)).fields


@functools.cache
def documents() -> list[Any]:
    """What the identity documents say that were really signed."""
    return [document(data) for tale in TALES for name, data in honest(tale).items() if name.endswith(".p7")]


@functools.cache
def logged() -> frozenset[bytes]:
    """The log files and digests under a real signature."""
    return frozenset(gzip.decompress(d) for tale in TALES for name, d in honest(tale).items() if name.endswith(".json.gz"))


class Remembered:
    """A reader of lines that has read most of them before."""

    def __init__(self, read: Callable[[bytes], Any]) -> None:
        self.read, self.known = read, dict[bytes, Any]()

    def __call__(self, raw: bytes) -> Any:
        if raw not in self.known:
            if len(self.known) > 20_000 or len(raw) > 4096:
                return self.read(raw)
            self.known[raw] = self.read(raw)  # what it refuses is not remembered
        return self.known[raw]

    def unchanged(self) -> None:
        for raw, value in self.known.items():
            assert canonical.dumps(value) == raw, raw
        self.known.clear()


@functools.cache
def remembering() -> tuple[Remembered, ...]:
    """In this process, and from now on."""
    from tests.evidence.test_auditor import auditor

    ours, theirs = Remembered(chain.loads), Remembered(auditor.strict)
    chain.loads, auditor.strict = ours, theirs  # type: ignore[assignment]
    return ours, theirs


def chunk(first: int, after: int) -> dict[str, Any]:
    """Those seeds, one after the other: how many of each kind came to which exit code, and what failed."""
    from tests.evidence.test_auditor import agree

    readers, held, done = remembering(), Members(), {"counts": dict[str, int](), "failed": list[str]()}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as base:
        folder = Path(base) / "b"
        folder.mkdir()
        for seed in range(first, after):
            try:
                name, code = one(seed, folder, held, agree)
                key = f"{name} {code}"
            except Exception as e:  # the program ends here; every seed that fails is wanted, not the first alone
                key = f"FAILED {type(e).__name__}"
                done["failed"].append(f"{seed}: {type(e).__name__}: {str(e)[:600]}")
            done["counts"][key] = done["counts"].get(key, 0) + 1
    for reader in readers:
        reader.unchanged()
    return done


KEPT = (301_685, 976, 1_713, 10_001_715, 10_005_857, 10_014_516, 10_043_938, 20_032_790, 40_290_176, 40_581_116, 40_749_878)
"""Seeds that once found something, in the tree of their day; each fault has a test of its own where it belongs."""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--from", dest="start", type=int, help="the first seed; without it, on from where it stopped")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--state", type=Path, default=Path(".cache/proof-mutations.json"))
    options = parser.parse_args(argv)

    done: dict[str, Any] = {"next": options.start or 0, "seconds": 0.0, "counts": {}, "failed": []}
    if options.start is None and options.state.exists():
        done = json.loads(options.state.read_text())
    begun, end = time.monotonic() - done["seconds"], options.count + (options.start or 0)
    chunks = [(first, min(first + 1000, end)) for first in range(done["next"], end, 1000)]
    keys(), [honest(tale) for tale in TALES]  # before the fork: once for all, and with one key
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        for (_, after), made in zip(chunks, pool.imap(_chunk, chunks), strict=True):
            for key, count in made["counts"].items():
                done["counts"][key] = done["counts"].get(key, 0) + count
            done["failed"] += made["failed"]
            done |= {"next": after, "seconds": round(time.monotonic() - begun, 1)}
            options.state.parent.mkdir(parents=True, exist_ok=True)
            options.state.write_text(json.dumps(done))
            print(f"\r{after} of {end}, {done['seconds']} s", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(json.dumps(done, indent=1, sort_keys=True))
    return int(bool(done["failed"]))


def _chunk(of: tuple[int, int]) -> dict[str, Any]:
    return chunk(*of)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
