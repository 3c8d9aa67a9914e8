"""Bundles, honest and broken at random: what somebody without the key can do to one, and what its owner can.

Each mutation takes a bundle's files and gives a bundle's files, by a generator of random numbers that is its own. `mutations`
says what must hold of what comes out.
"""

from __future__ import annotations

import base64
import copy
import functools
import gzip
import hashlib
import json
import random
from collections.abc import Callable
from typing import Any

from provisioner.evidence import archive, canonical, chain, page, render, sign, statement
from provisioner.evidence.history import Nonsense
from tests.evidence import test_scheduled, trail
from tests.evidence.bundles import files_of, keys, state
from tests.evidence.journals import FILES, INST, LEASE, PRODUCER, STORIES
from tests.evidence.tape import Tape

Members = dict[str, bytes]
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


def beside(tier: str) -> Tape:
    """A rehearsal with what AWS would say of it, up to that tier."""
    tape = trail.rehearsed()
    recorded = trail.events(tape)
    tape.aws |= trail.copied(recorded) if tier != "identified" else {}
    tape.aws |= trail.logged(recorded, trail.HOURS) if tier == "corroborated" else {}
    return tape


def fleet() -> Tape:
    tape = Tape()
    test_scheduled.through_a_fleet(tape)
    tape.run()
    tape.remove("fleet", test_scheduled.FLEET)
    tape.observe("instance", INST, "gone", "terminated", stateReason="Client.UserInitiatedShutdown")
    return test_scheduled.fleet_gone(tape).end(files=FILES)


def scheduled() -> Tape:
    tape = Tape().genesis().launch()
    tape.done(tape.intent("schedule"), test_scheduled.NAME, "asked for", "coming")
    test_scheduled.armed(tape)
    tape.wait(400)
    tape.remove("schedule", test_scheduled.NAME)
    return test_scheduled.ended(tape).end("guard-fired", {})


TALES: dict[str, Callable[[], Tape]] = (
    STORIES
    | {"fleet": fleet, "scheduled": scheduled}
    | {tier: functools.partial(beside, tier) for tier in ("identified", "recorded", "corroborated")}
)


@functools.cache
def honest(story: str) -> Members:
    tape = TALES[story]()
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

    dsse = Envelope(canonical.dumps(made), sign.PAYLOAD_TYPE, {})
    dsse.sign(sign.key(keys()))
    return given | {"statement.dsse.json": canonical.dumps(dsse.to_dict()) + b"\n"}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [place for name, inner in pairs for place in places(inner, (*path, name))]


def edited(value: Any, rng: random.Random, path: tuple[Any, ...]) -> Any:
    """The value with one thing changed at that place: another value, none, a neighbour's, twice, under another name."""
    value = json.loads(json.dumps(value))  # a copy, and faster than one
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
        made.append(canonical.dumps(entry) + b"\n")
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
    envelope["payload"] = base64.b64encode(canonical.dumps(edited(made, rng, rng.choice(places(made))))).decode()
    return given | {"statement.dsse.json": canonical.dumps(envelope) + b"\n"}


def envelope_edited(given: Members, rng: random.Random) -> Members:
    name = rng.choice(("statement.dsse.json", "signer.pub.json"))
    made = json.loads(given[name])
    return given | {name: canonical.dumps(edited(made, rng, rng.choice(places(made)))) + b"\n"}


def files_mixed(given: Members, rng: random.Random) -> Members:
    other = honest(rng.choice(sorted(TALES)))
    name = rng.choice(sorted(given | other))
    return {k: v for k, v in given.items() if k != name} | ({name: other[name]} if name in other else {})


def journal_shuffled(given: Members, rng: random.Random) -> Members:
    return given | {"journal.jsonl": b"".join(shuffled(lines_of(given), rng))}


