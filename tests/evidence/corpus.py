"""Bundles of each released form, kept for ever: what they were found to be when they were made, they must still be.

    python -m tests.evidence.corpus 1.0       makes tests/evidence/corpus/1.0.tar.xz and 1.0.json, once for each form

A bundle here is never made again by a later version: the bytes stay, and `test_corpus` holds each to its exit code, its codes
and its exact messages. A reader that changes its mind about one of them has broken somebody's proof.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import random
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from provisioner.evidence import archive, bundle, sign, verify
from provisioner.evidence.outcome import Report
from tests.evidence import broken, test_archive, test_hostile, test_redact, trail
from tests.evidence import test_forgeries as forgeries
from tests.evidence.bundles import copy, forge, keys, write
from tests.evidence.journals import LEASE, STORIES
from tests.evidence.test_bundle import run_folder

FOLDER = Path(__file__).parent / "corpus"
BAD = 210
SEEDS = range(5_000_000, 5_100_000)


def found(report: Report, path: Path) -> dict[str, Any]:
    """What is held: everything that a program may rely on. The path is not the bundle's own."""
    document = report.json()
    problems = [f"{p['code']} {str(p['message']).replace(str(path), 'PATH')}" for p in (*document["problems"], *document["warnings"])]
    return {"exit": document["exit"], "tier": document["tier"], "clean": document.get("clean"), "problems": problems}


def good(base: Path) -> Iterator[tuple[str, Path]]:
    for story in STORIES:
        yield f"good/{story}", copy(story, base / story)
    for story in ("normal", "held", "rehearsal", "static", "rebuilt"):
        members = test_archive.members(copy(story, base / f"z-{story}"))
        (base / f"{story}.zip").write_bytes(archive.packed(members, f"{LEASE}.evidence"))
        yield f"good/{story}.zip", base / f"{story}.zip"
    deflated = test_archive.zipped(base / "deflated.zip", test_archive.members(copy("normal", base / "d")), zipfile.ZIP_DEFLATED)
    yield "good/deflated-by-another-program.zip", deflated
    for kind in ("ed25519", "rsa", "ecdsa-256"):
        folder = copy("normal", base / f"ssh-{kind}")
        _sign(folder, kind, base)
        yield f"good/signed-with-ssh-{kind}", folder
    for story in ("normal", "held", "recovered_by_watchdog", "refused_then_launched"):
        test_redact.copied(base / f"redacted-{story}", STORIES[story]())
        yield f"good/redacted-{story}", base / f"redacted-{story}"
    bundle.seal(run_folder(base / LEASE, STORIES["normal"]()), base / "sealed", keys(), version="1.0.0")
    yield "good/sealed-with-its-readme", base / "sealed"
    bare = copy("leaving", base / "bare")
    for name in ("report.md", "report.html"):
        (bare / name).unlink()
    yield "good/without-reports", bare
    more = copy("normal", base / "more")
    (more / "note.txt").write_text("not named in the statement\n")
    yield "good/with-a-file-that-is-not-named", more
    later = copy("normal", base / "later")
    made = broken.payload(test_archive.members(later))
    made["predicate"].update(schemaMinor=1_000_000, somethingNew=True)
    (later / "statement.dsse.json").write_bytes(sign.sign(made, keys()).raw)
    yield "good/of-a-later-minor-version", later
    for tier in ("identified", "recorded", "corroborated"):
        tape = trail.rehearsed()
        recorded = trail.events(tape)
        tape.aws |= trail.copied(recorded) if tier != "identified" else {}
        tape.aws |= trail.logged(recorded, trail.HOURS) if tier == "corroborated" else {}
        yield f"good/rehearsed-{tier}", write(base / f"r-{tier}", tape)
    for n, (story, change, _) in enumerate(forgeries.WEAKER.values()):
        yield f"good/claims-less-{n}", forgeries.rewrite(base / f"weaker-{n}", story, change)


