"""JSON in an answer, and a small exact validator for the part of JSON Schema that eval checks use.

Where the JSON is: the whole answer, or the one fenced block (three backticks, with or without a language) in it,
whatever prose stands around the fence. Prose around JSON without a fence is not JSON. Duplicate keys, NaN and
Infinity are not JSON either, and numbers are read exactly (1.0 is an integer, as JSON Schema says; true is no number).

Keywords: type, enum, const, properties, required, additionalProperties, items, minItems, maxItems, minLength,
maxLength, pattern (see pattern.py), minimum, maximum, exclusiveMinimum, exclusiveMaximum; `title` and `description`
are allowed and say nothing. Any other keyword is refused when the eval set is loaded: a check that is silently not made is worse.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from provisioner.evals import pattern

MAX_DEPTH = 40
_LANGUAGE = re.compile(r"[A-Za-z0-9_+-]*(?=[\s{\[\"])")
_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": lambda v: _number(v),
    "integer": lambda v: _number(v) and v == int(v),
}
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
KEYWORDS = (
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "items",
    *_COUNTS,
    "pattern",
    *_BOUNDS,
    "title",
    "description",
)


class NotJson(ValueError):
    """The answer holds no JSON, and why."""


def parse(text: str) -> Any:
    """The JSON in an answer. Numbers are int or Decimal."""
    parts = text.split("```")
    if len(parts) == 1 or text.lstrip()[:1] in "{[":
        return loads(text)
    if len(parts) != 3:
        raise NotJson(f"{len(parts) // 2} fenced blocks; one is needed" if len(parts) % 2 else "a fence that is never closed")
    return loads(_LANGUAGE.sub("", parts[1], count=1) if _LANGUAGE.match(parts[1]) else parts[1])


def loads(text: str) -> Any:
    """Strict JSON: no duplicate keys, no NaN, bounded depth and digits, numbers exact."""
    try:
        value = json.loads(text.strip(), object_pairs_hook=_unique, parse_float=_decimal, parse_int=_integer, parse_constant=_constant)
        _shallow(value)
    except RecursionError:
        raise NotJson(f"nested deeper than {MAX_DEPTH}") from None
    except json.JSONDecodeError as fault:
        raise NotJson(f"{fault.msg} at character {fault.pos + 1}") from None
    return value


def complaint(schema: Any, path: str = "schema", depth: int = 0) -> str | None:
    """What is wrong with a schema, or None. Every keyword must be one that `violation` looks at."""
    if not isinstance(schema, Mapping):
        return f"{path} must be an object"
    if depth > MAX_DEPTH:
        return f"{path} is nested deeper than {MAX_DEPTH}"
    for key, value in schema.items():
        at = f"{path}.{key}"
        if key not in KEYWORDS:
            import difflib

            near = difflib.get_close_matches(key, KEYWORDS, 1)
            return f"{at} is not a keyword understood here" + (f'; did you mean "{near[0]}"?' if near else f" ({', '.join(KEYWORDS)})")
        if key == "type" and (bad := [t for t in _listed(value) if t not in _TYPES]):
            return f"{at}: {bad[0]!r} is not a type ({', '.join(_TYPES)})"
        if key in ("enum", "required") and not isinstance(value, list):
            return f"{at} must be a list"
        if key in _COUNTS and not (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
            return f"{at} must be a count"
        if key in _BOUNDS and not _number(value):
            return f"{at} must be a number"
        if key == "pattern":
            try:
                pattern.compile(str(value))
            except pattern.PatternError as fault:
                return f"{at}: {fault}"
        inner = {
            "items": [("items", value)],
            "properties": list(value.items()) if key == "properties" and isinstance(value, Mapping) else None,
        }.get(key, [])
        if key == "additionalProperties" and not isinstance(value, bool):
            inner = [(key, value)]
        if inner is None:
            return f"{at} must be an object"
        for name, sub in inner:
            if found := complaint(sub, at if name == key else f"{at}.{name}", depth + 1):
                return found
    return None


def violation(value: Any, schema: Mapping[str, Any], path: str = "$") -> str | None:
    """The first way in which a value is not what the schema asks for, or None."""
    kinds = _listed(schema.get("type", []))
    if kinds and not any(_TYPES[kind](value) for kind in kinds):
        return f"{path} is {_kind(value)}; needs {' or '.join(kinds)}"
    if "enum" in schema and not any(same(value, one) for one in schema["enum"]):
        return f"{path} is not one of the {len(schema['enum'])} values allowed"
    if "const" in schema and not same(value, schema["const"]):
        return f"{path} is not the one value allowed"
    if isinstance(value, dict):
        return _object(value, schema, path)
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return f"{path} has {len(value)} items; needs {schema.get('minItems', 0)} to {schema.get('maxItems', 'any number')}"
        for i, item in enumerate(value):
            if "items" in schema and (found := violation(item, schema["items"], f"{path}[{i}]")):
                return found
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            return f"{path} has {len(value)} characters; needs {schema.get('minLength', 0)} to {schema.get('maxLength', 'any number')}"
        if "pattern" in schema and not pattern.search(schema["pattern"], value):
            return f"{path} does not match {schema['pattern']}"
    if _number(value):
        if value < schema.get("minimum", value) or value > schema.get("maximum", value):
            return f"{path} is out of range"
        if ("exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]) or (
            "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]
        ):
            return f"{path} is out of range"
    return None


def same(a: Any, b: Any) -> bool:
    """Equal as JSON: 1 is 1.0, and true is not 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b) and _number(a) == _number(b)


def _object(value: dict[str, Any], schema: Mapping[str, Any], path: str) -> str | None:
    for key in schema.get("required", []):
        if key not in value:
            return f"{path} lacks {key!r}"
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, item in value.items():
        if key in known:
            found = violation(item, known[key], f"{path}.{key}")
        elif others is False:
            found = f"{path} has a key that is not allowed: {key[:40]!r}"
        else:
            found = None if others is True else violation(item, others, f"{path}.{key[:40]}")
        if found:
            return found
    return None


def _number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _kind(value: Any) -> str:
    return next(name for name in ("object", "array", "string", "boolean", "null", "integer", "number") if _TYPES[name](value))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        raise NotJson(f"the key {next(k for k in names if names.count(k) > 1)[:40]!r} is given twice")
    return found


def _decimal(text: str) -> Decimal:
    value = Decimal(text) if len(text) <= 60 else Decimal("NaN")
    if not value.is_finite() or abs(value.adjusted()) > 100:
        raise NotJson("a number of unreasonable size")
    return value


def _integer(text: str) -> int:
    if len(text) > 60:
        raise NotJson("a number of unreasonable size")
    return int(text)


def _constant(text: str) -> Any:
    raise NotJson(f"{text} is not JSON")


def _shallow(value: Any) -> None:
    layer, depth = [value], 0
    while layer:
        layer = [item for one in layer if isinstance(one, dict | list) for item in (one.values() if isinstance(one, dict) else one)]
        depth += 1
        if depth > MAX_DEPTH:
            raise NotJson(f"nested deeper than {MAX_DEPTH}")
