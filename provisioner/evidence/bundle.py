"""Writes the folder that is handed over, whole or not at all.

Everything goes into a new folder beside the old one, each file and then the folder synced, and a rename puts it in
place; a crash leaves the old proof or the new one. Files are 0600 and the folder 0700: whom to show it to is the
user's to decide.

`seal` is the usual way in: it takes a lease's own folder and does the rest. It reads the journal again from the disk,
because the proof speaks of the bytes that are there and not of what a process remembers.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from provisioner.data import folder as folder_of
from provisioner.errors import RunError
from provisioner.evidence import bill, chain, identified, page, render, sign, statement
from provisioner.evidence.corroboration import IDENTITY
from provisioner.evidence.files import FILE_LIMIT, NAME, Folder, Unreadable
from provisioner.evidence.history import Nonsense
from provisioner.journal import Entry, sync_folder
from provisioner.model import Json

COVERED = ("results.json", "samples.jsonl", "profile.yaml")
"""What of a lease's folder goes into its proof when the journal's seal does not name its files. Never keys."""


def covered(names: Iterable[str]) -> list[str]:
    """Which of the files in a lease's folder a seal names."""
    there = sorted(names)
    return [name for name in COVERED if name in there] + [name for name in there if name.startswith(IDENTITY)]


def seal(run: Path, out: Path, keys: Path, *, version: str, supersedes: bool = False) -> dict[str, Json]:
    """Make the evidence folder `out` of the lease's folder `run`, and return the statement that was signed.

    With `supersedes` it names the statement that lies there now, whose place it takes.
    """
    try:
        with Folder(run) as folder:
            journal = folder.read("journal.jsonl", chain.FILE_LIMIT)
            read = chain.read(journal)
            sealed = [e["body"].get("files", {}) for e in read.entries if e["kind"] == "seal"]
            names = [name for name in (sealed[-1] if sealed else covered(folder.names)) if name in folder.names and name != "journal.jsonl"]
            names += [name for name in folder.names if name.startswith(ADDED)]
            files = {name: folder.read(name, LIMITS.get(name, FILE_LIMIT)) for name in names}
        files["README.md"] = readme(run.name)
        journal = journal[: len(journal) - len(read.torn)]
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        producer = {"name": "gpulease", "version": version, "pythonVersion": platform.python_version()}
        made = stated(read.entries, digests, producer, files)
        if supersedes and (out / "statement.dsse.json").is_file():
            made["predicate"]["supersedes"] = {"sha256": hashlib.sha256((out / "statement.dsse.json").read_bytes()).hexdigest()}
    except (Unreadable, chain.Broken, Nonsense) as e:
        raise RunError("no proof could be made of this lease", why=e.problem.message, next=f"ls -l {run}") from None
    envelope = sign.sign(made, keys)
    try:
        beside = _billed(run, made, envelope, keys)
    except (Unreadable, Nonsense) as e:
        raise RunError("the bill beside this lease cannot be used", why=e.problem.message, next=f"rm {run / bill.FILE}") from None
    write(out, made, envelope, journal, files, beside)
    return made


def _billed(run: Path, made: Json, envelope: sign.Envelope, keys: Path) -> dict[str, bytes]:
    """The second statement, of what was billed, and the answer that it is made of; nothing where nobody has asked."""
    with Folder(run) as folder:
        if bill.FILE not in folder.names:
            return {}
        answer = folder.read(bill.FILE, bill.LIMIT)
    second = sign.sign(bill.build(made["predicate"], envelope.raw, answer), keys)
    return {bill.FILE: answer, bill.ENVELOPE: second.raw}


def readme(lease: str) -> bytes:
    """How to check it, with ours and without; signed as the other files are, so nobody can send a sceptic to another script."""
    auditor = folder_of("auditor").joinpath("verify_shutdown.py").read_bytes()
    return README.format(lease=lease, sha256=hashlib.sha256(auditor).hexdigest()).encode()


README = """# Shutdown proof of {lease}

Open report.html to read it. Do not believe it: check it, offline.

    gpulease verify {lease}.evidence

Without gpulease: one file of Python that can be read in one sitting and needs nothing but Python 3.11 (and OpenSSL, or the package
`cryptography`). `gpulease show auditor` prints it, and it is in the sources as auditor/verify_shutdown.py:

    sha256  {sha256}

    python3 verify_shutdown.py {lease}.evidence

| file | is |
|---|---|
| statement.dsse.json | the signed statement: a DSSE envelope around an in-toto statement |
| signer.pub.json | the public key of that signature; it says nothing about whose it is |
| journal.jsonl | what was done and seen, line by line, a hash chain; all of the statement follows from it |
| results.json, samples.jsonl, profile.yaml | what was measured and asked for, where there is any |
| report.html, report.md | the statement in words; made from it and compared with it |

What the statement does not show stands in the statement, under `limits`, and in the report, in sentences.
"""


def stated(
    entries: Sequence[Entry], digests: Mapping[str, str], producer: Mapping[str, str], files: Mapping[str, bytes]
) -> dict[str, Json]:
    """The statement, which claims nothing by an identity document that could not be checked here."""
    aws, results = {name: data for name, data in files.items() if name.startswith("aws/")}, files.get("results.json")
    made = statement.build(entries, digests, producer=producer, results=results, aws=aws)
    whole, wrong, _ = identified.doubts(made["predicate"], aws)
    if whole or made["predicate"]["corroboration"]["iid"] != "present":
        return made
    why = "the-signature-does-not-fit" if wrong else "no-certificate-for-the-region"
    return statement.build(entries, digests, producer=producer, results=results, aws=aws, unchecked=why)


ADDED = "aws/cloudtrail/"
"""What was asked of AWS later: no seal names it."""

LIMITS = {"results.json": render.RESULTS_LIMIT, "profile.yaml": 1 << 20}


def write(
    folder: Path,
    made: Json,
    envelope: sign.Envelope,
    journal: bytes,
    files: Mapping[str, bytes],
    beside: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Put the bundle at `folder`, replacing what was there. `beside` are files that the statement does not name."""
    members = {
        **beside,
        **files,
        "journal.jsonl": journal,
        "statement.dsse.json": envelope.raw,
        "signer.pub.json": envelope.public,
        "report.md": render.report(made, files.get("results.json")),
        "report.html": page.page(made, files.get("results.json")),
    }
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")
    part.mkdir(mode=0o700)
    try:
        for name, data in members.items():
            _file(part, name, data)
        for above in {above for name in members for above in (part / name).parents if above.is_relative_to(part)}:
            sync_folder(above)
        _swap(part, folder)
    except BaseException:  # whatever ended it: half a proof must not lie beside the whole one
        shutil.rmtree(part, ignore_errors=True)
        raise


def members(folder: Path) -> dict[str, bytes]:
    """What is handed over: the files that the statement names and those that the proof is made of, and nothing else there."""
    with Folder(folder) as opened:
        return {name: opened.read(name, FILE_LIMIT) for name in opened.names if NAME.fullmatch(name)}


def _file(folder: Path, name: str, data: bytes) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name for a file in a bundle")
    for above in reversed((folder / name).relative_to(folder).parents[:-1]):  # each by itself: `parents=True` gives the upper ones no mode
        (folder / above).mkdir(mode=0o700, exist_ok=True)
    fd = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _swap(part: Path, folder: Path) -> None:
    old = folder.with_name(f"{part.name}.old")
    if folder.exists():
        os.rename(folder, old)
    os.rename(part, folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
