"""Bundles broken at random where it would hurt, by somebody without the key and by its owner; one seed, one bundle.

    python -m tests.evidence.mutations --count 1000000          goes on where it stopped; --from 0 begins anew

What must hold of each: nothing raises; without the key nothing is accepted that is not byte for byte what was signed; the
owner's statement is accepted only where it is the one that its journal leads to; and the script in auditor/, which shares no
code with us, is of the same opinion. A failure prints its seed, and `--from SEED --count 1` is that bundle again.
"""

from __future__ import annotations

import argparse
import base64
import copy
import functools
import hashlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rfc8785

from provisioner.evidence import chain, page, render, sign, statement, verify
from provisioner.evidence.history import Nonsense
from provisioner.evidence.outcome import Report
from tests.evidence.bundles import files_of, keys, state
from tests.evidence.journals import PRODUCER, STORIES

Members = dict[str, bytes]
FREE = ("producer", "rendererVersion", "supersedes", "schemaMinor")
"""Parts of a statement that its owner may fill in: they are no claims about the run, or make it one of a later version."""

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**53 - 1,
    "",
    "x",
    "released",
    "2026-11-18T11:08:00Z",
    [],
    {},
    "\u202e",
    "i-0",
    "a" * 5000,
    "deleted",
]


@functools.cache
def honest(story: str) -> Members:
    tape = STORIES[story]()
    made, files = state(tape), files_of(tape)
    return members(made, tape.bytes, files)


def members(made: Any, journal: bytes, files: Members) -> Members:
    envelope = sign.sign(made, keys())
    return {
        **files,
        "journal.jsonl": journal,
        "statement.dsse.json": envelope.raw,
        "signer.pub.json": envelope.public,
        "report.md": render.report(made, files.get("results.json")),
        "report.html": page.page(made, files.get("results.json")),
    }


def payload(given: Members) -> Any:
    return json.loads(base64.b64decode(json.loads(given["statement.dsse.json"])["payload"]))


def signed(given: Members, made: Any) -> Members:
    """The owner signs whatever it is, and renders it as well as it renders."""
    from securesystemslib.dsse import Envelope  # type: ignore[import-untyped,unused-ignore]

    dsse = Envelope(rfc8785.dumps(made), sign.PAYLOAD_TYPE, {})
    dsse.sign(sign.key(keys()))
    return given | {"statement.dsse.json": rfc8785.dumps(dsse.to_dict()) + b"\n"}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [place for name, inner in pairs for place in places(inner, (*path, name))]


def edited(value: Any, rng: random.Random, path: tuple[Any, ...]) -> Any:
    """The value with one thing changed at that place: another value, none, a neighbour's, twice, under another name."""
    value = copy.deepcopy(value)
    here = functools.reduce(lambda at, step: at[step], path[:-1], value)
    last, old = path[-1], here[path[-1]]
    match rng.randrange(8):
        case 0:
            here[last] = rng.choice(VALUES)
        case 1 if isinstance(old, int) and not isinstance(old, bool):
            here[last] = old + rng.choice((-1, 1, 1000, -1000))
        case 2 if isinstance(old, str) and old:
            n = rng.randrange(len(old))
            here[last] = old[:n] + rng.choice("0aZ-.:\x1b<é") + old[n + 1 :]
        case 3 if isinstance(here, dict):
            here[rng.choice(("x", "tier", "clean", last.upper()))] = here.pop(last)
        case 4 if isinstance(here, list):
            here.insert(rng.randrange(len(here) + 1), copy.deepcopy(old))
        case 5 if isinstance(here, list) and len(here) > 1:
            n = rng.randrange(len(here))
            here[last], here[n] = here[n], here[last]
        case 6 if isinstance(old, bool):
            here[last] = int(old)
        case _:
            del here[last]
    return value


def lines_of(given: Members) -> list[bytes]:
    return given["journal.jsonl"].splitlines(keepends=True)


