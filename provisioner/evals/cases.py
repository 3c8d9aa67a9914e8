"""An eval set: a JSONL file of cases, checked to the letter and named by the sha256 of its exact bytes.

A case says what is asked (`messages`), how an answer is judged (`checks`) and one right answer (`gold`), which must
pass its own checks: a set whose gold fails is a set that measures something else. Everything wrong with a file is
told at once, each with its line and, for a key that is not one, the nearest that is. The bytes are what is measured,
so nothing is filled in, reordered or saved again.

The rules of the format are in `format.py` (pydantic, imported only here and only when a file is read).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provisioner import data
from provisioner.errors import RefusedError, UsageError

MAX_BYTES = 32 << 20
MAX_LINE = 1 << 20
MAX_CASES = 20000
MAX_COMPLAINTS = 20


@dataclass(frozen=True)
class Case:
    id: str
    messages: tuple[Mapping[str, str], ...]
    checks: tuple[Mapping[str, Any], ...]
    tags: tuple[str, ...] = ()
    gold: str = ""
    max_tokens: int | None = None

    def asked(self) -> dict[str, Any]:
        """What the client needs of it: never the checks or the gold."""
        said: dict[str, Any] = {"id": self.id, "messages": [dict(message) for message in self.messages]}
        return said if self.max_tokens is None else {**said, "max_tokens": self.max_tokens}


@dataclass(frozen=True)
class EvalSet:
    name: str
    sha256: str  # of the file's exact bytes
    cases: tuple[Case, ...]
    raw: bytes

    def public(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": self.sha256, "cases": len(self.cases)}


def load(path_or_name: str | Path) -> EvalSet:
    """A shipped set by its name ("smoke"), or a file by its path (anything with a slash or ending in .jsonl)."""
    text = str(path_or_name)
    if isinstance(path_or_name, Path) or "/" in text or text.endswith(".jsonl"):
        path = Path(path_or_name)
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        except OSError as fault:
            raise UsageError(f"cannot read the eval set {path}: {fault.strerror}") from None
        return parse(raw, path.stem, str(path))
    shipped = names()
    if text not in shipped:
        import difflib

        near = difflib.get_close_matches(text, shipped, 1)
        why = f'did you mean "{near[0]}"?' if near else f"shipped: {', '.join(shipped) or 'none'}"
        raise UsageError(f"there is no eval set {text[:60]!r}", why=why, next="give the path of a .jsonl file for a set of your own")
    return parse((data.folder("profiles") / "evals" / f"{text}.jsonl").read_bytes(), text, f"{text}.jsonl")


def names() -> list[str]:
    """The eval sets that ship with gpulease."""
    folder = data.folder("profiles") / "evals"
    return sorted(file.name[:-6] for file in folder.iterdir() if file.name.endswith(".jsonl")) if folder.is_dir() else []


def parse(raw: bytes, name: str, shown: str) -> EvalSet:
    """The set in these bytes, or RefusedError with every complaint. `shown` is the file's name in complaints."""
    complaints: list[str] = []
    cases: list[Case] = []
    seen: dict[str, int] = {}
    if len(raw) > MAX_BYTES:
        raise RefusedError(f"{shown} is larger than {MAX_BYTES >> 20} MiB", next="split the eval set")
    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.strip():
            continue
        if len(cases) == MAX_CASES:
            complaints.append(f"{shown}:{number}: more than {MAX_CASES} cases")
            break
        case, found = _case(line)
        complaints += [f"{shown}:{number}: {one}" for one in found]
        if case is not None:
            if case.id in seen:
                complaints.append(f"{shown}:{number}: the id {case.id!r} is already used on line {seen[case.id]}")
            seen.setdefault(case.id, number)
            cases.append(case)
        if len(complaints) >= MAX_COMPLAINTS:
            complaints = [*complaints[:MAX_COMPLAINTS], "and perhaps more: reading stopped here"]
            break
    if not cases and not complaints:
        complaints.append(f"{shown}: no cases")
    if complaints:
        many = "1 complaint" if len(complaints) == 1 else f"{len(complaints)} complaints"
        raise RefusedError(f"the eval set {shown} cannot be used: {many}", why="\n".join(complaints))
    return EvalSet(name, hashlib.sha256(raw).hexdigest(), tuple(cases), raw)


def _case(line: bytes) -> tuple[Case | None, list[str]]:
    from provisioner.evals import format, schema, score

    if len(line) > MAX_LINE:
        return None, [f"the line has {len(line)} bytes; at most {MAX_LINE}"]
    if line.startswith(b"\xef\xbb\xbf"):
        return None, ["the file begins with a byte order mark: save it as UTF-8 without one"]
    try:
        document = schema.loads(line.decode("utf-8"))
    except UnicodeDecodeError as fault:
        return None, [f"not UTF-8 at byte {fault.start + 1}"]
    except schema.NotJson as fault:
        return None, [f"not JSON: {fault}"]
    complaints = format.complaints(document)
    if complaints:
        return None, complaints
    case = Case(
        id=document["id"],
        messages=tuple(document["messages"]),
        checks=tuple(document["checks"]),
        tags=tuple(document.get("tags", ())),
        gold=document["gold"],
        max_tokens=document.get("max_tokens"),
    )
    failed = [one for one in (score.check(case.gold, check) for check in case.checks) if not one.ok]
    return case, [f"gold fails its own {one.type} check: {one.why}" for one in failed]