def bad(base: Path) -> Iterator[tuple[str, Path]]:
    for n, (story, change, _) in enumerate(forgeries.STATEMENTS.values()):
        yield f"bad/statement-{n:02d}", forge(base / f"s{n}", story, change)
    for n, (story, change, _) in enumerate(forgeries.REFUSED_JOURNALS.values()):
        yield f"bad/journal-{n:02d}", forgeries.rewrite(base / f"j{n}", story, change)
    for n, (what, (data, _)) in enumerate(test_archive.HOSTILE.items()):
        if len(data) < 100_000:
            (base / f"h{n}.zip").write_bytes(data)
            yield f"bad/{what.replace(' ', '-')}.zip", base / f"h{n}.zip"
    files = test_archive.members(copy("never_launched", base / "names"))
    for n, name in enumerate(("../statement.dsse.json", "/etc/passwd", "a/../../b", "aws/../../x", "C:x", ".hidden", "x" * 101)):
        yield f"bad/unsafe-name-{n}.zip", test_archive.zipped(base / f"n{n}.zip", files | {name: b"x"})
    yield "bad/link.zip", test_archive.zipped(base / "link.zip", files, external_attr=0o120777 << 16)
    for n, raw in enumerate(
        (b"", b"null", b"[]", b"{}", b"\xff\xfe", b'{"clean":false,"clean":true}', b'{"n":NaN}', b'{"n":1.0}', b"[" * 9000)
    ):
        yield f"bad/payload-{n}", test_hostile.payload(base / f"p{n}", raw)
    ssh = copy("normal", base / "ssh-other")
    _sign(copy("held", base / "ssh-of"), "ed25519", base, ssh / "statement.sshsig")
    yield "bad/ssh-signature-of-another", ssh


def random_ones(base: Path, count: int) -> Iterator[tuple[str, Path]]:
    """Random ones, of as many sorts as there are: by what was done and by what was found."""
    seen: dict[tuple[str, tuple[str, ...]], int] = {}
    made = 0
    for seed in SEEDS:
        if made == count:
            return
        rng = random.Random(seed)
        before = broken.honest(rng.choice(sorted(STORIES)))
        mutation = rng.choice(broken.OUTSIDERS if rng.randrange(2) else broken.OWNERS)
        folder = base / str(seed)
        folder.mkdir()
        for name, data in mutation(before, rng).items():
            (folder / name).write_bytes(data)
        report = verify.verify(folder)
        sort = mutation.__name__, tuple(sorted({p.code for p in report.problems}))
        seen[sort] = seen.get(sort, 0) + 1
        # A page is compared by the version that rendered it, and by no later one: that alone is nothing to keep for ever.
        if report.exit and seen[sort] <= 8 and sort[1] != ("E701",):
            made += 1
            yield f"bad/{mutation.__name__.replace('_', '-')}-{seed}", folder


def _sign(folder: Path, kind: str, base: Path, to: Path | None = None) -> None:
    from tests.evidence.test_sshsig import key, message_of, signed

    path = base / f"key-{kind}"
    path = path if path.exists() else key(base, kind)
    (to or folder / "statement.sshsig").write_bytes(signed(path, message_of(folder)))


def packed(made: dict[str, Path]) -> bytes:
    """All of them in one solid archive: they have much in common, and a repository keeps each byte for ever."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz", preset=9) as tar:
        for name, path in sorted(made.items()):
            for file in sorted(inner for inner in path.rglob("*") if inner.is_file()) if path.is_dir() else [path]:
                data = file.read_bytes()
                info = tarfile.TarInfo(f"{name}/{file.relative_to(path)}" if path.is_dir() else name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@functools.cache
def expected(version: str) -> dict[str, dict[str, Any]]:
    return dict(json.loads((FOLDER / f"{version}.json").read_text("utf-8"))["bundles"])


def unpacked(version: str, to: Path) -> None:
    data = (FOLDER / f"{version}.tar.xz").read_bytes()
    assert hashlib.sha256(data).hexdigest() == json.loads((FOLDER / f"{version}.json").read_text("utf-8"))["sha256"]
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:xz") as tar:
        for info in tar:
            path = to / info.name
            assert info.isfile() and path.resolve().is_relative_to(to.resolve())
            path.parent.mkdir(parents=True, exist_ok=True)
            file = tar.extractfile(info)
            assert file is not None
            path.write_bytes(file.read())


def main(version: str) -> int:
    if (FOLDER / f"{version}.tar.xz").exists():
        raise SystemExit(f"{version} is there, and what is there stays as it is")
    with tempfile.TemporaryDirectory() as base:
        made = dict(good(Path(base))) | dict(bad(Path(base)))
        sofar = sum(name.startswith("bad/") for name in made)
        (Path(base) / "broken").mkdir()
        made |= dict(random_ones(Path(base) / "broken", BAD - sofar))
        bundles = {name: found(verify.verify(path), path) for name, path in sorted(made.items())}
        wrong = [name for name, one in bundles.items() if bool(one["exit"]) != name.startswith("bad/")]
        assert not wrong, wrong
        data = packed(made)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{version}.tar.xz").write_bytes(data)
    document = {"form": version, "sha256": hashlib.sha256(data).hexdigest(), "bundles": bundles}
    (FOLDER / f"{version}.json").write_text(json.dumps(document, indent=0, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")
    print(f"{sum(n.startswith('good/') for n in bundles)} good, {sum(n.startswith('bad/') for n in bundles)} bad, {len(data)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
