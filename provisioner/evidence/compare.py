"""Finds the first field in which two statements differ, and the journal record that the field comes from.

Strict about types: 1 and true are equal to Python and are two different claims.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from provisioner.journal import Entry
from provisioner.model import Json

Path = tuple[str | int, ...]
ABSENT = "absent"


def different(stated: Json, rebuilt: Json, *, later: bool = False, path: Path = ()) -> tuple[Path, Json, Json] | None:
    """Where and how they differ: the path, what is stated and what was derived. `later` lets unknown fields be."""
    if isinstance(stated, dict) and isinstance(rebuilt, dict):
        names = [*rebuilt, *(name for name in stated if name not in rebuilt and not later)]
        pairs: list[tuple[str | int, Json, Json]] = [(name, stated.get(name, ABSENT), rebuilt.get(name, ABSENT)) for name in names]
    elif isinstance(stated, list) and isinstance(rebuilt, list):
        longest = range(max(len(stated), len(rebuilt)))
        pairs = [(n, stated[n] if n < len(stated) else ABSENT, rebuilt[n] if n < len(rebuilt) else ABSENT) for n in longest]
    else:
        return None if type(stated) is type(rebuilt) and stated == rebuilt else (path, stated, rebuilt)
    for name, a, b in pairs:
        found = different(a, b, later=later, path=(*path, name))
        if found is not None:
            return found
    return None


def dotted(path: Path) -> str:
    """The path as people write it: `instances[0].type`."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")


def record_of(path: Path, predicate: dict[str, Any], entries: Sequence[Entry]) -> int:
    """The record that says most about a field: the one its own row names, else the last of the kind it comes from."""
    if path and path[0] == "run" and path[-1] not in ("outcome", "endedAt", "endedAtUncertaintyMs"):
        return 0
    found: Json = None
    here: Json = predicate
    for step in path:
        if isinstance(here, dict):
            found = next((here[name] for name in ("seq", "createIntentSeq", "journalSeq", "firstSeq") if name in here), found)
        try:
            here = here[step]
        except (KeyError, IndexError, TypeError):
            break
    if isinstance(found, int):
        return found
    kinds = {"verdict": "verdict", "clean": "sweep", "settleSeconds": "sweep", "sweeps": "sweep", "outcome": "outcome", "guards": "guard"}
    kind = next((kinds[step] for step in path if step in kinds), "verdict" if "endedAt" in str(path[-1:]) else "")
    return next((int(e["seq"]) for e in reversed(entries) if e["kind"] == kind), int(entries[-1]["seq"]))
