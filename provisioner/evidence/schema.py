"""What a journal line must look like before we dare to read meaning out of it, and the small checker that says so.

The shapes are JSON Schema (2020-12), in the few keywords that `first_error` understands; the shape of the signed
statement is in `predicate`, and is published as `docs/schema/gpu-run-shutdown-v1.json` for other people's tools.
A body may hold more fields than are named here: the journal grows, and only what the statement is derived from is
checked. What is named has its type, so nothing that is derived later can fail on a stranger's file.

A validator from a package would bring four more packages into the one program that an auditor has to trust.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
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
_LISTED = {"class": TEXT, "regions": array(TEXT, 500), "checked": FLAG}

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
    "baseline": shape({"classes": array(shape(_LISTED, {"reason": TEXT}, closed=False), 500)}, {"sha256": SHA256}, closed=False),
    "unfiltered": shape(
        {"classes": array(shape(_LISTED | {"ours": COUNT}, {"newUnexplained": COUNT, "reason": TEXT}, closed=False), 500)}, closed=False
    ),
    "recovered": shape({}, {"by": TEXT, "tornSha256": SHA256}, closed=False),
    "verdict": shape({"verdict": VERDICT}, {"settleSeconds": COUNT, "openIntents": COUNT}, closed=False),
    "outcome": shape({"outcome": OUTCOME}, {"exit": COUNT}, closed=False),
    "anchor": shape({}, {"head": {"type": "string", "pattern": "^[0-9a-f]{32}$"}, "requestId": TEXT, "providerDate": TIME}, closed=False),
    "seal": shape({"files": {"type": "object", "additionalProperties": SHA256}}, closed=False),
}


Check = Callable[[Any], tuple[str, str] | None]
"""Where below a value it first departs from a shape (`.name` and `[n]`), and how; None when it does not."""

_CHECKS: dict[int, tuple[Schema, Check]] = {}


def first_error(value: Json, schema: Schema, path: str = "$") -> tuple[str, str] | None:
    """Where a value first departs from its schema, and how; None when it does not.

    A schema is made into a function once: it is held for as long as the program runs, so it is a constant of a module's.
    """
    held = _CHECKS.get(id(schema))
    if held is None:
        held = _CHECKS[id(schema)] = schema, _check(schema)  # with the schema itself, so that its id stays its own
    wrong = held[1](value)
    return None if wrong is None else (path + wrong[0], wrong[1])


def _check(schema: Schema) -> Check:
    """The function that looks at a value: of a schema that says little it does little, and a journal has lines by the thousand."""
    steps: list[Check] = []
    if "const" in schema:
        steps.append(_const(schema["const"]))
    if "enum" in schema:
        steps.append(_enum(schema["enum"]))
    match schema.get("type"):
        case "object":
            steps.append(_object(schema))
        case "array":
            steps.append(_array(schema))
        case "string":
            steps.append(_string(schema))
        case "boolean":
            steps.append(lambda value: None if isinstance(value, bool) else ("", "is not of type boolean"))
        case "integer":
            steps.append(_integer(schema))
        case None:
            pass
        case other:
            raise ValueError(f"no schema of ours has the type {other!r}")
    if len(steps) <= 1:
        return steps[0] if steps else lambda value: None
    return lambda value: next((wrong for step in steps if (wrong := step(value)) is not None), None)


def _const(wanted: Json) -> Check:
    return lambda value: None if _same(value, wanted) else ("", f"is {value!r}, must be {wanted!r}")


def _enum(allowed: Sequence[str]) -> Check:
    known = frozenset(allowed)

    def check(value: Json) -> tuple[str, str] | None:
        if isinstance(value, str) and value in known:
            return None
        return "", f"is {str(value)[:40]!r}, must be one of {', '.join(allowed)}"

    return check


def _object(schema: Schema) -> Check:
    required = tuple(schema.get("required", ()))
    known = {name: _check(inner) for name, inner in schema.get("properties", {}).items()}
    rest = schema.get("additionalProperties", True)
    others = None if isinstance(rest, bool) else _check(rest)

    def check(value: Json) -> tuple[str, str] | None:
        if not isinstance(value, dict):
            return "", "is not of type object"
        for name in required:
            if name not in value:
                return f".{name}", "is missing"
        for name, item in value.items():
            inner = known.get(name, others)
            if inner is not None:
                if (wrong := inner(item)) is not None:
                    return f".{name if name in known else name[:80]}{wrong[0]}", wrong[1]
            elif rest is False:
                return f".{name[:80]}", "is not a field this version knows"
        return None

    return check


def _array(schema: Schema) -> Check:
    most, least = schema.get("maxItems", 2**53), schema.get("minItems", 0)
    inner = _check(schema["items"]) if "items" in schema else None

    def check(value: Json) -> tuple[str, str] | None:
        if not isinstance(value, list):
            return "", "is not of type array"
        if len(value) > most:
            return "", f"has {len(value)} items, at most {most} are allowed"
        if len(value) < least:
            return "", f"has {len(value)} items, at least {least} are needed"
        for n, item in enumerate(value if inner is not None else ()):
            if inner is not None and (wrong := inner(item)) is not None:
                return f"[{n}]{wrong[0]}", wrong[1]
        return None

    return check


def _string(schema: Schema) -> Check:
    longest, form = schema.get("maxLength", 2**53), schema.get("pattern")
    # fullmatch with the anchors stripped: `$` alone would let a trailing newline through.
    pattern = None if form is None else re.compile(form.removeprefix("^").removesuffix("$"))
    dated = schema.get("format") == "date-time"

    def check(value: Json) -> tuple[str, str] | None:
        if not isinstance(value, str):
            return "", "is not of type string"
        if len(value) > longest:
            return "", f"is {len(value)} characters long, at most {longest} are allowed"
        if pattern is not None and not pattern.fullmatch(value):
            return "", f"does not match {form}"
        if dated and milliseconds(value) is None:
            return "", "is not an RFC 3339 time with a Z between 2000 and 2199"
        return None

    return check


def _integer(schema: Schema) -> Check:
    least, most = schema.get("minimum"), schema.get("maximum")

    def check(value: Json) -> tuple[str, str] | None:
        if not isinstance(value, int) or isinstance(value, bool):
            return "", "is not of type integer"
        if (least is not None and value < least) or (most is not None and value > most):
            return "", f"is {value}, outside its range"
        return None

    return check


def _same(a: Json, b: Json) -> bool:
    return type(a) is type(b) and a == b
