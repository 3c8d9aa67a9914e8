"""Reads a journal's bytes and says whether they are one unbroken chain, or exactly where they stop being one.

The same rules as the writer's own reader in `journal`, and a few that only a stranger's file needs: bounds on the
file and on a line, no floats, no duplicate keys, and the fields that every line has. Every byte matters: a line must
be what RFC 8785 writes for its content, so a file has one valid form and a flipped bit has nowhere to hide.

A crash can leave half a line behind. That is the last line only, and it is reported as `torn`, not as tampering:
whether it was cut there by a crash or by somebody is for the statement to say, which knows how many records there were.

This file must not know what the entries mean, and keeps nothing between calls.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from provisioner.evidence.canonical import Malformed, loads
from provisioner.evidence.messages import Problem, problem
from provisioner.evidence.schema import ENTRY, first_error
from provisioner.journal import GENESIS, LINE_LIMIT, Entry

FILE_LIMIT = 64 << 20
RECORD_LIMIT = 50_000  # a run has some hundreds


@dataclass(frozen=True)
class Chain:
    """The sound part of a journal."""

    entries: tuple[Entry, ...]
    head: str  # sha256 of the last line
    sha256: str  # of the sound part
    torn: bytes  # what a crash, or somebody, left after it


class Broken(Exception):
    """The bytes are not a journal from `problem.offset` on."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def read(data: bytes) -> Chain:
    """The entries of a journal, or `Broken` with the first thing wrong, its record and its byte."""
    if len(data) > FILE_LIMIT:
        raise Broken(problem("E002", path="journal.jsonl", limit=f"{FILE_LIMIT >> 20} MiB"))
    entries: list[Entry] = []
    sound, head = 0, GENESIS
    while sound < len(data):
        end = data.find(b"\n", sound) + 1
        line = data[sound : end or len(data)]
        if not end or (end == len(data) and b"\0" in line):
            break
        if len(entries) == RECORD_LIMIT:
            raise Broken(problem("E002", path="journal.jsonl", limit=f"{RECORD_LIMIT} records"))
        entries.append(_entry(line, len(entries), sound, head))
        head = hashlib.sha256(line).hexdigest()
        sound += len(line)
    return Chain(tuple(entries), head, hashlib.sha256(data[:sound]).hexdigest(), data[sound:])


def _entry(line: bytes, seq: int, offset: int, head: str) -> Entry:
    if len(line) > LINE_LIMIT:
        why = f"{len(line)} bytes; a record has at most {LINE_LIMIT}"
        raise Broken(problem("E110", jsonpath=f"$journal[{seq}]", why=why, seq=seq, offset=offset))
    try:
        entry = loads(line[:-1])
    except Malformed:
        raise Broken(problem("E203", seq=seq, offset=offset)) from None
    wrong = first_error(entry, ENTRY, f"$journal[{seq}]")
    if wrong is not None:
        raise Broken(problem("E110", jsonpath=wrong[0], why=wrong[1], seq=seq, offset=offset))
    if entry["seq"] != seq or entry["prev"] != head:
        raise Broken(problem("E201", seq=seq, off=offset, before=seq - 1, offset=offset))
    assert isinstance(entry, dict)
    return entry