def chained(entries: list[Any]) -> bytes:
    head, made = "0" * 64, []
    for seq, entry in enumerate(entries):
        if isinstance(entry, dict):
            entry = entry | {"prev": head, "seq": seq}
        made.append(rfc8785.dumps(entry) + b"\n")
        head = hashlib.sha256(made[-1]).hexdigest()
    return b"".join(made)


def shuffled(items: list[Any], rng: random.Random) -> list[Any]:
    if not items:
        return items
    items, n, m = list(items), rng.randrange(len(items)), rng.randrange(len(items))
    match rng.randrange(4):
        case 0:
            del items[n]
        case 1:
            items.insert(m, items[n])
        case 2:
            items[n], items[m] = items[m], items[n]
        case _:
            del items[max(n, 1) :]
    return items


def bytes_changed(given: Members, rng: random.Random) -> Members:
    name = rng.choice(sorted(given))
    data = bytearray(given[name])
    for _ in range(rng.choice((1, 1, 2, 8))):
        n = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0 if n < len(data):
                data[n] ^= 1 << rng.randrange(8)
            case 1 if n < len(data):
                del data[n : n + rng.choice((1, 2, 64))]
            case 2:
                data[n:n] = bytes(data[n : n + rng.choice((1, 5, 300))])
            case _:
                data[n:n] = rng.choice((b"\0", b"\n", b" ", b"{}", b"\xff", b'"', b"9"))
        data = data or bytearray(b"x")
    return given | {name: bytes(data)}


def unsigned_payload(given: Members, rng: random.Random) -> Members:
    made = payload(given)
    envelope = json.loads(given["statement.dsse.json"])
    envelope["payload"] = base64.b64encode(rfc8785.dumps(edited(made, rng, rng.choice(places(made))))).decode()
    return given | {"statement.dsse.json": rfc8785.dumps(envelope) + b"\n"}


def envelope_edited(given: Members, rng: random.Random) -> Members:
    name = rng.choice(("statement.dsse.json", "signer.pub.json"))
    made = json.loads(given[name])
    return given | {name: rfc8785.dumps(edited(made, rng, rng.choice(places(made)))) + b"\n"}


def files_mixed(given: Members, rng: random.Random) -> Members:
    other = honest(rng.choice(sorted(STORIES)))
    name = rng.choice(sorted(given | other))
    return {k: v for k, v in given.items() if k != name} | ({name: other[name]} if name in other else {})


def journal_shuffled(given: Members, rng: random.Random) -> Members:
    return given | {"journal.jsonl": b"".join(shuffled(lines_of(given), rng))}


def journal_edited(given: Members, rng: random.Random) -> Members:
    entries = [json.loads(line) for line in lines_of(given)]
    n = rng.randrange(len(entries))
    entries[n] = edited(entries[n], rng, rng.choice(places(entries[n])))
    return given | {"journal.jsonl": chained(entries) if rng.randrange(2) else b"".join(rfc8785.dumps(e) + b"\n" for e in entries)}


def owner_statement(given: Members, rng: random.Random) -> Members:
    made = payload(given)
    for _ in range(rng.choice((1, 1, 2))):
        made = edited(made, rng, rng.choice(places(made)))
    return signed(given, made)


def owner_digests(given: Members, rng: random.Random) -> Members:
    """Another journal under the old claims, its digest and head put right."""
    given = rng.choice((journal_edited, journal_shuffled))(given, rng)
    made = payload(given)
    made["subject"][0]["digest"]["sha256"] = hashlib.sha256(given["journal.jsonl"]).hexdigest()
    lines = lines_of(given)
    if lines:
        made["predicate"]["journal"].update(records=len(lines), head=hashlib.sha256(lines[-1]).hexdigest())
    return signed(given, made)


