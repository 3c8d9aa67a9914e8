"""What a journal line must look like before we dare to read meaning out of it, and the small checker that says so.

The shapes are JSON Schema (2020-12), in the few keywords that `first_error` understands; the shape of the signed
statement is in `predicate`, and is published as `docs/schema/gpu-run-shutdown-v1.json` for other people's tools.
A body may hold more fields than are named here: the journal grows, and only what the statement is derived from is
checked. What is named has its type, so nothing that is derived later can fail on a stranger's file.

A validator from a package would bring four more packages into the one program that an auditor has to trust.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from provisioner.evidence.canonical import milliseconds
from provisioner.model import Json

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string", "maxLength": 4096}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}
FLAG: Schema = {"type": "boolean"}
TIME: Schema = {"type": "string", "format": "date-time"}
SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
LEASE: Schema = {"type": "string", "pattern": "^r-[0-9]{8}t[0-9]{6}z-[0-9a-hjkmnp-tv-z]{8}$"}
VERDICT: Schema = {"enum": ["released", "leaving", "held", "unproven"]}
OUTCOME: Schema = {"enum": ["completed", "failed", "interrupted", "recovered", "guard-fired", "never-launched"]}
PHASE: Schema = {"enum": ["coming", "here", "leaving", "gone"]}


def shape(required: Schema, optional: Schema | None = None, *, closed: bool = True) -> Schema:
    """An object with those members."""
    made = {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}
    return made | ({"additionalProperties": False} if closed else {})


def array(items: Schema, limit: int = 100_000) -> Schema:
    return {"type": "array", "items": items, "maxItems": limit}


ENTRY = shape(
    {
        "at": shape({"wall": TIME}, {"monoMs": COUNT, "aws": TIME, "uncMs": COUNT}),
        "body": {"type": "object"},
        "kind": {"type": "string", "pattern": "^[a-z][a-z-]{0,31}$"},
        "prev": SHA256,
        "seq": COUNT,
        "v": {"const": 1},
    }
)

_PRICE = shape({"microUsdPerHour": COUNT, "source": TEXT, "asOf": TEXT}, closed=False)
_LINE = shape(
    {"name": TEXT, "microUsdPerHour": COUNT},
    {"source": TEXT, "asOf": TEXT, "fixedMicroUsd": COUNT, "microUsdPerHourLow": COUNT, "microUsdPerHourUsual": COUNT},
    closed=False,
)
_QUOTE = shape({}, {"lines": array(_LINE, 100)}, closed=False)
_PRODUCER = shape({}, {"name": TEXT, "version": TEXT, "pythonVersion": TEXT}, closed=False)
_OFFER = shape({}, {"region": TEXT, "zone": TEXT, "type": TEXT, "gpu": TEXT, "spot": FLAG, "price": _PRICE}, closed=False)
_SEEN = {"class": TEXT, "id": TEXT, "region": TEXT, "state": TEXT, "phase": PHASE, "billed": FLAG, "facts": {"type": "object"}}
_ASK = {"op": {"enum": ["create", "remove"]}, "class": TEXT}
_LOOKED = shape({"class": TEXT, "region": TEXT, "checked": FLAG, "found": COUNT}, {"reason": TEXT}, closed=False)

DRILLED = shape({"date": TIME, "region": TEXT, "secondsLate": COUNT})

BODIES: dict[str, Schema] = {
    "genesis": shape(
        {"lease": LEASE, "provider": TEXT},
        {
            "profile": shape({"name": TEXT}, {"sha256": SHA256}, closed=False),
            "deadline": TIME,
            "maxRunSeconds": COUNT,
            "budgetMicroUsd": COUNT,
            "offer": _OFFER,
            "quote": _QUOTE,
            "producer": _PRODUCER,
            "simulated": FLAG,
            "rebuilt": FLAG,
            "elsewhere": FLAG,
            "waived": array(TEXT, 100),
        },
        closed=False,
    ),
    "guard": shape(
        {"guard": TEXT, "state": {"enum": ["armed", "read-back", "waived", "removed", "failed"]}},
        {"firesAt": TIME, "drilled": DRILLED},
        closed=False,
    ),
    "intent": shape(_ASK, {"token": TEXT, "id": TEXT, "params": shape({}, {"quote": _QUOTE}, closed=False)}, closed=False),
    "done": shape({**_ASK, "intentSeq": COUNT, "id": TEXT}, {k: v for k, v in _SEEN.items() if k not in ("class", "id")}, closed=False),
    "failed": shape({**_ASK, "intentSeq": COUNT}, {"id": TEXT, "code": TEXT, "why": TEXT}, closed=False),
    "unknown": shape({**_ASK, "intentSeq": COUNT}, {"why": TEXT}, closed=False),
    "observe": shape(
        {"class": TEXT, "id": TEXT, "phase": PHASE}, {k: v for k, v in _SEEN.items() if k != "phase"} | {"token": TEXT}, closed=False
    ),
    "sweep": shape({"checked": FLAG, "classes": array(_LOOKED, 500), "found": COUNT}, {"error": TEXT}, closed=False),
    "recovered": shape({}, {"by": TEXT, "tornSha256": SHA256}, closed=False),
    "verdict": shape({"verdict": VERDICT}, {"settleSeconds": COUNT, "openIntents": COUNT}, closed=False),
    "outcome": shape({"outcome": OUTCOME}, {"exit": COUNT}, closed=False),
    "anchor": shape({}, {"head": {"type": "string", "pattern": "^[0-9a-f]{32}$"}, "requestId": TEXT, "providerDate": TIME}, closed=False),
    "seal": shape({"files": {"type": "object", "additionalProperties": SHA256}}, closed=False),
}


def first_error(value: Json, schema: Schema, path: str = "$") -> tuple[str, str] | None:
    """Where a value first departs from its schema, and how; None when it does not."""
    return next(_errors(value, schema, path), None)


def _errors(value: Json, schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    if "const" in schema and not _same(value, schema["const"]):
        yield path, f"is {value!r}, must be {schema['const']!r}"
    if "enum" in schema and not any(_same(value, allowed) for allowed in schema["enum"]):
        yield path, f"is {str(value)[:40]!r}, must be one of {', '.join(schema['enum'])}"
    if "type" in schema and not _is(value, schema["type"]):
        yield path, f"is not of type {schema['type']}"
        return
    match value:
        case dict():
            yield from _members(value, schema, path)
        case list():
            if len(value) > schema.get("maxItems", len(value)):
                yield path, f"has {len(value)} items, at most {schema['maxItems']} are allowed"
            elif len(value) < schema.get("minItems", 0):
                yield path, f"has {len(value)} items, at least {schema['minItems']} are needed"
            elif "items" in schema:
                for n, item in enumerate(value):
                    yield from _errors(item, schema["items"], f"{path}[{n}]")
        case str():
            if len(value) > schema.get("maxLength", len(value)):
                yield path, f"is {len(value)} characters long, at most {schema['maxLength']} are allowed"
            # fullmatch with the anchors stripped: `$` alone would let a trailing newline through.
            elif "pattern" in schema and not re.fullmatch(schema["pattern"].removeprefix("^").removesuffix("$"), value):
                yield path, f"does not match {schema['pattern']}"
            elif schema.get("format") == "date-time" and milliseconds(value) is None:
                yield path, "is not an RFC 3339 time with a Z between 2000 and 2199"
        case int() if not isinstance(value, bool):
            if value < schema.get("minimum", value) or value > schema.get("maximum", value):
                yield path, f"is {value}, outside its range"


def _members(value: dict[str, Json], schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{path}.{name}", "is missing"
    known = schema.get("properties", {})
    for name, item in value.items():
        rest = schema.get("additionalProperties", True)
        if name in known:
            yield from _errors(item, known[name], f"{path}.{name}")
        elif rest is False:
            yield f"{path}.{name[:80]}", "is not a field this version knows"
        elif rest is not True:
            yield from _errors(item, rest, f"{path}.{name[:80]}")


def _is(value: Json, kind: str) -> bool:
    match kind:
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case _:
            return isinstance(value, int) and not isinstance(value, bool)


def _same(a: Json, b: Json) -> bool:
    return type(a) is type(b) and a == b
