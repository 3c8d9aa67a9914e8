"""Bundles made from the stories, and what the owner of the key can do to them: anything, and sign it again."""

from __future__ import annotations

import functools
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from provisioner.evidence import bundle, chain, sign, statement
from tests.evidence.journals import FILES, PRODUCER, STORIES, Tape


@functools.cache
def keys() -> Path:
    """One signing key for all tests: making one is not what they are about."""
    return Path(tempfile.mkdtemp(prefix="gpulease-test-keys-")) / "keys"


def files_of(tape: Tape) -> dict[str, bytes]:
    seals = [e["body"]["files"] for e in tape.entries if e["kind"] == "seal"]
    return {name: (FILES | tape.aws)[name] for name in (seals[-1] if seals else ())} | tape.aws


def state(tape: Tape) -> dict[str, Any]:
    """The honest statement of a story."""
    files = files_of(tape)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    aws = {name: data for name, data in files.items() if name.startswith("aws/")}
    entries = chain.read(tape.bytes).entries
    made: dict[str, Any] = statement.build(entries, digests, producer=PRODUCER, results=files.get("results.json"), aws=aws)
    return made


def write(folder: Path, tape: Tape, made: Any = None) -> Path:
    """A bundle of that story, with that statement or the honest one, signed by the key's owner either way."""
    made = state(tape) if made is None else made
    bundle.write(folder, made, sign.sign(made, keys()), tape.bytes, files_of(tape))
    return folder


@functools.cache
def _template(story: str) -> Path:
    return write(Path(tempfile.mkdtemp(prefix="gpulease-test-")) / story, STORIES[story]())


def copy(story: str, to: Path) -> Path:
    """An untouched bundle of a story, to be spoilt."""
    shutil.copytree(_template(story), to)
    return to


def forge(folder: Path, story: str, change: Callable[[dict[str, Any]], object]) -> Path:
    """The key's owner changes the statement and signs it again."""
    tape = STORIES[story]()
    made = state(tape)
    change(made)
    return write(folder, tape, made)