def owner_rewrites(given: Members, rng: random.Random) -> Members:
    """Another journal, whole and chained, and the statement that it honestly leads to."""
    entries = [json.loads(line) for line in lines_of(given)]
    for _ in range(rng.choice((1, 1, 3))):
        if rng.randrange(2) or not entries:
            entries = shuffled(entries, rng)
        else:
            n = rng.randrange(len(entries))
            entries[n] = edited(
                entries[n], rng, rng.choice([p for p in places(entries[n]) if p[0] in ("body", "at", "kind")] or [("kind",)])
            )
    files = {name: given[name] for name in ("results.json", "samples.jsonl") if name in given}
    try:
        journal = chained(entries)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        made = statement.build(chain.read(journal).entries, digests, producer=PRODUCER, results=files.get("results.json"))
        return members(made, journal, files)
    except (chain.Broken, Nonsense, ValueError):
        return owner_digests(given, rng)


Mutation = Callable[[Members, random.Random], Members]
OUTSIDERS: list[Mutation] = [bytes_changed, unsigned_payload, envelope_edited, files_mixed, journal_shuffled, journal_edited]
OWNERS: list[Mutation] = [owner_statement, owner_statement, owner_digests, owner_rewrites, owner_rewrites]


def one(seed: int, folder: Path, held: Members, agree: Callable[[Path, Report], object]) -> tuple[str, int]:
    """Make that seed's bundle and hold everybody to it; the name of the mutation and verify's exit code."""
    rng = random.Random(seed)
    before = honest(rng.choice(sorted(STORIES)))
    mutation = rng.choice(OUTSIDERS if rng.randrange(2) else OWNERS)
    given = mutation(before, rng)
    for name in held.keys() - given.keys():
        (folder / name).unlink()
    for name, data in given.items():
        if held.get(name) != data:
            (folder / name).write_bytes(data)
    held.clear()
    held.update(given)
    report = verify.verify(folder)
    report.text(), report.json()
    agree(folder, report)
    if report.exit == 0:
        assert report.predicate is not None
        if mutation in OUTSIDERS:
            # What nobody signed may be gone or mixed: the reports, and files that the statement does not name.
            known = {"report.md", "report.html", *(s["name"] for s in payload(given)["subject"]), *verify.OWN}
            assert payload(given) == payload(before) or any(payload(given) == payload(honest(s)) for s in STORIES), seed
            assert all(given[name] == before.get(name) or name not in known for name in given) or mutation is files_mixed, seed
        elif mutation is owner_statement:
            stated, was = payload(given)["predicate"], payload(before)["predicate"]
            later = stated["schemaMinor"] > statement.SCHEMA_MINOR
            assert later or {k: v for k, v in stated.items() if k not in FREE} == {k: v for k, v in was.items() if k not in FREE}, seed
        claimed = report.predicate
        assert not claimed["clean"] or (claimed["verdict"] == "released" and len(claimed["sweeps"]) >= 2), seed
    return mutation.__name__, report.exit


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--from", dest="start", type=int, help="the first seed; without it, on from where it stopped")
    parser.add_argument("--state", type=Path, default=Path(".cache/proof-mutations.json"))
    options = parser.parse_args(argv)
    from tests.evidence.test_auditor import agree

    done: dict[str, Any] = {"next": 0, "seconds": 0.0, "counts": {}}
    if options.start is None and options.state.exists():
        done = json.loads(options.state.read_text())
    elif options.start is not None:
        done["next"] = options.start
    begun, end, held = time.monotonic() - done["seconds"], options.count + (options.start or 0), {}
    first = done["next"]
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    for seed in range(first, end):
        try:
            name, code = one(seed, folder, held, agree)
            key = f"{name} {code}"
        except Exception as e:  # the program ends here; every seed that fails is wanted, not the first alone
            key = f"FAILED {type(e).__name__}"
            done.setdefault("failed", []).append(f"{seed}: {type(e).__name__}: {str(e)[:600]}")
        done["counts"][key] = done["counts"].get(key, 0) + 1
        if seed % 1000 == 999 or seed == end - 1:
            done |= {"next": seed + 1, "seconds": round(time.monotonic() - begun, 1)}
            options.state.parent.mkdir(parents=True, exist_ok=True)
            options.state.write_text(json.dumps(done))
            print(f"\r{seed + 1} of {end}, {done['seconds']} s", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(json.dumps(done, indent=1, sort_keys=True))
    return int("failed" in done)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