def journal_edited(given: Members, rng: random.Random) -> Members:
    entries = [json.loads(line) for line in lines_of(given)]
    n = rng.randrange(len(entries))
    entries[n] = edited(entries[n], rng, rng.choice(places(entries[n])))
    return given | {"journal.jsonl": chained(entries) if rng.randrange(2) else b"".join(canonical.dumps(e) + b"\n" for e in entries)}


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
    try:
        return honestly(chained(entries), named(given))
    except (chain.Broken, Nonsense, ValueError):
        return owner_digests(given, rng)


def named(given: Members) -> Members:
    """The files that a statement names beside the journal."""
    return {name: data for name, data in given.items() if name in ("results.json", "samples.jsonl") or name.startswith("aws/")}


def honestly(journal: bytes, files: Members) -> Members:
    """The bundle that this journal and these files lead to."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    aws = {name: data for name, data in files.items() if name.startswith("aws/")}
    made = statement.build(chain.read(journal).entries, digests, producer=PRODUCER, results=files.get("results.json"), aws=aws)
    return members(made, journal, files)


def resealed(given: Members, files: Members) -> Members:
    """The same journal over other files: its last line says so, or the statement alone where it was never sealed."""
    entries = [json.loads(line) for line in lines_of(given)]
    seals = [entry["body"]["files"] for entry in entries if entry.get("kind") == "seal"]
    for name in seals[-1] if seals else ():
        if name in files:
            seals[-1][name] = hashlib.sha256(files[name]).hexdigest()
    return honestly(chained(entries), files)


def owner_results(given: Members, rng: random.Random) -> Members:
    """Other results, sealed and signed."""
    if "results.json" not in given:
        return owner_statement(given, rng)
    made = json.loads(given["results.json"])
    made = edited(made, rng, rng.choice(places(made)))
    try:
        return resealed(given, named(given) | {"results.json": json.dumps(made).encode()})
    except Nonsense:
        return given | {"results.json": json.dumps(made).encode()}


def owner_aws(given: Members, rng: random.Random) -> Members:
    """AWS's material edited by the key's owner, who has no key of AWS's: one value, one file of another, one file less."""
    files = named(given)
    names = [name for name in sorted(files) if name.startswith("aws/")]
    if not names:
        return owner_rewrites(given, rng)
    name = rng.choice(names)
    match rng.randrange(4):
        case 0:
            del files[name]
        case 1:
            files[name] = files[rng.choice(names)]
        case 2:
            files |= {name: bytes_changed({name: files[name]}, rng)[name]}
        case _:
            files[name] = aws_edited(files[name], rng)
    try:
        return resealed(given, files)
    except (Nonsense, ValueError):
        return given


def aws_edited(data: bytes, rng: random.Random) -> bytes:
    """One value changed in a file of JSON, of lines of JSON or of either packed; a byte in one that is neither."""
    packed = data[:2] == b"\x1f\x8b"
    lines = (gzip.decompress(data) if packed else data).splitlines()
    n = rng.randrange(len(lines))
    try:
        made = json.loads(lines[n])
        lines[n] = json.dumps(edited(made, rng, rng.choice(places(made)))).encode()
    except ValueError:
        lines[n] = bytes_changed({"x": lines[n] or b"x"}, rng)["x"]
    again = b"\n".join(lines) + (b"" if packed else b"\n")
    return gzip.compress(again, mtime=0) if packed else again


def archive_changed(given: Members, rng: random.Random) -> Members:
    """The one file that is handed over, with bytes changed or another bundle's file in it."""
    given = files_mixed(given, rng) if rng.randrange(2) else given
    return bytes_changed({"zip": archive.packed(given, f"{LEASE}.evidence")}, rng)


Mutation = Callable[[Members, random.Random], Members]
OUTSIDERS: list[Mutation] = [
    bytes_changed,
    unsigned_payload,
    envelope_edited,
    files_mixed,
    journal_shuffled,
    journal_edited,
    archive_changed,
]
OWNERS: list[Mutation] = [owner_statement, owner_statement, owner_digests, owner_rewrites, owner_rewrites, owner_results, owner_aws]
